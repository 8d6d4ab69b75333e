"""ADG's bins: how many hold records of one template form only, that is all with an input or all without one.

    python experiments/benchmarks/bin_forms.py alpaca_data.json FOLDER ...

FOLDER: runs of `selection=adg` on that pool, each with another `selection.embedding.region`. A bin of one form says
that k-means grouped prompts by their template. By chance is the share if the forms were shuffled over the same bins.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
from common import save

from winnow.compare.runs import read_runs
from winnow.pages.files import read_json

SHUFFLES = 100  # of the forms, for the share by chance


def of_one_form(bins: np.ndarray, with_input: np.ndarray) -> float:
    """Share of the bins of two records and more whose records all have an input, or all have none."""
    size = np.bincount(bins)
    inputs = np.bincount(bins, weights=with_input, minlength=len(size))
    counted = size > 1
    return float(np.mean((inputs[counted] == 0) | (inputs[counted] == size[counted])))


def main(pool: str, *folders: str) -> None:
    rows = json.loads(Path(pool).read_text(encoding="utf-8"))
    numbers: dict[str, dict] = defaultdict(dict)
    for run in read_runs(*map(Path, folders)):
        decisions = read_json(run.folder / "selection.json")["decisions"]
        bins = np.array([one["class"] for one in decisions if one["class"] is not None])
        forms = np.array([rows[one["row"]]["input"] != "" for one in decisions if one["class"] is not None])
        draw = np.random.default_rng(0)
        region = read_json(run.folder / "run_card.json")["config"]["selection"]["embedding"]["region"]
        numbers[region] = {
            "records": len(forms),
            "bins": int(np.sum(np.bincount(bins) > 1)),
            "with_input": round(float(forms.mean()), 3),
            "of_one_form": round(of_one_form(bins, forms), 3),
            "by_chance": round(
                float(np.mean([of_one_form(bins, draw.permutation(forms)) for _ in range(SHUFFLES)])), 3
            ),
        }
    save("bin_forms", {"regions": numbers})


if __name__ == "__main__":
    main(*sys.argv[1:])
