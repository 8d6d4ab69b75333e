"""The pass behind noise-injection consistency: how far noise on a record's words moves the model's predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pyarrow as pa
import torch
from torch import Tensor

from winnow.backbone.divergence import kl_rows
from winnow.backbone.prefix import SharedPrefix
from winnow.data.records import Record
from winnow.data.templates import Encoded, Template
from winnow.errors import UserError, check_choice
from winnow.perturb.embedding_noise import FAMILIES, STATISTICS, add_noise, embedding_noise
from winnow.scoring.protocols import Pass, Steps, columns_of, padded

# Without a word to put noise on, P = Q and the divergence is 0, the best there is: a reason, not a score.
NOTHING_TO_PERTURB = "empty_instruction_and_input"


@dataclass(frozen=True)
class NoiseDivergence(Pass):
    """KL(P || Q) between next-token distributions without (P) and with noise (Q) on the record's own words.

        KL = 1/n sum over positions t = 0 .. L-2 of sum over the vocabulary of P_t log(P_t / Q_t)

    eq. 3 of "Priority on High-Quality" (EMNLP 2025). The sequence is prompt and answer, L tokens cut to the template's
    window. Position t predicts token t + 1, so n = L - 1: token 0 has no prediction, and what position L - 1 says about
    a token that is not there is left out (ours). Positions before the first noised token see nothing of the noise:
    their KL is exactly 0, counts in n, and is never computed.

    betas: noise strengths, all read from one draw of eps and one clean run. family, statistics, seed: see
    `winnow.perturb.embedding_noise`. draws: independent draws of eps.

    Columns per record: for every beta `kl_beta_<beta>`, KL of each draw in nats per position; `kl_answer_beta_<beta>`,
    the same mean over the positions that predict an answer token; `tokens`, n; `noised_tokens`; `prompt_tokens`;
    `answer_tokens`, before any cut; `flag`.
    """

    betas: tuple[float, ...] = (10.0,)
    family: str = "gaussian"
    draws: int = 3
    statistics: str = "scalar"
    seed: int = 0
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        # The order in which strengths are listed is no reason for another artifact.
        object.__setattr__(self, "betas", tuple(sorted({float(beta) for beta in self.betas})))
        if not self.betas or self.betas[0] < 0:
            raise UserError(f"method.betas={list(self.betas)} must be one or more noise strengths of at least 0.")
        check_choice("method.family", self.family, FAMILIES)
        check_choice("method.statistics", self.statistics, STATISTICS)
        if self.draws < 1:
            raise UserError(f"method.draws={self.draws} must be at least 1.")

    @staticmethod
    def column(beta: float, region: str = "") -> str:
        """Name of the column of one strength. region: empty for the whole sequence, or `answer`."""
        return f"kl_{region + '_' if region else ''}beta_{str(float(beta)).removesuffix('.0')}"

    @property
    def schema(self) -> pa.Schema:
        names = [self.column(beta, region) for beta in self.betas for region in ("", "answer")]
        counts = ("tokens", "noised_tokens", "prompt_tokens", "answer_tokens")
        return columns_of(**dict.fromkeys(names, pa.list_(pa.float32())), **dict.fromkeys(counts, pa.int32()))

    def encode(self, records: Sequence[Record], template: Template, tokenizer) -> list[Encoded]:
        return [
            record if record.flag or record.spans else replace(record, ids=[], flag=NOTHING_TO_PERTURB)
            for record in template.encode(records, tokenizer)
        ]

    def collate(self, batch: Sequence[Encoded]) -> dict[str, Any]:
        """Padded ids and two lists of places.

        input_ids: (batch, length). noised_row, noised_position: (noised tokens,), record by record.
        row, position: (predictions that can differ,), from the first noised token to the last but one, likewise.
        """
        made = padded(batch)
        noised = [[k for begin, end in sorted(one.spans.values()) for k in range(begin, end)] for one in batch]
        reached = [range(own[0], len(one.ids) - 1) for own, one in zip(noised, batch, strict=True)]
        for column, own, after in zip(made["columns"], noised, reached, strict=True):
            column.update(tokens=column["tokens"] - 1, noised_tokens=len(own), reached=len(after))
        for name, places in (("noised_", noised), ("", reached)):
            made[f"{name}row"] = torch.tensor([i for i, own in enumerate(places) for _ in own], dtype=torch.long)
            made[f"{name}position"] = torch.tensor([k for own in places for k in own], dtype=torch.long)
        return made | {"first": min(own[0] for own in noised)}

    def step(self, run: Steps, batch: dict[str, Any]) -> dict[str, list]:
        """One clean run, then one run per draw and strength of what follows the shared prefix."""
        ids, where = batch["input_ids"], (batch["row"], batch["position"])
        # A template may put the input before the instruction: what is noised is never part of a prefix.
        shared = min(batch["shared"], batch["first"])
        clean = run.prefix.hidden(ids, shared)[where]
        noisy = [run.prefix.hidden(ids, shared, rest)[where] for rest in self._noised(run.prefix, batch, shared)]
        # One transfer per batch: nothing before this line waits for the device.
        divergence = kl_rows(clean, torch.stack(noisy), run.prefix.causal.logits).double().cpu()
        return self._columns(batch["columns"], divergence)

    def _noised(self, prefix: SharedPrefix, batch: dict[str, Any], shared: int):
        """Input embeddings after the prefix, (batch, length - shared, width): draw by draw, in each the strengths."""
        clean = prefix.causal.embed(batch["input_ids"][:, shared:])
        where = (batch["noised_row"], batch["noised_position"] - shared)
        words = clean[where]  # (noised tokens, width)
        regions = words.split([record["noised_tokens"] for record in batch["columns"]])
        for draw in range(self.draws):
            noise = torch.cat(
                [
                    embedding_noise(region, record["id"], draw, self.seed, self.family, self.statistics)
                    for region, record in zip(regions, batch["columns"], strict=True)
                ]
            )
            for beta in self.betas:
                changed = clean.clone()
                changed[where] = add_noise(words, noise, beta)
                yield changed

    def _columns(self, records: list[dict[str, Any]], divergence: Tensor) -> dict[str, list]:
        """divergence: (draws x betas, predictions that can differ) in nats."""
        by_record = divergence.split([record["reached"] for record in records], dim=1)
        columns: dict[str, list] = {}
        for k, beta in enumerate(self.betas):
            rows = [values[k :: len(self.betas)] for values in by_record]  # (draws, predictions) of each record
            columns[self.column(beta)] = [
                (values.sum(1) / record["tokens"]).tolist() for values, record in zip(rows, records, strict=True)
            ]
            # The answer's predictions are the last ones.
            columns[self.column(beta, "answer")] = [
                values[:, -record["scored"] :].mean(1).tolist() for values, record in zip(rows, records, strict=True)
            ]
        return columns
