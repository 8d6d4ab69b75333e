"""Selection by quality and diversity: cover the classes, and leave near copies out."""

from __future__ import annotations

from typing import Any

import numpy as np

from winnow.errors import UserError
from winnow.scoring.protocols import Pass
from winnow.selection.budget import Budget
from winnow.selection.clusters import quotas, within_quotas
from winnow.selection.rule import QUOTA_FULL, Candidates, Picks
from winnow.selection.vectors import unlike


class Diverse(Budget):
    """The consistency paper's selection ("Priority on High-Quality", EMNLP 2025), each part of it a switch.

        classes      k-means on the records' vectors
        inter_class  class c gives q_c = budget * n_c / n records, by largest remainder: its best-ranked ones
        intra_class  walk each class in ranking order; skip i if cos(u_i, u_j) > limit for some j kept in that class
        top_up       what the quotas leave unfilled goes to the best-ranked records of any class that the walk keeps

    The paper states the vectors of the classes (mean of the final hidden states over all tokens), k-means, covering the
    classes, and a limit on the cosine of instructions' sentence embeddings u inside a class (its section 2.3). Ours:
    100 classes, quotas proportional to size, limit 0.9, the top-up. It obeys the limit as well; a budget that cannot be
    filled without near copies is left short.

    Ablations [paper, Table 4 and Table 3]: quality only, both switches off; diversity only, order=random; both; the
    wrong end of the ranking, order=bottom.

    instructions: the pass that gives u; None: u are the vectors of the classes (ours). limit: cosine, in (0, 1].
    Without intra_class nothing is compared and top_up has nothing to do.
    """

    name = "diverse"
    needs_vectors = True

    def __init__(
        self, inter_class: bool, intra_class: bool, limit: float, top_up: bool, instructions: Pass | None, **frame: Any
    ) -> None:
        super().__init__(**frame)
        self.inter_class, self.intra_class, self.top_up = inter_class, intra_class, top_up
        self.limit, self.instructions = checked_limit(limit), instructions

    @property
    def passes(self) -> dict[str, Pass]:
        own = self.instructions if self.intra_class else None
        return super().passes | ({} if own is None else {"instructions": own})

    def pick(self, candidates: Candidates, budget: int) -> Picks:
        # What a class keeps depends on that class alone, so each is walked once, to its end. The class gives the first
        # ones of what it keeps, under its quota or in the top-up, so every kept record before a given one is taken.
        kept, similar = self._walk(candidates)
        taken: list[int] = []
        quota = None
        if self.inter_class:
            quota = quotas(candidates.classes, budget)
            taken = within_quotas(candidates.classes, kept, quota)
        if self.top_up or not self.inter_class:
            already = set(taken)
            taken += [place for place in kept if place not in already][: budget - len(taken)]
        taken.sort()
        chosen = set(taken)
        similar = {place: twin for place, twin in similar.items() if twin in chosen}
        reach = candidates.n if len(taken) < budget else taken[-1] + 1  # nothing is beyond a budget that was not filled
        passed = set(range(reach)) - chosen - similar.keys()
        return Picks(taken, similar, dict.fromkeys(passed, QUOTA_FULL) if self.inter_class else {}, quota)

    def _walk(self, candidates: Candidates) -> tuple[list[int], dict[int, int]]:
        """Places that the intra-class limit lets through, best first, and the twin of each of the others."""
        if not self.intra_class:
            return list(range(candidates.n)), {}
        compared = candidates.vectors if candidates.compared is None else candidates.compared
        kept: list[int] = []
        similar: dict[int, int] = {}
        for label in np.unique(candidates.classes):
            members = np.flatnonzero(candidates.classes == label)
            own, twins = unlike(compared[members], self.limit)
            kept += members[own].tolist()
            similar |= {int(members[i]): int(members[j]) for i, j in twins.items()}
        return sorted(kept), similar


def checked_limit(limit: float) -> float:
    """The limit itself; UserError unless it lies in (0, 1]."""
    if not 0 < limit <= 1:
        raise UserError(f"selection.limit={limit} must be a cosine above 0 and at most 1; 0.9 leaves near copies out.")
    return limit
