"""The frame of the controls: random subsets that are like another rule's subset in one respect."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from winnow import draws
from winnow.errors import UserError
from winnow.scoring.filters import Range
from winnow.scoring.passes.token_count import TokenCount
from winnow.scoring.protocols import Pass
from winnow.selection.budget import Budget
from winnow.selection.rule import Candidates, Picks


class Around(Budget):
    """A rule that asks another one first. It costs the tokenizer's time, and no pass over a backbone.

    around: the rule that is controlled; order, vectors and classes are its own. ratio or count, budget and filters: of
    both. seed: of the draw. Raises UserError for `full`, which leaves nothing to draw from.
    """

    version: ClassVar[int] = 2

    def __init__(
        self, around: Budget, ratio: float | None, count: int | None, budget: str, filters: Sequence[Range], seed: int
    ) -> None:
        own = {key: getattr(around, key) for key in ("order", "embedding", "classes", "centre")}
        super().__init__(ratio, count, budget, filters=filters, seed=seed, **own)
        self.around, self.needs_vectors, self.needs_column = around, around.needs_vectors, around.needs_column
        self.classify, self._keys, self._number = around.classify, around._keys, around._number

    @property
    def passes(self) -> dict[str, Pass]:
        return self.around.passes | {"count": TokenCount()}

    def all_eligible(self, number: int) -> Picks:
        raise UserError(f"selection={self.name} draws beside what a method takes, and this method takes all records.")

    def drawn(self, candidates: Candidates) -> list[int]:
        """All places in an order that is drawn from (seed, record id), and is not the order of a rule that draws."""
        return sorted(range(candidates.n), key=lambda place: draws.uniform("control", self.seed, candidates.ids[place]))
