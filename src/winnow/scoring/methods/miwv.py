"""MIWV, model instruction weakness value: does the most similar record help, as a one-shot example?

    score = s(A | C, Q) - s(A | Q),   C the nearest other record with its answer, as an earlier turn

s is the mean answer loss in nats per token. High is wanted: an example does not make up for what the model lacks.
Source: "Importance-Aware Data Selection for Efficient LLM Instruction Tuning" (AAAI 2026, arXiv 2511.07074).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from winnow.data.records import Record, record_id
from winnow.errors import UserError
from winnow.scoring.passes.embedding import SentenceEmbedding
from winnow.scoring.passes.likelihood import Likelihood
from winnow.scoring.protocols import Method
from winnow.scoring.runner import PassTable
from winnow.scoring.scores import Scores, answer_losses, first_reason

NO_EXAMPLE = "no_example"
ALIKE = 1e-5  # cosines that differ by less are equal: vectors of one text differ by rounding between batches (ours)
ROWS = 1024  # of a block of cosines: 1024 rows of 52,000 records are 213 MB


@dataclass(frozen=True)
class OneShot(Likelihood):
    """`Likelihood` of records with an example before them. A class of its own: its price is not that of the records
    alone."""

    @property
    def label(self) -> str:
        return "likelihood one-shot"


class Weakness(Method):
    """encoder, revision: the sentence encoder by which records are near, see `SentenceEmbedding`; it reads instruction
    and input."""

    version = 2

    def __init__(self, name: str, encoder: str, revision: str | None) -> None:
        self.name, self.encoder, self.revision = name, encoder, revision
        embedding = SentenceEmbedding(encoder, revision, max_length=256, region="prompt")  # window of MiniLM [its card]
        self.passes = {"neighbours": embedding, "conditioned": Likelihood("clean"), "one_shot": OneShot("clean")}

    def records_for(self, name: str, tables: dict[str, PassTable], records: Sequence[Record]) -> Sequence[Record]:
        if name != "one_shot":
            return records
        examples = nearest(tables["neighbours"], records)
        return [
            one if place is None else with_example(one, records[place])
            for one, place in zip(records, examples, strict=True)
        ]

    def score(self, tables: dict[str, PassTable], records: Sequence[Record]) -> Scores:
        examples = nearest(tables["neighbours"], records)
        losses, tokens, reasons = answer_losses({name: tables[name] for name in ("conditioned", "one_shot")})
        flag = first_reason(reasons, [NO_EXAMPLE if place is None else None for place in examples])
        difference = losses["one_shot"] - losses["conditioned"]
        return Scores(
            score=np.where([reason is None for reason in flag], difference, np.nan),
            flag=flag,
            components={f"nll_{name}": values for name, values in losses.items()}
            | {
                "example_row": np.array([np.nan if i is None else records[i].row for i in examples]),
                "answer_tokens": tokens,
                "prompt_tokens": tables["conditioned"].numbers("prompt_tokens"),
            },
            higher_is_better=True,
            descriptions={
                "score": "s(A|C,Q) - s(A|Q), nats per token; C is the most similar record",
                "nll_one_shot": "s(A|C,Q), the same behind the example",
                "example_row": "row of the example in the source",
            },
        )


def with_example(record: Record, example: Record) -> Record:
    """The record with another one as a turn before all of its own but the system's; its id is that of these texts."""
    asked = f"{example.instruction}\n\n{example.input}" if example.input else example.instruction
    first = next((i for i, (role, _) in enumerate(record.turns) if role != "system"), len(record.turns))
    shown = (("user", asked), ("assistant", example.output))
    turns = (*record.turns[:first], *shown, *record.turns[first:])
    made = record_id(record.instruction, record.input, record.output, turns)
    return replace(record, id=made, turns=turns)


def nearest(table: PassTable, records: Sequence[Record]) -> list[int | None]:
    """The place of the most similar record with an answer and another id, of those as similar to 1e-5 the first; None
    without one.

    table: unit vectors of the records in a column `vector`.
    """
    vectors = table.vectors("vector")
    there = ~np.isnan(vectors[:, 0])
    vectors = np.nan_to_num(vectors)
    usable = there & np.array([bool(one.output.strip()) for one in records])
    ids = np.unique([one.id for one in records], return_inverse=True)[1]
    found: list[int | None] = []
    for start in range(0, len(records), ROWS):
        cosines = vectors[start : start + ROWS] @ vectors.T
        cosines[:, ~usable] = -np.inf
        cosines[ids[start : start + ROWS, None] == ids[None]] = -np.inf
        best = (cosines >= cosines.max(1, keepdims=True) - ALIKE).argmax(1)
        known = there[start : start + ROWS] & (cosines[np.arange(len(best)), best] > -np.inf)
        found += [int(place) if ok else None for place, ok in zip(best, known, strict=True)]
    if not any(place is not None for place in found):
        raise UserError("method=miwv needs at least two different records with an answer, to take one as an example.")
    return found
