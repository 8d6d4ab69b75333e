"""Facility location: the subset in which every record of the pool finds one like itself."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from winnow.errors import UserError
from winnow.selection.budget import Budget
from winnow.selection.rule import Candidates, Picks

COMPARED = 32  # candidates whose likeness to the whole pool is held at a time


class FacilityLocation(Budget):
    """Maximises a submodular cover of the pool by stochastic greedy ("Lazier Than Lazy Greedy", AAAI 2015).

        f(S) = sum over records i of  max over j in S of max(0, cos(v_i, v_j))

    Each step draws n / budget * ln(1 / epsilon) records that are not taken and takes the one that raises f the most; in
    expectation f reaches 1 - 1/e - epsilon of the best possible. A draw of all that is left is plain greedy. The draws
    come from the seed; of equal gains the better-ranked record is taken, and quality plays no further part.

    Cost: n^2 * width * ln(1 / epsilon) multiplications whatever the budget, and no more than 32 rows of the n x n
    likeness at a time. apricot-select, the usual library, holds all of it: 21 GB for 52,000 records.

    epsilon: in (0, 1).
    """

    name = "facility_location"
    needs_vectors = True

    def __init__(self, epsilon: float, **frame: Any) -> None:
        super().__init__(**frame)
        if not 0 < epsilon < 1:
            raise UserError(f"selection.epsilon={epsilon} must lie between 0 and 1; smaller is closer to plain greedy.")
        self.epsilon = epsilon

    def pick(self, candidates: Candidates, budget: int) -> Picks:
        drawn = math.ceil(candidates.n / budget * math.log(1 / self.epsilon))
        return Picks(stochastic_greedy(candidates.vectors, budget, drawn, np.random.default_rng(self.seed)))


def stochastic_greedy(points: np.ndarray, count: int, drawn: int, generator: np.random.Generator) -> list[int]:
    """Rows in the order in which they are taken. points: (rows, width), of unit length. drawn: candidates per step."""
    left = np.arange(len(points))
    covered = np.zeros(len(points), np.float32)
    taken: list[int] = []
    while len(taken) < count:
        at = np.arange(len(left)) if drawn >= len(left) else generator.choice(len(left), drawn, replace=False)
        at = at[np.argsort(left[at])]
        best, gain, rise = 0, -1.0, covered
        for start in range(0, len(at), COMPARED):
            rises = points[left[at[start : start + COMPARED]]] @ points.T - covered  # (candidates, rows)
            np.maximum(rises, 0, out=rises)
            gains = rises.sum(axis=1)
            first = int(gains.argmax())
            if gains[first] > gain:
                best, gain, rise = start + first, float(gains[first]), rises[first].copy()
        covered = covered + rise
        taken.append(int(left[at[best]]))
        left[at[best]] = left[-1]
        left = left[:-1]
    return taken
