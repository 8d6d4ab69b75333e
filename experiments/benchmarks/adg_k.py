"""ADG at K = 3, 5, 7 and 10 on the embedded pool: how the ranking settles, what it finds, and what it shares with IFD.

    python experiments/benchmarks/adg_k.py [records] [max_new_tokens]

All K come from one pass of ten answers, whose first K are those that a pass of K draws. AUC: a clean record ranks above
a defective one (0.5 is chance). Each method takes 10% of the records that are valid for it. Overlap: the records in
both subsets, as a share of the smaller one; by chance it would be about the larger one's share of the pool. `disjoint`:
the rank correlation of two scores of one pool from answers 1 to 5 and 6 to 10, how repeatable K = 5 is. In bf16.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
from common import TRAINER, correlation, judged, overlap, parts, save

from winnow.config import build
from winnow.scoring.methods.adg import gram_geometry
from winnow.scoring.runner import PassRunner
from winnow.scoring.scores import Scores
from winnow.selection.rule import Selection
from winnow.store.artifacts import Store

SIZES = (3, 5, 7, 10)


def summary(scores: Scores, chosen: Selection, found: dict) -> dict:
    """The numbers of one ranking."""
    return {
        "scored": int((~np.isnan(scores.score)).sum()),
        "auc": round(found["overall"]["auc"], 4),
        "auc_by_kind": {kind: round(value["auc"], 4) for kind, value in found["by_kind"].items()},
        "median_score": round(float(np.nanmedian(scores.score)), 4),
        "selected": len(chosen.chosen),
    }


def disjoint_halves(table) -> float | None:
    """Rank correlation of the scores from answers 1 to 5 and 6 to 10, over records all of whose answers are usable."""
    whole = (table.matrix("usable", 10) > 0).all(1)
    if whole.sum() < 3:
        return None
    gram = table.matrix("gram", 100)[whole].reshape(-1, 10, 10)
    halves = [gram_geometry(gram[:, part, part]) for part in (slice(0, 5), slice(5, 10))]
    first, second = (0.6 * dispersion + 0.4 * anisotropy for dispersion, anisotropy in halves)
    return correlation(first, second)


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else None
    limit = int(sys.argv[2]) if len(sys.argv) > 2 else 256
    _, source, template = parts("backbone.dtype=bf16")
    records = build("data/embedded", limit=count).records
    numbers: dict = {"records": len(records), "max_new_tokens": limit, "ratio": 0.1}
    methods = {k: build("method/adg", answers=k, sampled=max(SIZES), max_new_tokens=limit) for k in SIZES}
    with tempfile.TemporaryDirectory() as folder:
        runner = PassRunner(source, Store(Path(folder, "store")), TRAINER)
        ifd_scores, ifd, found = judged(build("method/ifd"), runner, records, template)
        numbers["ifd"] = summary(ifd_scores, ifd, found)
        results = {k: judged(method, runner, records, template) for k, method in methods.items()}
        most = results[max(SIZES)]
        for k, (scores, chosen, found) in results.items():
            parts_of = {name: scores.components[name] for name in ("dispersion", "anisotropy")}
            numbers[f"adg_k_{k}"] = summary(scores, chosen, found) | {
                "median_dispersion": round(float(np.nanmedian(parts_of["dispersion"])), 4),
                "median_anisotropy": round(float(np.nanmedian(parts_of["anisotropy"])), 4),
                "spearman_of_score_with_dispersion": correlation(scores.score, parts_of["dispersion"]),
                "spearman_of_score_with_anisotropy": correlation(scores.score, parts_of["anisotropy"]),
                "spearman_with_k_10": correlation(scores.score, most[0].score),
                "overlap_with_k_10": overlap(chosen.chosen, most[1].chosen),
                "overlap_with_ifd": overlap(chosen.chosen, ifd.chosen),
                "spearman_with_ifd": correlation(scores.score, ifd_scores.score),
                "spearman_with_sampled_tokens": correlation(scores.score, scores.components["sampled_tokens"]),
            }
        sampled = runner.compute(methods[max(SIZES)].passes["answers"], records, template)
        numbers["spearman_of_disjoint_fives"] = disjoint_halves(sampled)
        numbers["passes_computed"] = len(runner.computed)
    save("adg_k", numbers)


if __name__ == "__main__":
    main()
