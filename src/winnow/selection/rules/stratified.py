"""Stratified selection: every class in proportion to its size."""

from __future__ import annotations

from winnow.selection.budget import Budget
from winnow.selection.clusters import quotas, within_quotas
from winnow.selection.rule import QUOTA_FULL, Candidates, Picks


class Stratified(Budget):
    """Proportional allocation over the k-means classes, and nothing else.

        q_c = budget * n_c / n records of class c, by largest remainder

    order=random draws them inside each class, the usual stratified sample; order=top takes the best of each class.
    No class is smaller than its quota, so the budget is always filled.
    """

    name = "stratified"
    needs_vectors = True

    def pick(self, candidates: Candidates, budget: int) -> Picks:
        quota = quotas(candidates.classes, budget)
        taken = within_quotas(candidates.classes, range(candidates.n), quota)
        passed = set(range(taken[-1] + 1)) - set(taken)
        return Picks(taken, reasons=dict.fromkeys(passed, QUOTA_FULL), quotas=quota)
