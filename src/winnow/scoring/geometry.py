"""The geometry of a record's answers: how far they spread, and in how many directions. Pure functions on arrays."""

from __future__ import annotations

import numpy as np
from scipy.stats import rankdata

NO_SPREAD = 1e-12  # a trace below it counts as none [code]


def gram_geometry(gram: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Dispersion D and anisotropy I of each record's K answer vectors, from their products.

        v_k <- v_k / |v_k|;   S = V V^T;   Sc = H S H,  H = Id - 1 1^T / K
        l_1 >= l_2 >= ... = eigenvalues of Sc, clipped at 0;   t = sum of them
        D = t / K        I = 1 - l_1 / t        both 0 where t < 1e-12

    Source: "Instruction Data Selection via Answer Divergence" (ACL 2026, arXiv 2604.10448) and its public code.
    t = K - |sum of v_k|^2 / K, so D is at most (K - 1) / K for vectors whose cosines do not sum below 0, as those of
    answers, and at most 1 for any. Sc has K - 1 eigenvalues that can be above 0, so I is at most 1 - 1 / (K - 1), and 0
    if all answers lie on one line.

    gram: (records, K, K), gram[r, i, j] = v_i . v_j, K >= 2, the diagonal above 0. Returns two (records,) arrays in
    fp64. Neither depends on the order of the answers, on a rotation of the space or on the lengths of the vectors.
    """
    g = np.asarray(gram, dtype=np.float64)
    count = g.shape[-1]
    length = np.sqrt(np.einsum("rkk->rk", g))
    cosines = g / (length[:, :, None] * length[:, None, :])
    centre = np.eye(count) - 1 / count
    values = np.clip(np.linalg.eigvalsh(centre @ cosines @ centre), 0, None)
    trace = values.sum(-1)
    spread = trace >= NO_SPREAD
    share = np.divide(values[:, -1], trace, out=np.ones_like(trace), where=spread)
    return np.where(spread, trace / count, 0.0), 1 - share


def normalised(values: np.ndarray, how: str) -> np.ndarray:
    """Values on a common scale over the pool (ours): NaN stays NaN and counts for nothing.

    none     as they are [code]
    rank     rank / (n - 1), from 0 for the smallest to 1 for the largest; equal values share their mean rank
    zscore   (value - mean) / standard deviation of the population; 0 where all are equal
    """
    own = values[~np.isnan(values)]
    if how == "none" or not len(own):
        return values
    if how == "rank":
        return (rankdata(values, nan_policy="omit") - 1) / max(len(own) - 1, 1)
    return (values - own.mean()) / (own.std() or 1.0)
