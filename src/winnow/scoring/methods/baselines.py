"""Baselines that look at no model: longest answers, a random draw, everything, and the truth where it is known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from winnow import draws
from winnow.data.records import Record
from winnow.data.templates import EMPTY_ANSWER
from winnow.errors import UserError
from winnow.scoring.passes.token_count import TokenCount
from winnow.scoring.protocols import Method
from winnow.scoring.runner import PassTable
from winnow.scoring.scores import Scores


class Length(Method):
    """Answer length in tokens of the backbone's tokenizer, before any cut; long is wanted."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.passes = {"count": TokenCount()}

    def score(self, tables: dict[str, PassTable], records: Sequence[Record]) -> Scores:
        table = tables["count"]
        flag = table.flags()
        tokens = table.numbers("answer_tokens")
        return Scores(
            score=np.where([reason is None for reason in flag], tokens, np.nan),
            flag=flag,
            components={"answer_tokens": tokens, "prompt_tokens": table.numbers("prompt_tokens")},
            higher_is_better=True,
            descriptions={"score": "tokens of the answer", "answer_tokens": "answer tokens before any cut"},
        )


class Random(Method):
    """A uniform draw in [0, 1) that is a function of (seed, record id): the same in any order and any process."""

    def __init__(self, name: str, seed: int) -> None:
        self.name, self.seed = name, seed

    def score(self, tables: dict[str, PassTable], records: Sequence[Record]) -> Scores:
        return _without_passes([draws.uniform(self.seed, record.id) for record in records], records, "uniform draw")


class Full(Method):
    """All records: the selection's ratio is not asked."""

    takes_all = True

    def __init__(self, name: str) -> None:
        self.name = name

    def score(self, tables: dict[str, PassTable], records: Sequence[Record]) -> Scores:
        return _without_passes([1.0] * len(records), records, "the same for every record")


class Oracle(Method):
    """1 + a uniform draw for a record without a defect, the draw alone for one with a defect: what a selector that
    finds every defect would bring. The pool must say which is which, in `defect`."""

    reads = "defect"

    def __init__(self, name: str, seed: int) -> None:
        self.name, self.seed = name, seed

    def score(self, tables: dict[str, PassTable], records: Sequence[Record]) -> Scores:
        bare = next((record.row for record in records if "defect" not in record.raw), None)
        if bare is not None:
            raise UserError(
                f"method={self.name} needs a pool with known defects, but row {bare} has no `defect`: use "
                f"data=embedded, or NLU data with data.swapped=0.3."
            )
        values = [draws.uniform(self.seed, one.id) + (not one.raw["defect"]) for one in records]
        return _without_passes(values, records, "uniform draw, and 1 for a record without a defect")


def _without_passes(values: list[float], records: Sequence[Record], meaning: str) -> Scores:
    # An empty answer can be neither scored nor trained on, whatever the method.
    flag = [EMPTY_ANSWER if record.output == "" else None for record in records]
    score = np.where([reason is None for reason in flag], np.array(values, dtype=np.float64), np.nan)
    return Scores(score, flag, {}, higher_is_better=True, descriptions={"score": meaning})
