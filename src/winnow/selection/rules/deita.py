"""DEITA's greedy filter: the best records that are unlike all those taken so far."""

from __future__ import annotations

from typing import Any

from winnow.selection.budget import Budget
from winnow.selection.rule import Candidates, Picks
from winnow.selection.rules.diverse import checked_limit
from winnow.selection.vectors import unlike


class Deita(Budget):
    """Score first, diversity aware ("What Makes Good Data for Alignment?", ICLR 2024, arXiv 2312.15685).

        walk the ranking; take i  iff  max over taken j of cos(v_i, v_j) <= limit;  stop at the budget

    The limit is the paper's 0.9. Its ranking is complexity times quality, judged by models of its own; here it is the
    method's score. The published code also compares a record with rejected ones of its batch, so its result depends on
    the batch size; here, as in the paper, only records that were taken count.

    limit: cosine, in (0, 1]. A budget that cannot be filled is left short.
    """

    name = "deita"
    needs_vectors = True

    def __init__(self, limit: float, **frame: Any) -> None:
        super().__init__(**frame)
        self.limit = checked_limit(limit)

    def pick(self, candidates: Candidates, budget: int) -> Picks:
        return Picks(*unlike(candidates.vectors, self.limit, budget))
