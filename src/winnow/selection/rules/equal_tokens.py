"""Control: random records with as many answer tokens as a rule's."""

from __future__ import annotations

import numpy as np

from winnow.selection.around import Around
from winnow.selection.rule import Candidates, Picks


class EqualTokens(Around):
    """Is a rule's gain more than that of more training tokens? Random records up to the rule's answer tokens (ours).

    Walks a random order of all valid records, the rule's own among them as in any random draw, and stops where the sum
    of answer tokens is nearest to that of the rule's subset. The number of records is whatever this takes.
    """

    name = "equal_tokens"

    def pick(self, candidates: Candidates, budget: int) -> Picks:
        wanted = float(candidates.lengths[self.around.pick(candidates, budget).taken].sum())
        order = self.drawn(candidates)
        total = np.cumsum(candidates.lengths[order])
        count = int(np.abs(total - wanted).argmin()) + 1
        about = {"tokens": {"wanted": wanted, "taken": float(total[count - 1])}}
        return Picks(sorted(order[:count]), about=about, note="")
