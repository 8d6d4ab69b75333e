"""Greedy k-center: each next record is the one farthest from all those taken."""

from __future__ import annotations

import numpy as np

from winnow.selection.budget import Budget
from winnow.selection.rule import Candidates, Picks


class KCenter(Budget):
    """Farthest-first traversal (Gonzalez 1985), Sener and Savarese's choice of a core set (ICLR 2018, 1708.00489).

        s_1 = the best-ranked record;  s_(t+1) = argmax over i of  min over j <= t of |v_i - v_(s_j)|

    The largest distance of any record from the subset is at most twice the smallest that is possible. Vectors have
    unit length, |u - v|^2 = 2 - 2 cos(u, v). Quality decides the first record and ties only; filters can bound it.
    """

    name = "k_center"
    needs_vectors = True

    def pick(self, candidates: Candidates, budget: int) -> Picks:
        return Picks(farthest_first(candidates.vectors, budget))


def farthest_first(points: np.ndarray, count: int) -> list[int]:
    """Rows in the order in which the traversal takes them, row 0 first; of equal distances the earlier row.

    points: (rows, width), any length. One product of all points with one point per step: count * rows * width
    multiplications, rows floats of memory.
    """
    squared = np.einsum("ij,ij->i", points, points)
    nearest = np.full(len(points), np.inf, points.dtype)
    taken = [0]
    while len(taken) < count:
        last = taken[-1]
        distance = squared + squared[last] - 2 * (points @ points[last])
        # Rounding must not tell copies of a taken point apart.
        distance[distance < 1e-6 * squared[last]] = 0
        np.minimum(nearest, distance, out=nearest)
        nearest[last] = -1
        taken.append(int(nearest.argmax()))
    return taken
