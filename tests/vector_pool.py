"""Score tables with vectors, for the tests of selection."""

from __future__ import annotations

import numpy as np
import pyarrow as pa


def table(scores, flags=None, **columns) -> pa.Table:
    """A score table whose record i has the id r<i>, in three digits. columns: further ones, or others for these."""
    n = len(scores)
    return pa.table(
        {
            "id": [f"r{i:03d}" for i in range(n)],
            "row": list(range(n)),
            "score": pa.array(scores, pa.float64()),
            "flag": pa.array(flags or [None] * n, pa.string()),
            **columns,
        }
    )


def clustered(n: int, groups: int = 8, width: int = 16, spread: float = 0.3, seed: int = 0):
    """(score table of n distinct scores, (n, width) vectors around `groups` points)."""
    generator = np.random.default_rng(seed)
    centres = generator.normal(size=(groups, width))
    vectors = centres[generator.integers(groups, size=n)] + spread * generator.normal(size=(n, width))
    return table(generator.permutation(n) / n), vectors.astype(np.float32)


def on_circle(*degrees: float) -> np.ndarray:
    """Unit vectors at these angles: the cosine of two is that of the angle between them."""
    angles = np.deg2rad(np.array(degrees, dtype=np.float64))
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
