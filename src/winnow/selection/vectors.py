"""Vectors of records: rows that can be compared, and the walk that leaves near copies out. Never records x records."""

from __future__ import annotations

import numpy as np

WALKED = 512  # rows that the walk looks at together
COMPARED = 4096  # rows that they are compared with at a time: 512 x 4096 cosines are 8 MiB


def present(vectors: np.ndarray) -> np.ndarray:
    """(records,) booleans: which rows are vectors."""
    return ~np.isnan(vectors[:, 0]) if vectors.shape[1] else np.zeros(len(vectors), bool)


def directions(vectors: np.ndarray, centre: bool) -> np.ndarray:
    """Rows of unit length, as new float32, so that a product of two rows is their cosine.

        u_i = (v_i - m) / |v_i - m|,   m = mean of all v if centre, else 0

    vectors: (records, width); NaN rows stay NaN, a zero row stays zero and is like no other.
    """
    rows = vectors.astype(np.float32)
    if centre:
        there = present(vectors)
        rows -= np.mean(vectors, axis=0, dtype=np.float64, where=there[:, None]).astype(np.float32)
    lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows))
    rows /= np.maximum(lengths, np.finfo(np.float32).tiny)[:, None]
    return rows


def unlike(vectors: np.ndarray, limit: float, wanted: int | None = None) -> tuple[list[int], dict[int, int]]:
    """Walk the rows in order and keep each whose cosine with every kept one is at most `limit`.

        keep i  iff  max over kept j < i of v_i . v_j <= limit

    vectors: (rows, width), of unit length, best row first. wanted: stop once so many are kept. Returns the kept rows in
    order, and for each row that was passed over the kept row that it is most like.

    Blocks of rows meet the kept ones in matrix products; only inside a block is the walk taken row by row. Memory: the
    kept vectors once more and 8 MiB.
    """
    rows, width = vectors.shape
    wanted = rows if wanted is None else min(wanted, rows)
    basis = np.empty((wanted, width), np.float32)  # pages of it are used as rows are kept
    kept: list[int] = []
    similar: dict[int, int] = {}
    for start in range(0, rows, WALKED):
        if len(kept) == wanted:
            break
        block = vectors[start : start + WALKED]
        nearest, twin = _nearest(block, basis[: len(kept)], kept)
        inside = block @ block.T
        for i in range(len(block)):
            if nearest[i] > limit:
                similar[start + i] = int(twin[i])
                continue
            basis[len(kept)] = block[i]
            kept.append(start + i)
            if len(kept) == wanted:
                break
            closer = inside[i] > nearest
            nearest[closer], twin[closer] = inside[i][closer], start + i
    return kept, similar


def _nearest(block: np.ndarray, basis: np.ndarray, names: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """For each row of the block the largest cosine with a row of the basis, and that row's name."""
    nearest = np.full(len(block), -np.inf, np.float32)
    twin = np.full(len(block), -1, np.int64)
    labels = np.array(names, np.int64)
    for start in range(0, len(basis), COMPARED):
        cosines = block @ basis[start : start + COMPARED].T
        best = cosines.argmax(axis=1)
        value = cosines[np.arange(len(block)), best]
        closer = value > nearest
        nearest[closer], twin[closer] = value[closer], labels[start + best[closer]]
    return nearest, twin


def nearest_cosines(rows: np.ndarray, pool: np.ndarray, places: np.ndarray) -> np.ndarray:
    """(rows,) largest cosine of each row with another row of the pool. places: where each row stands in the pool.

    rows: (rows, width) and pool: (pool, width), of unit length; the pool has at least 2 rows.
    """
    found = np.full(len(rows), -np.inf, np.float32)
    for first in range(0, len(rows), WALKED):
        own = places[first : first + WALKED]
        for start in range(0, len(pool), COMPARED):
            cosines = rows[first : first + WALKED] @ pool[start : start + COMPARED].T
            itself = np.flatnonzero((own >= start) & (own < start + COMPARED))
            cosines[itself, own[itself] - start] = -np.inf
            part = found[first : first + WALKED]
            np.maximum(part, cosines.max(axis=1), out=part)
    return found
