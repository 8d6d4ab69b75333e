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
from common import TRAINER, parts, save
from scipy.stats import spearmanr

from winnow.config import build
from winnow.scoring.runner import PassRunner
from winnow.scoring.scores import Scores
from winnow.selection.budget import Selection
from winnow.selection.detection import detection
from winnow.store.artifacts import Store

BETAS = (1.0, 3.0, 5.0, 10.0, 15.0)
RATIO = 0.1


def judged(method, runner, records, template) -> tuple[Scores, Selection, dict]:
    """Scores of a method, its best tenth, and how well it finds the defects."""
    tables = {name: runner.compute(pass_, records, template) for name, pass_ in method.passes.items()}
    scores = method.score(tables, records)
    table = scores.table(records, {"method": method.name, "settings": {}})
    chosen = build("selection/top", ratio=RATIO).select(table, scores.higher_is_better, method.filters)
    dropped = {d["id"] for d in chosen.decisions if d["reason"] not in ("selected", "beyond_budget")}
    labels = {record.id: record.raw["defect"] for record in records}
    rows = table.select(["id", "score"]).to_pylist()
    return scores, chosen, detection(rows, labels, scores.higher_is_better, dropped)


def summary(scores: Scores, chosen: Selection, found: dict, rival: Selection | None, records) -> dict:
    """The numbers of one ranking."""
    valid = np.array([reason is None for reason in scores.flag])
    tokens = scores.components["answer_tokens"]
    numbers = {
        "auc": round(found["overall"]["auc"], 4),
        "auc_by_kind": {kind: round(value["auc"], 4) for kind, value in found["by_kind"].items()},
        "median_score": round(float(np.median(scores.score[valid])), 4),
        "spearman_with_answer_tokens": round(float(spearmanr(scores.score[valid], tokens[valid]).statistic), 4),
        "selected": len(chosen.chosen),
        "defects_among_selected": sum(records[i].raw["defect"] is not None for i in chosen.chosen),
    }
    if rival is not None:
        numbers["overlap_with_ifd"] = round(_overlap(chosen.chosen, rival.chosen), 4)
    return numbers


def _overlap(a: list[int], b: list[int]) -> float:
    return len(set(a) & set(b)) / min(len(a), len(b))


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else None
    _, source, template = parts("backbone.dtype=bf16")
    records = build("data/embedded", limit=count).records
    numbers: dict = {"records": len(records), "ratio": RATIO}
    with tempfile.TemporaryDirectory() as folder:
        runner = PassRunner(source, Store(Path(folder, "store")), TRAINER)
        scores, ifd, found = judged(build("method/ifd"), runner, records, template)
        numbers["ifd"] = summary(scores, ifd, found, None, records)
        for beta in BETAS:
            method = build("method/consistency", beta=beta, betas=BETAS)
            scores, chosen, found = judged(method, runner, records, template)
            numbers[f"noise_beta_{beta:g}"] = summary(scores, chosen, found, ifd, records)
        numbers["passes_computed"] = len(runner.computed)
    command = "python experiments/benchmarks/noise_detection.py" + (f" {count}" if count else "")
    save("noise_detection", command, numbers)


if __name__ == "__main__":
    main()
