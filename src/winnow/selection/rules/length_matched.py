"""Control: other records than a rule's, with the same histogram of answer lengths."""

from __future__ import annotations

from typing import Any

import numpy as np

from winnow.errors import UserError
from winnow.selection.around import Around
from winnow.selection.clusters import within_quotas
from winnow.selection.rule import CONTROLLED, Candidates, Picks


class LengthMatched(Around):
    """Is a rule's gain more than that of long answers? Random records with answers as long as the rule's (ours).

        bins   the valid records in `bins` parts of equal size by answer tokens: edges at their quantiles, a length on
               an edge belongs to the upper part
        draw   from each part as many records as the rule took there, none of them the rule's own

    Where a part has too few others, the nearest parts give the rest, so that the number of records stays equal; the run
    says how many, and `selection.json` holds the edges and the numbers of each part.

    Raises UserError where the rule takes more than half of the valid records.
    """

    name = "length_matched"

    def __init__(self, around, bins: int, **frame: Any) -> None:
        super().__init__(around, **frame)
        if bins < 1:
            raise UserError(f"selection.bins={bins} must be at least 1.")
        self.bins = bins

    def pick(self, candidates: Candidates, budget: int) -> Picks:
        reference = self.around.pick(candidates, budget).taken
        edges = np.quantile(candidates.lengths, np.arange(1, self.bins) / self.bins)
        part = np.searchsorted(edges, candidates.lengths, side="right")
        quota = np.bincount(part[reference], minlength=self.bins)
        own = frozenset(reference)
        others = [place for place in self.drawn(candidates) if place not in own]
        if len(others) < len(reference):
            raise UserError(
                f"selection=length_matched draws other records than the {len(reference)} that the rule "
                f"{self.around.name} takes, and only {len(others)} are left; lower selection.ratio or selection.count."
            )
        taken = within_quotas(part, others, quota)
        lacking = quota - np.bincount(part[taken], minlength=self.bins)
        for short in np.flatnonzero(lacking):
            chosen = set(taken)
            left = [one for one in others if one not in chosen]
            taken += sorted(left, key=lambda one, at=short: abs(part[one] - at))[: lacking[short]]
        note = ""
        if lacking.any():
            note = (
                f"Selection: {lacking.sum()} of the {len(taken)} records are of another length than the rule's, "
                f"because too few others are as long or short; a lower share needs fewer of them."
            )
        found = np.bincount(part[taken], minlength=self.bins)
        about = {"edges": edges.tolist(), "wanted": quota.tolist(), "taken": found.tolist()}
        return Picks(sorted(taken), reasons=dict.fromkeys(own, CONTROLLED), about={"lengths": about}, note=note)
