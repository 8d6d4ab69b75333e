"""Selection by bins: the best-scored records of every bin of like instructions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from winnow.errors import UserError, check_choice
from winnow.selection import clusters
from winnow.selection.budget import Budget
from winnow.selection.clusters import within_quotas
from winnow.selection.rule import QUOTA_FULL, SMALL_BIN, Candidates, Picks

PARTS = ("best", "middle")


class Bins(Budget):
    """ADG's selection (arXiv 2604.10448 and its public code): semantic bins, and in each the best of its records.

        bins      mini-batch k-means on the instructions' vectors, `classes` of them
        quota     q_b = max(1, floor(n_b * budget / n)) records of bin b; a bin of fewer than `smallest` gives none, or
                  to the middle part all that it has [code]
        cap       if the quotas together exceed the budget, the best-scored of those taken make it up
        top_up    what the quotas leave goes to the best-ranked of the others, small bins included (ours; the code
                  leaves the budget short)

    Sizes count eligible records (ours: the code has no ineligible ones). part: `best`, the first q_b of each bin;
    `middle`, the q_b in the middle of each bin's ranking, for the ablation. The worst of each bin are the best with
    order=bottom; there the cap keeps the lowest scores [code]. For the middle part it keeps the highest [code].

    Where 3 q_b > n_b, at budgets above a third of the pool, the code shrinks q_b, so that its three subsets share no
    record; here they may (ours), because a run has one of them.
    """

    name = "bins"
    needs_vectors = True

    def __init__(self, part: str, smallest: int, top_up: bool, **frame: Any) -> None:
        super().__init__(**frame)
        check_choice("selection.part", part, PARTS)
        if smallest < 1:
            raise UserError(f"selection.smallest={smallest} must be at least 1.")
        self.part, self.smallest, self.top_up = part, smallest, top_up

    def classify(self, points: np.ndarray, ids: Sequence[str]) -> np.ndarray:
        return clusters.bins(points, ids, self.classes, self.seed)

    def pick(self, candidates: Candidates, budget: int) -> Picks:
        labels = candidates.classes
        size = np.bincount(labels)
        few = size if self.part == "middle" else 0
        quota = np.where(size < self.smallest, few, np.maximum(1, size * budget // candidates.n))
        if self.part == "middle":
            taken = _middle(labels, size, quota)
            # Of the others, those nearest to the middle of the whole ranking.
            order = sorted(range(candidates.n), key=lambda place: (abs(2 * place + 1 - candidates.n), place))
        else:
            order = list(range(candidates.n))
            taken = within_quotas(labels, order, quota)
        taken = taken[:budget]
        if self.top_up:
            already = set(taken)
            taken += [place for place in order if place not in already][: budget - len(taken)]
        taken.sort()
        reach = candidates.n if len(taken) < budget else taken[-1] + 1  # nothing is beyond a budget that was not filled
        passed = set(range(reach)) - set(taken)
        reasons = {place: SMALL_BIN if size[labels[place]] < self.smallest else QUOTA_FULL for place in passed}
        return Picks(taken, reasons=reasons, quotas=quota)


def _middle(labels: np.ndarray, size: np.ndarray, quota: np.ndarray) -> list[int]:
    """Places of the q_b records in the middle of each bin's ranking, best first: from floor((n_b - q_b) / 2) on."""
    taken: list[int] = []
    for label in np.flatnonzero(quota):
        members = np.flatnonzero(labels == label)
        start = (size[label] - quota[label]) // 2
        taken += members[start : start + quota[label]].tolist()
    return sorted(taken)
