"""Does bf16 rank records as fp32 does? Spearman's rank correlation of IFD over a pool.

python experiments/benchmarks/ifd_precision.py alpaca_data.json [records]
"""

from __future__ import annotations

import sys
import tempfile

import numpy as np
from common import TRAINER, parts, save
from scipy.stats import spearmanr

from winnow.config import build
from winnow.scoring.runner import PassRunner
from winnow.store.artifacts import Store


def main() -> None:
    pool, count = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 500
    records = build("data/file", source=pool, limit=count).records
    scores = {}
    for dtype in ("fp32", "bf16"):
        _, source, template = parts(f"backbone.dtype={dtype}")
        method = build("method/ifd")
        with tempfile.TemporaryDirectory() as store:
            runner = PassRunner(source, Store(store), TRAINER)
            tables = {name: runner.compute(pass_, records, template) for name, pass_ in method.passes.items()}
            scores[dtype] = method.score(tables, records).score
    valid = ~np.isnan(scores["fp32"])
    a, b = scores["fp32"][valid], scores["bf16"][valid]
    top = {name: set(np.argsort(-values)[: len(values) // 10].tolist()) for name, values in (("a", a), ("b", b))}
    numbers = {
        "records": count,
        "scored": int(valid.sum()),
        "spearman": round(float(spearmanr(a, b).statistic), 5),
        "largest_difference": round(float(np.abs(a - b).max()), 4),
        "median_difference": round(float(np.median(np.abs(a - b))), 5),
        "top_10_percent_in_common": round(len(top["a"] & top["b"]) / len(top["a"]), 3),
    }
    save("ifd_precision", "python experiments/benchmarks/ifd_precision.py alpaca_data.json " + str(count), numbers)


if __name__ == "__main__":
    main()
