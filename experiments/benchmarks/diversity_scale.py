"""Time and memory of every selection rule on synthetic vectors of the packaged backbone's width.

    python experiments/benchmarks/diversity_scale.py                 # 5,000, 20,000 and 52,000 records
    python experiments/benchmarks/diversity_scale.py --sizes 5000

Each rule runs in a process of its own. Extra memory is the process's peak resident memory while it runs, less what is
resident once the vectors are there; both from /proc, so Linux only. The second peak includes the report's numbers
(diversity.json). Vectors: 150 groups of unequal size around random centres, a tenth of the records near copies of
another one.
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np
import pyarrow as pa
from common import apart, reset_peak, resident_mib, save
from hydra.utils import get_class

from winnow.selection.diversity_report import diversity
from winnow.selection.vectors import directions

WIDTH = 576
RULES = {
    "consistency": "diverse.Diverse",
    "deita": "deita.Deita",
    "stratified": "stratified.Stratified",
    "k_center": "k_center.KCenter",
    "facility_location": "facility_location.FacilityLocation",
}


def synthetic(n: int) -> np.ndarray:
    """(n, 576) float32. Filled block by block, so that making it needs no second copy."""
    generator = np.random.default_rng(0)
    centres = generator.normal(size=(150, WIDTH)).astype(np.float32)
    group = generator.choice(150, size=n, p=generator.dirichlet(np.full(150, 0.7)))
    vectors = np.empty((n, WIDTH), np.float32)
    for start in range(0, n, 1000):
        own = group[start : start + 1000]
        vectors[start : start + 1000] = centres[own] + generator.standard_normal((len(own), WIDTH), np.float32)
    copies = generator.permutation(n)[: n // 10]
    vectors[copies] = vectors[(copies * 7 + 1) % n] + 0.2 * generator.standard_normal((len(copies), WIDTH), np.float32)
    return vectors


def measure(rule: str, n: int, ratio: float) -> dict:
    """One rule on n records, in this process."""
    vectors = synthetic(n)
    scores = np.random.default_rng(1).permutation(n) / n
    ids = [f"{i:016x}" for i in range(n)]
    table = pa.table({"id": ids, "row": range(n), "score": scores, "flag": pa.array([None] * n, pa.string())})
    small = get_class(f"winnow.selection.{RULES[rule]}")(count=2, classes=2)
    small.select(table.slice(0, 9), True, vectors=vectors[:9])  # libraries and their thread pools are no part of it
    reset_peak()
    before, start = resident_mib("VmRSS"), time.perf_counter()
    chooser = get_class(f"winnow.selection.{RULES[rule]}")(ratio=ratio)
    chosen = chooser.select(table, True, vectors=vectors)
    seconds, extra = time.perf_counter() - start, resident_mib("VmHWM") - before
    start = time.perf_counter()
    told = diversity(directions(vectors, chooser.centre), chosen, ids)
    return {
        "rule": rule,
        "records": n,
        "selected": len(chosen.chosen),
        "seconds": round(seconds, 2),
        "extra_mib": round(extra),
        "vectors_mib": round(vectors.nbytes / 2**20),
        "report_seconds": round(time.perf_counter() - start, 2),
        "extra_mib_with_report": round(resident_mib("VmHWM") - before),
        "reasons": chosen.manifest()["reasons"],
        "classes_covered": told["classes"]["selected"],
        "nearest_cosine_median": round(told["neighbours"]["subset_median"], 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[5000, 20000, 52000])
    parser.add_argument("--rules", nargs="+", choices=RULES, default=list(RULES))
    parser.add_argument("--ratio", type=float, default=0.1)
    parser.add_argument("--name", default="diversity_scale", help="results/<name>.json")
    parser.add_argument("--one", action="store_true", help="measure the one rule and size given, in this process")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.rules[0], options.sizes[0], options.ratio)))
        return
    rows = []
    for n in options.sizes:
        for rule in options.rules:
            row = apart("--one", "--rules", rule, "--sizes", n, "--ratio", options.ratio)
            print(f"{rule:<18} {n:>6} records  {row['seconds']:>8} s  {row['extra_mib']:>5} MiB", flush=True)
            rows.append(row)
    save(options.name, {"width": WIDTH, "ratio": options.ratio, "classes": 100, "rows": rows})


if __name__ == "__main__":
    main()
