"""What the methods cost, whether they find planted defects, and how far they agree: from finished runs.

    python experiments/benchmarks/rivals.py FOLDER ...

FOLDER: runs of stages=[score,select] that share a store, a method once for each pool. Price: forwards of every model
for one record, from the ledgers of the store, whatever run computed them. AUC: a clean record ranks above a defective
one (0.5 is chance), on a pool that labels its defects. Agreement: Spearman correlation of the scores, turned so that
high is wanted, over the records that both methods score.
"""

from __future__ import annotations

import sys
from pathlib import Path

from common import save

from winnow.compare.runs import read_runs
from winnow.compare.scorecard import rho
from winnow.pages.files import read_json
from winnow.scoring.price import price


def about(run) -> dict:
    """Of one run: records, scored ones, forwards and tokens a record, settings that make it cheap, AUC of defects."""
    card = read_json(run.folder / "run_card.json")
    records, paid = card["data"]["n_records"], price(card)
    file = run.folder / "detection.json"
    found = read_json(file) if file.is_file() else None
    return {
        "records": records,
        "scored": len(run.scores),
        "forwards": 0 if paid is None else round(paid["forwards"] / records, 2),
        "tokens": 0 if paid is None else round(paid["tokens"] / records, 1),
        "draws": card["config"]["method"].get("draws"),
        "defect_auc": None if found is None else round(found["overall"]["auc"], 3),
        "auc_by_kind": {} if found is None else {kind: round(one["auc"], 2) for kind, one in found["by_kind"].items()},
    }


def main(folders: list[str]) -> None:
    pools: dict[str, dict] = {}
    for run in read_runs(*map(Path, folders)):
        pools.setdefault(run.pool, {})[run.method] = run
    numbers = {}
    for pool, runs in pools.items():
        agreement = {
            one: {
                two: round(value, 2) for two in runs if (value := rho(runs[one].scores, runs[two].scores)) is not None
            }
            for one in runs
        }
        numbers[pool] = {"methods": {name: about(run) for name, run in runs.items()}, "agreement": agreement}
    save("rivals", {"pools": numbers})


if __name__ == "__main__":
    main(sys.argv[1:])
