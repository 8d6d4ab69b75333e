"""A page that compares all runs below a folder: leaderboard, budget, overlap of subsets, agreement of scores, cost.

It reads run folders only (`run_card.json`, `results.json`, `selection.json`, `scores.parquet`), opens offline, and
has no scripts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from winnow.compare import plots
from winnow.compare.runs import STAGES, ComparedRun, read_runs
from winnow.compare.verdicts import marks_of_runs
from winnow.errors import UserError
from winnow.pages.files import render
from winnow.pages.plots import lower_is_better
from winnow.pages.svg import rank_correlation
from winnow.store.files import write_atomically


def write_dashboard(folder: Path, to: str | None = None) -> Path:
    """Write the page of all finished runs below `folder`, by default to `<folder>/dashboard.html`; returns its path.

    Raises UserError where there is no run."""
    runs = read_runs(folder)
    if not runs:
        raise UserError(f"{folder} holds no finished run (no run_card.json); name the folder of a sweep.")
    path = Path(to) if to else folder / "dashboard.html"
    write_atomically(path, render("compare/dashboard.html.j2", content(runs, folder)))
    return path


def content(runs: Sequence[ComparedRun], folder: Path) -> dict[str, Any]:
    """The values of the template."""
    metrics = list(dict.fromkeys(metric for run in runs for metric in run.headline))
    low = {
        metric: lower_is_better(metric, next((run.metrics[metric] for run in runs if metric in run.metrics), None))
        for metric in metrics
    }
    first = metrics[0] if metrics else None
    ranked = sorted(runs, key=lambda run: _place(run, first, low))
    selecting = [run for run in ranked if run.subset][: plots.MOST]
    scoring = _distinct_scores(ranked)[: plots.MOST]
    marks, against, why = marks_of_runs(runs)
    return {
        "folder": folder.name,
        "n_runs": len(runs),
        "metrics": metrics,
        "low": low,
        "marks": {(run.name, metric): marks.get((str(run.folder), metric)) for run in runs for metric in metrics},
        "against": against,
        "no_verdicts": why,
        "best": {metric: _best(runs, metric, low[metric]) for metric in metrics},
        "runs": ranked,
        "total": {run.name: sum(run.seconds.values()) for run in runs},
        "n_seeds": len({run.seed for run in runs}),
        "ratio_plots": [Markup(plots.against_ratio(runs, metric, low[metric])) for metric in metrics],
        "overlap": Markup(
            plots.matrix("Overlap of the subsets (Jaccard)", [run.name for run in selecting], jaccard(selecting))
        ),
        "agreement": Markup(
            plots.matrix("Agreement of the scores (Spearman)", [run.name for run in scoring], spearman(scoring))
        ),
        "cost": Markup(plots.cost_against_gain(runs, first, low.get(first, False))) if first else None,
        "stages": Markup(plots.seconds_per_stage(ranked, STAGES)),
    }


def jaccard(runs: Sequence[ComparedRun]) -> np.ndarray:
    """(runs, runs): |A and B| / |A or B| of the subsets' record ids; NaN where the pools differ."""
    values = np.full((len(runs), len(runs)), np.nan)
    for i, one in enumerate(runs):
        for j, other in enumerate(runs):
            if one.fingerprint == other.fingerprint:
                values[i, j] = len(one.subset & other.subset) / len(one.subset | other.subset)
    return values


def spearman(runs: Sequence[ComparedRun]) -> np.ndarray:
    """(runs, runs): Spearman's rank correlation over the records that both runs score, NaN for fewer than 3 common
    records or constant scores. High is good in every run: scores of a method that prefers low ones are negated."""
    values = np.full((len(runs), len(runs)), np.nan)
    for i, one in enumerate(runs):
        for j, other in enumerate(runs[: i + 1]):
            common = sorted(one.scores.keys() & other.scores.keys())
            value = rank_correlation(*([run.scores[key] for key in common] for run in (one, other)))
            values[i, j] = values[j, i] = np.nan if value is None else value
    return values


def _distinct_scores(runs: Sequence[ComparedRun]) -> list[ComparedRun]:
    """One run of each ranking: all ratios of a method have the same scores. `full` ranks nothing."""
    distinct: dict[tuple, ComparedRun] = {}
    for run in runs:
        if len(set(run.scores.values())) > 1:
            distinct.setdefault((run.method, run.fingerprint, tuple(run.scores.values())), run)
    return list(distinct.values())


def _place(run: ComparedRun, metric: str | None, low: Mapping[str, bool]) -> tuple:
    if metric is None or metric not in run.metrics:
        return (1, 0.0, run.name)
    value = run.metrics[metric]["value"]
    return (0, value if low[metric] else -value, run.name)


def _best(runs: Sequence[ComparedRun], metric: str, low: bool) -> float | None:
    values = [run.metrics[metric]["value"] for run in runs if metric in run.metrics]
    return (min(values) if low else max(values)) if values else None
