"""The pass behind SelectIT: how the backbone rates a record on a scale of 1 to 5."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pyarrow as pa
import pytorch_lightning as pl
import torch
from torch import Tensor

from winnow.backbone.loading import Backbone
from winnow.backbone.prefix import SharedPrefix
from winnow.data.records import Record
from winnow.data.templates import EMPTY_ANSWER, Encoded, Template
from winnow.errors import UserError
from winnow.scoring.protocols import Pass, columns_of

GRADES = ("1", "2", "3", "4", "5")


@dataclass(frozen=True)
class Rating(Pass):
    """Probabilities of the tokens 1 to 5 as the next one, after a request to rate the record, made to sum to 1.

        text = request, earlier turns, `Instruction:` instruction and input, `Response:` answer, `Score:`

    request: what the backbone is asked. Column `probabilities`: five numbers a record. The texts around the record are
    ours; the window is the template's. Source: SelectIT (arXiv 2402.16705).
    """

    request: str
    version: ClassVar[int] = 1
    schema: ClassVar[pa.Schema] = columns_of(probabilities=pa.list_(pa.float32()))

    def encode(self, records: Sequence[Record], template: Template, tokenizer) -> list[Encoded]:
        form = self._form(template.max_length)
        asked = form.encode([_as_request(one) for one in records], tokenizer)
        return [
            replace(one, ids=[] if flag else one.ids[: one.answer_start], flag=flag)
            for one, record in zip(asked, records, strict=True)
            for flag in [EMPTY_ANSWER if record.output == "" else one.flag]
        ]

    def module(self, backbone: Backbone) -> pl.LightningModule:
        grades = [Record(grade, 0, "?", "", grade, (), "", {}) for grade in GRADES]
        encoded = self._form(2**20).encode(grades, backbone.tokenizer)
        tokens = [one.ids[one.answer_start] for one in encoded]
        if len(set(tokens)) < len(GRADES):
            raise UserError(
                f"{backbone.name} has no tokens of its own for the grades 1 to 5, so it cannot rate; take another "
                f"backbone."
            )
        return _RatingModule(backbone.model, tokens)

    def _form(self, max_length: int) -> Template:
        request = self.request.replace("{", "{{").replace("}", "}}")
        shape = f"{request}\n\nInstruction:\n{{instruction}}\n\nScore:\n"
        return Template("rating", shape, shape, None, None, "auto", "separate", max_length, "2024-07-26")


def _as_request(record: Record) -> Record:
    """The whole record as an instruction, and a grade as the answer."""
    asked = f"{record.instruction}\n{record.input}" if record.input else record.instruction
    texts = [*(text for _, text in record.turns), asked]
    return replace(
        record, instruction="\n".join(texts) + f"\n\nResponse:\n{record.output}", input="", output="1", turns=()
    )


class _RatingModule(pl.LightningModule):
    def __init__(self, model, tokens: Sequence[int]) -> None:
        super().__init__()
        self.model, self.tokens = model, list(tokens)
        self.prefix = SharedPrefix(model)

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, list]:
        hidden = self.prefix.hidden(batch["input_ids"], batch["shared"])
        last = [record["tokens"] - 1 for record in batch["columns"]]
        rows = hidden[torch.arange(len(last)), torch.tensor(last)]
        logits: Tensor = self.prefix.causal.logits(rows)[:, self.tokens].float()
        return {
            "id": [record["id"] for record in batch["columns"]],
            "probabilities": logits.softmax(-1).cpu().tolist(),
            "flag": [None] * len(last),
        }
