"""The pass behind T-SHIRT: answer losses under draws of NEFTune noise on the whole input."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import pyarrow as pa
import torch
from torch import Tensor

from winnow import draws
from winnow.backbone.likelihood import token_nll
from winnow.data.records import Record
from winnow.data.templates import Encoded, Template
from winnow.errors import UserError
from winnow.perturb.embedding_noise import sent
from winnow.scoring.protocols import Pass, Steps, columns_of, padded


@dataclass(frozen=True)
class NoisedLikelihood(Pass):
    """Losses of the answer's tokens in nats, once for each draw of noise on the input embeddings of all tokens.

        e~_k = e_k + alpha / sqrt(L h) * U(-1, 1),   L tokens of prompt and answer, h the embeddings' width

    view: `clean` or `direct`, as of `Likelihood`. L is that of the whole text in either view, and an answer token has
    the same noise in both [T-SHIRT code]. draws: N. alpha: noise strength of NEFTune (arXiv 2310.05914). seed: of the
    draws, with record and draw.

    Columns per record: `nll`, N losses of each scored answer token, draw by draw; the others as of `Likelihood`. The
    noise begins with the first token, so that no prefix is shared: N forwards of the whole text.
    """

    view: str
    draws: int
    alpha: float
    seed: int
    version: ClassVar[int] = 1
    schema: ClassVar[pa.Schema] = columns_of(
        nll=pa.list_(pa.float32()), skipped=pa.int32(), prompt_tokens=pa.int32(), answer_tokens=pa.int32()
    )

    def __post_init__(self) -> None:
        if self.draws < 1:
            raise UserError(f"method.draws={self.draws} must be at least 1.")
        if self.alpha < 0:
            raise UserError(f"method.alpha={self.alpha} must be a noise strength of at least 0.")

    @property
    def label(self) -> str:
        return f"noised likelihood {self.view}"

    def encode(self, records: Sequence[Record], template: Template, tokenizer) -> list[Encoded]:
        whole = template.encode(records, tokenizer)
        own = whole if self.view == "clean" else template.encode(records, tokenizer, self.view)
        return [
            _Noised(**vars(one) | ({"ids": [], "flag": flag} if flag else {}), length=len(text.ids))
            for one, text in zip(own, whole, strict=True)
            for flag in [one.flag or text.flag]
        ]

    def collate(self, batch: Sequence[Encoded]) -> dict[str, Any]:
        made = padded(batch)
        for column, record in zip(made["columns"], cast("Sequence[_Noised]", batch), strict=True):
            column["length"] = record.length
        return made

    def cost(self, encoded: Encoded, shared: int) -> int:
        return len(encoded.ids)

    def step(self, run: Steps, batch: dict[str, Any]) -> dict[str, list]:
        records, counts = batch["columns"], [record["scored"] for record in batch["columns"]]
        embeds = run.prefix.causal.embed(batch["input_ids"])
        runs = []
        for draw in range(self.draws):
            noised = (embeds.float() + self._noise(embeds, records, draw)).to(embeds.dtype)
            hidden = run.prefix.hidden(batch["input_ids"], 0, noised)
            rows = hidden[batch["row"], batch["position"]]
            runs.append(token_nll(rows, run.prefix.causal.logits, batch["target"]))
        losses = torch.stack(runs).cpu().split(counts, dim=1)  # (draws, scored tokens) of each record
        return {"nll": [loss.flatten().tolist() for loss in losses]}

    def _noise(self, embeds: Tensor, records: Sequence[dict[str, Any]], draw: int) -> Tensor:
        """(batch, length, width) in fp32, 0 on padding."""
        width = embeds.shape[-1]
        noise = torch.zeros(embeds.shape, dtype=torch.float32)
        for row, record in zip(noise, records, strict=True):
            source = draws.generator(self.seed, record["id"], draw)
            start, stop = record["prompt_tokens"], record["tokens"]
            # The answer's rows are drawn first: they are the same whatever stands before the answer.
            row[start:stop] = torch.rand((stop - start, width), generator=source) * 2 - 1
            row[:start] = torch.rand((start, width), generator=source) * 2 - 1
            row *= self.alpha / math.sqrt(record["length"] * width)
        return sent(noise, embeds.device)


@dataclass(frozen=True)
class _Noised(Encoded):
    """length: L, tokens of the whole text, whatever the view."""

    length: int = 0
