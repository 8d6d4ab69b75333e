"""Control: other records than a rule's, with the same histogram of answer lengths."""

from __future__ import annotations

from typing import Any

import numpy as np

from winnow.errors import UserError
from winnow.selection.around import Around
from winnow.selection.clusters import within_quotas
from winnow.selection.rule import Candidates, Picks


class LengthMatched(Around):
    """Is a rule's gain more than that of long answers? Random records with answers as long as the rule's (ours).

        bins   the valid records in `bins` parts of equal size by answer tokens: edges at their quantiles, a length on
               an edge belongs to the upper part
        draw   from each part as many records as the rule took there, none of them the rule's own

    Where a part has too few others, the subset is left short and says so: a rule that takes all of the longest answers
    has no such control. `selection.json` holds the edges and the numbers of each part.
    """

    name = "length_matched"

    def __init__(self, around, bins: int = 20, **frame: Any) -> None:
        super().__init__(around, **frame)
        if bins < 1:
            raise UserError(f"selection.bins={bins} must be at least 1.")
        self.bins = bins

    def options(self) -> dict:
        return super().options() | {"bins": self.bins}

    def pick(self, candidates: Candidates, budget: int) -> Picks:
        reference = self.around.pick(candidates, budget).taken
        edges = np.quantile(candidates.lengths, np.arange(1, self.bins) / self.bins)
        part = np.searchsorted(edges, candidates.lengths, side="right")
        quota = np.bincount(part[reference], minlength=self.bins)
        own = frozenset(reference)
        others = [place for place in self.drawn(candidates) if place not in own]
        taken = within_quotas(part, others, quota)
        found = np.bincount(part[taken], minlength=self.bins) if taken else np.zeros_like(quota)
        note = ""
        if len(taken) < len(reference):
            note = (
                f"Selection: only {len(taken)} records match the answer lengths of the {len(reference)} that the rule "
                f"{self.around.name} takes, because too few others are as long or short; "
                f"lower the share or selection.bins for more."
            )
        about = {"edges": edges.tolist(), "wanted": quota.tolist(), "taken": found.tolist()}
        return Picks(sorted(taken), controlled=own, about={"lengths": about}, note=note)
