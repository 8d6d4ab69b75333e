"""What came out of a sweep, on the screen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from winnow.compare.dashboard import write_dashboard
from winnow.compare.runs import ComparedRun, read_runs
from winnow.compare.verdicts import BASE, verdicts
from winnow.console import JUDGED
from winnow.pages.card import show_number
from winnow.store.files import read_json
from winnow.sweeps.summary import CARD, table_name

COMPARISONS_SHOWN = 3


def sweep_lines(folder: Path, jobs: Sequence[Mapping[str, Any]], table: Mapping[str, Any] | None) -> list[str]:
    """What came out of a sweep: its settings, best first, with the difference to a reference and its paired interval;
    the best trial of a search; where everything is, and what to do next. Writes the dashboard.

    jobs: the notes of those that began. table: of the experiment. Raises UserError where runs cannot be compared.
    """
    runs = read_runs(folder)
    lines = [*trial_lines(folder, jobs), *standing_lines(runs), f"  folder     {folder}"]
    if runs:
        lines.append(f"  dashboard  {write_dashboard(folder)}")
    if any(run.metrics for run in runs):
        lines.append(f"  next       winnow compare {folder}")
    if table is not None and runs:
        lines.append(f"             winnow table {table_name(table)} runs={folder}")
    return ["", *lines]


def standing_lines(runs: Sequence[ComparedRun]) -> list[str]:
    """The settings of the runs, best first, for the metrics that lead; the runs as they are where none is evaluated."""
    evaluated = [run for run in runs if run.metrics]
    if not evaluated:
        return [f"  {run.name}: {run.label}, {len(run.subset):,} records selected" for run in runs]
    comparisons = verdicts(evaluated)["comparisons"] or verdicts(evaluated, BASE)["comparisons"]
    lines = []
    for one in comparisons[:COMPARISONS_SHOWN]:
        good, seeds = "high" if one["higher_is_better"] else "low", max(len(row["seeds"]) for row in one["standings"])
        mean = f", mean of {seeds} seeds" if seeds > 1 else ""
        lines.append(f"{one['metric']} ({good} is good{mean}) on {one['pool']}, best first:")
        width = max(len(row["method"]) for row in one["standings"])
        for row in one["standings"]:
            line = f"  {row['method']:<{width}}  {row['value']:.4f}"
            if row["against"] is not None:
                line += f"  {row['difference']:+.4f} [{row['low']:+.4f}, {row['high']:+.4f}] against {row['against']}: "
                line += JUDGED[row["verdict"]]
            lines.append(line)
    more = len(comparisons) - COMPARISONS_SHOWN
    return [*lines, *([f"and {more} more comparisons"] if more > 0 else [])]


def trial_lines(folder: Path, jobs: Sequence[Mapping[str, Any]]) -> list[str]:
    """The best trial of an Optuna search: its value, parameters and folder; nothing for another sweep."""
    file = folder / "optimization_results.yaml"
    if not file.is_file():
        return []
    found = yaml.safe_load(file.read_text(encoding="utf-8"))
    settings = " ".join(f"{key}={show_number(value)}" for key, value in found["best_evaluated_params"].items())
    for job in jobs:
        path = Path(job["folder"]) / CARD
        card = read_json(path, "config", "results") if path.is_file() else {"config": {}, "results": {}}
        objective = card["config"].get("objective")
        if card["results"].get(objective) == found["best_value"]:
            return [f"Best trial: {objective} {found['best_value']:.4f} with {settings} ({job['folder']})"]
    return [f"Best trial: {found['best_value']:.4f} with {settings}"]
