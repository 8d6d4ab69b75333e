"""A page that compares all runs below a folder: leaderboard, budget, overlap of subsets, agreement of scores, cost.

Only runs of the same backbone, pool and evaluation stand in one list. The page reads run folders only
(`run_card.json`, `results.json`, `selection.json`, `scores.parquet`, `tuning.json`) and opens offline.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from markupsafe import Markup

from winnow.compare import plots
from winnow.compare.runs import STAGES, ComparedRun, label, read_runs
from winnow.compare.scorecard import rho
from winnow.compare.verdicts import marks_of_runs, seeds_by_method
from winnow.errors import UserError
from winnow.pages.card import show_change, show_number
from winnow.pages.files import render
from winnow.pages.svg import CSS
from winnow.store.files import write_atomically

LETTERS = 12  # rows up to which the letters of groups can be read
COLUMNS = 4  # metrics side by side; more would leave the page


class Row:
    """One method and share: the mean over its seeds, of a metric over those that have it.

    name: label and share. values: metric -> mean over the seeds; each: its values; base: of the base model. marks:
    metric -> its standing, see `compare.verdicts`. cost, seconds: means over the runs whose time is known."""

    def __init__(
        self, seeds: list[ComparedRun], metrics: Sequence[str], marks: Mapping[tuple[str, str], dict[str, Any]]
    ) -> None:
        first, own = seeds[0], next((run for run in seeds if run.metrics), seeds[0])
        self.runs, self.label, self.share = seeds, first.label, share_name(first.share)
        self.name, self.ratio, self.subset = f"{self.label}, {self.share}", first.ratio, first.subset
        each = {metric: [run.metrics[metric]["value"] for run in seeds if metric in run.metrics] for metric in metrics}
        self.each = {metric: values for metric, values in each.items() if values}
        self.values = {metric: fmean(values) for metric, values in self.each.items()}
        self.base = own.base
        self.marks = {key: marks[place] for key in metrics if (place := (str(own.folder), key)) in marks}
        costs = [run.cost for run in seeds if run.cost is not None]
        self.cost = fmean(costs) if costs else None
        times = {stage: [run.seconds[stage] for run in seeds if stage in run.seconds] for stage in STAGES}
        self.seconds = {stage: fmean(some) for stage, some in times.items() if some}

    def test(self, metric: str) -> dict[str, Any] | None:
        """The paired test of this row against the reference; None without one."""
        mark = self.marks.get(metric)
        return mark if mark and mark["against"] is not None else None

    def error(self, metric: str) -> list[list[float]] | None:
        """The interval of the difference around the mean, as the lengths of an error bar: (2, 1)."""
        test = self.test(metric)
        return test and [[test["difference"] - test["low"]], [test["high"] - test["difference"]]]

    def title(self, metric: str) -> str:
        """What a plot says of a point."""
        seeds = len(self.each[metric])
        words = f"{self.name}: {show_number(self.values[metric])}, {seeds} seed{'s' * (seeds > 1)}"
        test = self.test(metric)
        if test is None:
            return words
        low, difference, high = (show_change(test[key]) for key in ("low", "difference", "high"))
        return f"{words}; {difference} [{low}, {high}] against {test['against']}: {test['verdict']}"


def write_dashboard(folder: Path, to: str | None = None) -> Path:
    """Write the page of all finished runs below `folder`, by default to `<folder>/dashboard.html`; returns its path.

    Raises UserError where there is no run."""
    runs = read_runs(folder)
    if not runs:
        raise UserError(f"{folder} holds no finished run (no run_card.json); name the folder of a sweep.")
    path = Path(to) if to else folder / "dashboard.html"
    page = render("compare/dashboard.html.j2", content(runs, folder, path.parent), share=share_name)
    write_atomically(path, page)
    return path


def content(runs: Sequence[ComparedRun], folder: Path, place: Path | None = None) -> dict[str, Any]:
    """The values of the template. place: the folder of the page, from which its links lead."""
    several = alike(runs)
    for members in several:
        label(members)
    colours = plots.looks([run.label for run in runs])
    lists = [_list(members, colours) for members in several]
    links = {}
    for run in runs:
        page = next(
            (page for name in ("report.html", "run_card.md") if (page := run.folder / name).is_file()), run.folder
        )
        links[run.name] = Path(os.path.relpath(page, place or folder)).as_posix()
    return {
        "folder": folder.resolve().name,
        "n_runs": len(runs),
        "lists": lists,
        "links": links,
        "columns": COLUMNS,
        "colours": {label: CSS.get(colour, colour) for label, (colour, _) in colours.items()},
    }


def alike(runs: Sequence[ComparedRun]) -> list[list[ComparedRun]]:
    """The runs of one backbone, pool and evaluation, the longest list first. A run without an evaluation stands in the
    longest list of its backbone and pool."""
    lists: dict[tuple, list[ComparedRun]] = {}
    for run in runs:
        lists.setdefault((run.backbone, run.pool, run.fingerprint, run.suite), []).append(run)
    longest = sorted(lists, key=lambda key: -len(lists[key]))
    for key in longest:
        home = next((one for one in longest if one[:3] == key[:3] and one[3]), None)
        if not key[3] and home is not None:
            lists[home] += lists.pop(key)
    return sorted(lists.values(), key=len, reverse=True)


def _list(runs: Sequence[ComparedRun], colours: plots.Looks) -> dict[str, Any]:
    """The values of one list: its rows, best first, and its plots."""
    metrics = list(dict.fromkeys(metric for run in runs for metric in run.headline))
    low = {
        metric: not next((run.metrics[metric]["higher_is_better"] for run in runs if metric in run.metrics), True)
        for metric in metrics
    }
    marks, against, why = marks_of_runs(runs)
    rows = [Row(seeds, metrics, marks) for seeds in seeds_by_method(runs).values()]
    values = {metric: [row.values[metric] for row in rows if metric in row.values] for metric in metrics}
    first = metrics[0] if metrics else None
    rows.sort(key=lambda row: _place(row, first, low))
    selecting = [row for row in rows if row.subset][: plots.MOST]
    scoring = _distinct_scores([row.runs[0] for row in rows])[: plots.MOST]
    curves = [plots.against_ratio(rows, metric, low[metric], colours) for metric in metrics]
    about = runs[0]
    return {
        "title": f"{about.backbone} on {about.pool}",
        "suite": next((run.suite for run in runs if run.suite), None),
        "records": max(len(run.scores) for run in runs),
        "metrics": metrics,
        "low": low,
        "against": against,
        "letters": len(rows) <= LETTERS,
        "no_verdicts": why,
        "best": {metric: (min if low[metric] else max)(some, default=None) for metric, some in values.items()},
        "rows": rows,
        "runs": sorted(runs, key=lambda run: (run.label, run.share, run.seed)),
        "commands": list(dict.fromkeys(run.command for run in sorted(runs, key=lambda run: run.started))),
        "standings": [Markup(plots.standings(rows, metric, low[metric], colours)) for metric in metrics],
        "curves": [Markup(curve) for curve in curves if curve is not None],
        "overlap": Markup(
            plots.matrix("Overlap of the subsets (Jaccard)", [row.name for row in selecting], jaccard(selecting))
        ),
        "agreement": Markup(
            plots.matrix("Agreement of the scores (Spearman)", [run.label for run in scoring], spearman(scoring))
        ),
        "cost": Markup(plots.cost_against_gain(rows, first, low[first], colours)) if first else None,
        "stages": Markup(plots.seconds_per_stage(rows, STAGES, colours)),
    }


def share_name(share: str) -> str:
    """`10%`, `500 records`, `10% of the answer tokens`, `20000 answer tokens` or `all`, for a budget of a run."""
    key, _, budget = share.partition("=")
    value, _, unit = budget.partition(" ")
    if key == "ratio":
        return f"{100 * float(value):g}%" + (f" of the {unit}" if unit else "")
    return f"{value} {unit or 'records'}" if key == "count" else "all"


def jaccard(runs: Sequence[ComparedRun | Row]) -> np.ndarray:
    """(runs, runs): |A and B| / |A or B| of the subsets' record ids."""
    return np.array([[len(a.subset & b.subset) / len(a.subset | b.subset) for b in runs] for a in runs])


def spearman(runs: Sequence[ComparedRun]) -> np.ndarray:
    """(runs, runs): Spearman's rank correlation over the records that both runs score, NaN for fewer than 3 common
    records or constant scores. High is good in every run: scores of a method that prefers low ones are negated."""
    values = np.full((len(runs), len(runs)), np.nan)
    for i, one in enumerate(runs):
        for j, other in enumerate(runs[: i + 1]):
            value = rho(one.scores, other.scores)
            values[i, j] = values[j, i] = np.nan if value is None else value
    return values


def _distinct_scores(runs: Sequence[ComparedRun]) -> list[ComparedRun]:
    """One run of each ranking: all ratios of a method have the same scores. `full` ranks nothing."""
    distinct: dict[tuple, ComparedRun] = {}
    for run in runs:
        if len(set(run.scores.values())) > 1:
            distinct.setdefault((run.method, tuple(run.scores.values())), run)
    return list(distinct.values())


def _place(row: Row, metric: str | None, low: Mapping[str, bool]) -> tuple:
    if metric is None or metric not in row.values:
        return (1, 0.0, row.name)
    return (0, row.values[metric] * (1 if low[metric] else -1), row.name)
