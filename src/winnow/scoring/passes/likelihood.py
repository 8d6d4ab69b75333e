"""The likelihood pass: the loss of every answer token under one view of the prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa
import torch

from winnow.backbone.likelihood import token_nll, token_nll_entropy
from winnow.data.records import Record
from winnow.data.templates import Encoded, Template
from winnow.scoring.protocols import Pass, Steps, columns_of

if TYPE_CHECKING:
    from winnow.perturb.attacks.base import PromptAttack


@dataclass(frozen=True)
class Likelihood(Pass):
    """Negative log-likelihood of every answer token under one view of the prompt.

    view: `clean`, s(A|Q); or `direct`, s(A), the instruction removed. attack: s(A|Q_adv), the prompt with its
    instruction attacked.

    Columns per record: `nll`, one float per scored answer token, in nats; `skipped`, leading answer tokens that
    have no predecessor and so no likelihood (1 for a bare answer under a tokenizer without BOS, else 0);
    `instruction_vector`, the mean over the instruction's tokens of the final hidden states, which this forward has at
    hand (rounded to 16 bits; none in the direct view and without an instruction); `prompt_tokens`; `answer_tokens`,
    before any cut; `flag`. Single losses are kept, not their mean: a method can average the same answer tokens in every
    term of its ratio, whatever each view's window had room for, and a formula can change without a new pass.
    """

    view: str = "clean"
    attack: PromptAttack | None = None
    version: ClassVar[int] = 3
    entropy: ClassVar[bool] = False
    schema: ClassVar[pa.Schema] = columns_of(
        nll=pa.list_(pa.float32()),
        skipped=pa.int32(),
        instruction_vector=pa.list_(pa.float16()),
        prompt_tokens=pa.int32(),
        answer_tokens=pa.int32(),
    )

    @property
    def label(self) -> str:
        return " ".join(["likelihood", self.view] + ([] if self.attack is None else [self.attack.name]))

    def encode(self, records: Sequence[Record], template: Template, tokenizer) -> list[Encoded]:
        return template.encode(records, tokenizer, self.view)

    def step(self, run: Steps, batch: dict[str, Any]) -> dict[str, list]:
        hidden = run.prefix.hidden(batch["input_ids"], batch["shared"])
        # Only rows that predict an answer token ever meet the head.
        rows = hidden[batch["row"], batch["position"]]
        if self.entropy:
            nll, *more = token_nll_entropy(rows, run.prefix.causal.logits, batch["target"])
        else:
            nll, more = token_nll(rows, run.prefix.causal.logits, batch["target"]), []
        counts = [record["scored"] for record in batch["columns"]]
        losses = nll.cpu().split(counts)
        columns: dict[str, list] = {"nll": [loss.tolist() for loss in losses]}
        for name, values in zip(("entropy", "openness"), more, strict=False):
            columns[name] = [part.tolist() for part in values.cpu().split(counts)]
        columns["instruction_vector"] = [None] * len(losses)
        spans = {i: record["instruction"] for i, record in enumerate(batch["columns"]) if record["instruction"]}
        if self.view != "direct" and spans:
            vectors = run.prefix.causal.vectors(hidden)
            means = torch.stack([vectors[i, slice(*span)].float().mean(0) for i, span in spans.items()])
            for i, mean in zip(spans, means.half().cpu().numpy(), strict=True):
                columns["instruction_vector"][i] = mean
        return columns


@dataclass(frozen=True)
class LikelihoodEntropy(Likelihood):
    """`Likelihood`, and how open the model was at each answer token: the entropy of what it expected there.

        H_t = - sum over the vocabulary v of p(v | tokens before t) log p(v | tokens before t)

    A class of its own, so that who does not ask for entropies neither computes nor stores them. Besides the columns of
    `Likelihood`: `entropy`, H_t of each scored answer token in nats, and `openness`, H_t / log V, from 0 to 1.
    """

    entropy: ClassVar[bool] = True
    version: ClassVar[int] = 1
    schema: ClassVar[pa.Schema] = pa.unify_schemas(
        [Likelihood.schema, pa.schema([(name, pa.list_(pa.float32())) for name in ("entropy", "openness")])]
    )

    @property
    def label(self) -> str:
        return f"{super().label} with entropy"
