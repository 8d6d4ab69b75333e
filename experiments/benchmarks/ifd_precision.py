"""Does bf16 rank records as fp32 does? Spearman's rank correlation of IFD over a pool.

python experiments/benchmarks/ifd_precision.py alpaca_data.json [records]
"""

from __future__ import annotations

import sys
import tempfile

import numpy as np
from common import TRAINER, correlation, overlap, parts, save, scored

from winnow.config import build
from winnow.scoring.runner import PassRunner
from winnow.store.artifacts import Store


def main() -> None:
    pool, count = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 500
    records = build("data/file", source=pool, limit=count).records
    scores = {}
    for dtype in ("fp32", "bf16"):
        _, source, template = parts(f"backbone.dtype={dtype}")
        with tempfile.TemporaryDirectory() as store:
            runner = PassRunner(source, Store(store), TRAINER)
            scores[dtype] = scored(build("method/ifd"), runner, records, template).score
    valid = ~np.isnan(scores["fp32"])
    a, b = scores["fp32"][valid], scores["bf16"][valid]
    top = [np.argsort(-values)[: len(values) // 10].tolist() for values in (a, b)]
    numbers = {
        "records": len(records),
        "scored": int(valid.sum()),
        "spearman": correlation(a, b, 5),
        "largest_difference": round(float(np.abs(a - b).max()), 4),
        "median_difference": round(float(np.median(np.abs(a - b))), 5),
        "top_10_percent_in_common": overlap(*top, 3),
    }
    save("ifd_precision", numbers)


if __name__ == "__main__":
    main()
