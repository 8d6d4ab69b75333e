"""Do backbones in 8 and 4 bits rank records as fp32 does? IFD of the packaged backbone over embedded records.

python experiments/benchmarks/quantized.py [records]

Needs bitsandbytes. Seconds are those of one core's time, not of the clock, for both passes of IFD. The first records
also run alone: how far their scores move is what a batch changes.
"""

from __future__ import annotations

import sys
import tempfile
import time
from importlib.metadata import version

import numpy as np
from common import TRAINER, correlation, overlap, parts, save, scored

from winnow.config import build
from winnow.scoring.runner import PassRunner
from winnow.store.artifacts import Store

DTYPES = ("fp32", "bf16", "int8", "nf4")
ALONE = 20


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    records = build("data/embedded", sample=count).records
    method, scores = build("method/ifd"), {}
    numbers = {"records": len(records), "bitsandbytes": version("bitsandbytes")}
    for dtype in DTYPES:
        _, source, template = parts(f"backbone.dtype={dtype}")
        with tempfile.TemporaryDirectory() as store:
            runner = PassRunner(source, Store(f"{store}/batches"), TRAINER)
            weights = list(runner.backbone.model.parameters())
            started = time.process_time()
            scores[dtype] = scored(method, runner, records, template).score
            seconds = time.process_time() - started
            runner.store, runner.tokens_per_batch = Store(f"{store}/alone"), 1
            alone = scored(method, runner, records[:ALONE], template).score
        megabytes = sum(weight.numel() * weight.element_size() for weight in weights) / 1e6
        numbers[dtype] = {
            "seconds": round(seconds, 1),
            "weights_mb": round(megabytes),
            "largest_change_by_batch": round(float(np.nanmax(np.abs(alone - scores[dtype][:ALONE]))), 6),
        }
    valid = np.all([~np.isnan(one) for one in scores.values()], axis=0)
    top = {name: np.argsort(-one[valid])[: valid.sum() // 10].tolist() for name, one in scores.items()}
    for dtype in DTYPES:
        for other in ("fp32", "bf16"):
            one, two = scores[dtype][valid], scores[other][valid]
            numbers[dtype][f"against_{other}"] = {
                "spearman": correlation(one, two),
                "top_10_percent_in_common": overlap(top[dtype], top[other], 3),
                "median_difference": round(float(np.median(np.abs(one - two))), 4),
            }
    save("quantized", numbers | {"scored": int(valid.sum())})


if __name__ == "__main__":
    main()
