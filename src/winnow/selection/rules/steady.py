"""T-SHIRT's selection: the best records by score, and of these the ones whose score varies least."""

from __future__ import annotations

from typing import Any

import numpy as np

from winnow.errors import UserError
from winnow.selection.budget import Budget
from winnow.selection.rule import Candidates, Picks


class Steady(Budget):
    """The second and third stage of T-SHIRT (NeurIPS 2025, arXiv 2506.01317; code: Dynamite321/T-SHIRT).

        P = the `pool` * B best-ranked records;   take the B of P with the smallest `column`

    pool: at least 1; 2 [code]. column: of the score table, the spread of a record's score over its draws. Of equal
    spreads the better-ranked record is taken.
    """

    name = "steady"

    def __init__(self, pool: float, column: str, **frame: Any) -> None:
        super().__init__(**frame)
        if pool < 1:
            raise UserError(f"selection.pool={pool} must be at least 1, in budgets.")
        self.pool, self.column, self.needs_column = pool, column, column

    def pick(self, candidates: Candidates, budget: int) -> Picks:
        spread = candidates.column[: int(self.pool * budget)]
        return Picks(sorted(np.argsort(spread, kind="stable")[:budget].tolist()))
