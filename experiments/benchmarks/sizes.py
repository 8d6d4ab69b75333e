"""Does a larger backbone rank records as the small one does? Scores of two backbones over the same records.

    python experiments/benchmarks/sizes.py POOL BACKBONE [records]

POOL: a file of records, of which so many are drawn. BACKBONE: a folder or a hub name, beside the packaged one; both in
bf16, under the template `plain`, which every model reads alike. Intervals: 95%, bootstrap over records (percentile of
2,000 draws). Length is the answer's characters, the same for both.
"""

from __future__ import annotations

import sys
import tempfile
import time

import numpy as np
from common import TRAINER, overlap, parts, save, scored
from scipy.stats import bootstrap, spearmanr

from winnow.config import build
from winnow.scoring.runner import PassRunner
from winnow.store.artifacts import Store

METHODS = ("ifd", "perplexity", "entropy")


def rank_correlation(one: np.ndarray, other: np.ndarray) -> list[float]:
    """[Spearman, low, high]."""
    draws = bootstrap(
        (one, other),
        lambda x, y: spearmanr(x, y).statistic,
        paired=True,
        vectorized=False,
        n_resamples=2000,
        method="percentile",
        rng=np.random.default_rng(0),
    )
    interval = draws.confidence_interval
    return [round(float(value), 3) for value in (spearmanr(one, other).statistic, interval.low, interval.high)]


def main() -> None:
    pool, large = sys.argv[1:3]
    count = int(sys.argv[3]) if len(sys.argv) > 3 else 500
    records = build("data/file", source=pool, sample=count).records
    numbers: dict = {"records": len(records)}
    scores: dict[str, dict[str, np.ndarray]] = {}
    for name, chosen in (("small", []), ("large", ["backbone=hub", f"backbone.name={large}"])):
        _, source, template = parts("backbone.dtype=bf16", "template=plain", *chosen)
        with tempfile.TemporaryDirectory() as store:
            runner = PassRunner(source, Store(store), TRAINER)
            weights = sum(weight.numel() for weight in runner.backbone.model.parameters())
            started = time.process_time()
            for method in (build(f"method/{one}") for one in METHODS):
                scores.setdefault(name, {})[method.name] = scored(method, runner, records, template).score
            numbers[name] = {"weights": weights, "cpu_seconds": round(time.process_time() - started, 1)}
    length = np.array([len(record.output) for record in records], float)
    for method, small in scores["small"].items():
        valid = ~np.isnan(small) & ~np.isnan(scores["large"][method])
        one, two = small[valid], scores["large"][method][valid]
        top = [np.argsort(-values)[: len(values) // 10].tolist() for values in (one, two)]
        numbers[method] = {
            "records": int(valid.sum()),
            "small_against_large": rank_correlation(one, two),
            "top_10_percent_in_common": overlap(*top, 3),
            "small_against_length": rank_correlation(one, length[valid]),
            "large_against_length": rank_correlation(two, length[valid]),
        }
    save("sizes", numbers)


if __name__ == "__main__":
    main()
