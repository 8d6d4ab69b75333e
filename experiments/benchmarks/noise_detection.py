"""Does noise-injection consistency find planted defects, and does it choose what IFD chooses? On the embedded pool.

    python experiments/benchmarks/noise_detection.py [records]

All strengths come from one pass. AUC: a clean record ranks above a defective one (0.5 is chance). Each method takes
10% of the records that are valid for it, and IFD's filter leaves it fewer of them. Overlap: the records in both
subsets, as a share of the smaller one; by chance it would be about the larger one's share of the pool. In bf16, which
ranks as fp32 does (`noise_speed.py`).
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
from common import TRAINER, correlation, judged, overlap, parts, save

from winnow.config import build
from winnow.scoring.runner import PassRunner
from winnow.scoring.scores import Scores
from winnow.selection.rule import Selection
from winnow.store.artifacts import Store

BETAS = (1.0, 3.0, 5.0, 10.0, 15.0)


def summary(scores: Scores, chosen: Selection, found: dict, rival: Selection | None, records) -> dict:
    """The numbers of one ranking."""
    numbers = {
        "auc": round(found["overall"]["auc"], 4),
        "auc_by_kind": {kind: round(value["auc"], 4) for kind, value in found["by_kind"].items()},
        "median_score": round(float(np.nanmedian(scores.score)), 4),
        "spearman_with_answer_tokens": correlation(scores.score, scores.components["answer_tokens"]),
        "selected": len(chosen.chosen),
        "defects_among_selected": sum(records[i].raw["defect"] is not None for i in chosen.chosen),
    }
    if rival is not None:
        numbers["overlap_with_ifd"] = overlap(chosen.chosen, rival.chosen)
    return numbers


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else None
    _, source, template = parts("backbone.dtype=bf16")
    records = build("data/embedded", limit=count).records
    numbers: dict = {"records": len(records), "ratio": 0.1}
    with tempfile.TemporaryDirectory() as folder:
        runner = PassRunner(source, Store(Path(folder, "store")), TRAINER)
        scores, ifd, found = judged(build("method/ifd"), runner, records, template)
        numbers["ifd"] = summary(scores, ifd, found, None, records)
        for beta in BETAS:
            method = build("method/consistency", beta=beta, betas=BETAS)
            scores, chosen, found = judged(method, runner, records, template)
            numbers[f"noise_beta_{beta:g}"] = summary(scores, chosen, found, ifd, records)
        numbers["passes_computed"] = len(runner.computed)
    save("noise_detection", numbers)


if __name__ == "__main__":
    main()
