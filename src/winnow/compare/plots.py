"""The dashboard's plots: pure functions from runs to SVG text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.patches import Rectangle

from winnow.pages.svg import AMBER, BLUE, COLOURS, GREY, INK, MARKS, RED, STYLE, height_for, message, new_figure, to_svg

if TYPE_CHECKING:
    from winnow.compare.runs import ComparedRun

MOST = 24  # rows of a matrix; more cannot be read
WIDEST = 48  # characters of a name beside a plot; more would leave the plot no room
BLUES = LinearSegmentedColormap.from_list("overlap", ["#f2f5f9", BLUE])
BOTH = LinearSegmentedColormap.from_list("agreement", [RED, "#f2f5f9", BLUE])


def short_names(names: Sequence[str]) -> list[str]:
    """Names for a plot. If one is too long, all lose the parts (between commas and slashes) that they share. A name
    that is still too long loses its middle."""
    if max(map(len, names), default=0) <= WIDEST:
        return list(names)
    parts = [re.split("[,/]", name) for name in names]
    common = set(parts[0]).intersection(*parts[1:]) if len(names) > 1 else set()
    own = [", ".join(part for part in one if part not in common) or one[-1] for one in parts]
    half = WIDEST // 2
    return [name if len(name) <= WIDEST else f"{name[: half - 1]}…{name[-half:]}" for name in own]


def against_ratio(runs: Sequence[ComparedRun], metric: str, low: bool) -> str:
    """The metric over the selected share of the valid records: one point per run, one line through the means of each
    label, and a dashed line for the base model."""
    title = f"{metric} against the selected share"
    curves: dict[str, dict[float, list[float]]] = {}
    for run in runs:
        if run.ratio is not None and metric in run.metrics:
            curves.setdefault(run.label, {}).setdefault(run.ratio, []).append(run.metrics[metric]["value"])
    if not curves:
        return message(title, "No run has both a subset and this metric.")
    if len({share for points in curves.values() for share in points}) == 1 and len(curves) > MOST // 2:
        return message(title, "All runs have the same share of the records: the leaderboard compares them.")
    bases = sorted({run.base[metric] for run in runs if metric in run.base})
    with matplotlib.rc_context(STYLE):
        figure, axes = new_figure(height_for(len(curves) + bool(bases), 3.6))
        names = dict(zip(sorted(curves), short_names(sorted(curves)), strict=True))
        for number, (label, points) in enumerate(sorted(curves.items())):
            colour, mark = COLOURS[number % len(COLOURS)], MARKS[number % len(MARKS)]
            shares = sorted(points)
            flat = [(share, value) for share in shares for value in points[share]]
            axes.scatter(*zip(*flat, strict=True), s=26, color=colour, marker=mark, alpha=0.6, linewidths=0)
            means = [np.mean(points[share]) for share in shares]
            axes.plot(shares, means, color=colour, marker=mark, markersize=4, label=names[label])
        for value in bases[:3]:
            label = "base model" if value == bases[0] else None
            axes.axhline(value, color=GREY, linestyle="--", linewidth=1.2, label=label)
        axes.set(
            title=title,
            xlabel="share of the valid records",
            ylabel=f"{metric}\n({'lower' if low else 'higher'} is better)",
        )
        axes.margins(x=0.06, y=0.12)
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1))
        return to_svg(figure, title)


def matrix(title: str, names: Sequence[str], values: np.ndarray) -> str:
    """A square matrix of numbers in [-1, 1] with the names beside it; NaN cells are empty."""
    if len(names) < 2:
        return message(title, "There is nothing to compare: fewer than two runs have this.")
    with matplotlib.rc_context(STYLE):
        figure, axes = new_figure(1.1 + 0.33 * len(names))
        draw_cells(axes, values, size=8.5 if len(names) <= MOST // 2 else 5.5)
        axes.set_yticks(range(len(names)))
        axes.set_xticks(range(len(names)), [str(number + 1) for number in range(len(names))])
        axes.set_yticklabels([f"{name}  {number + 1}" for number, name in enumerate(short_names(names))])
        axes.set(title=title)
        return to_svg(figure, title)


def draw_cells(axes: Axes, values: np.ndarray, size: float) -> None:
    """Draw the numbers of a square matrix as coloured cells, in text of `size` points; NaN cells are empty."""
    signed = bool(np.nanmin(values) < 0)
    # Cell by cell and not as an image: text and colours then follow the page.
    for (i, j), value in np.ndenumerate(values):
        if not np.isnan(value):
            shade = BOTH((value + 1) / 2) if signed else BLUES(value)
            axes.add_patch(Rectangle((j - 0.5, i - 0.5), 1, 1, facecolor=shade, edgecolor="none"))
            ink = "#fdfdfd" if abs(value) > 0.6 else "#1c1d21"  # contrasts with the cell, not with the page
            label = f"{value:.2f}".replace("-0.00", "0.00")
            axes.text(j, i, label, ha="center", va="center", fontsize=size, color=ink)
    axes.set(xlim=(-0.5, len(values) - 0.5), ylim=(len(values) - 0.5, -0.5))
    axes.grid(visible=False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def cost_against_gain(runs: Sequence[ComparedRun], metric: str, low: bool) -> str:
    """Improvement over the base model against the seconds of scoring and selection. Runs that took any pass from the
    store have no cost of their own and are left out."""
    title = f"Cost of the selection against gain in {metric}"
    points = []
    for run in runs:
        if metric in run.metrics and metric in run.base and run.cost is not None:
            gain = (run.metrics[metric]["value"] - run.base[metric]) * (-1 if low else 1)
            points.append((run.cost, gain, run.label))
    if not points:
        return message(title, "No run computed its scores itself and has a base model for comparison.")
    with matplotlib.rc_context(STYLE):
        labels = sorted({point[2] for point in points})
        figure, axes = new_figure(height_for(len(labels), 3.4))
        for number, (method, name) in enumerate(zip(labels, short_names(labels), strict=True)):
            own = [point[:2] for point in points if point[2] == method]
            colour, mark = COLOURS[number % len(COLOURS)], MARKS[number % len(MARKS)]
            axes.scatter(*zip(*own, strict=True), s=42, color=colour, marker=mark, label=name, linewidths=0)
        axes.axhline(0, color=INK, linewidth=0.8)
        axes.set(
            title=title,
            xlabel="scoring and selection (seconds)",
            ylabel=f"gain in {metric}\n(above 0: better than the base model)",
        )
        axes.margins(x=0.08, y=0.15)
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1))
        return to_svg(figure, title)


def seconds_per_stage(runs: Sequence[ComparedRun], stages: Sequence[str]) -> str:
    """One stacked bar for each run: the seconds of its computed stages."""
    title = "Seconds per stage, without what came from the store"
    runs = [run for run in runs if run.seconds][:MOST]
    if not runs:
        return message(title, "Every stage of every run came from the store.")
    colours = dict(zip(stages, (BLUE, AMBER, RED, GREY), strict=False))
    with matplotlib.rc_context(STYLE):
        figure, axes = new_figure(0.9 + 0.3 * len(runs))
        left = np.zeros(len(runs))
        for stage in stages:
            widths = np.array([run.seconds.get(stage, 0.0) for run in runs])
            if widths.any():
                axes.barh(range(len(runs)), widths, left=left, height=0.62, color=colours[stage], label=stage)
                left += widths
        axes.set_yticks(range(len(runs)), short_names([run.name for run in runs]))
        axes.set_ylim(len(runs) - 0.4, -0.6)
        axes.set(title=title, xlabel="seconds")
        axes.grid(axis="y", visible=False)
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1))
        return to_svg(figure, title)
