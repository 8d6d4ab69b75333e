"""The dashboard's plots: pure functions from its rows to SVG text. A method has one colour and mark in all of them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.patches import Patch, Rectangle

from winnow.pages.card import show_number, show_seconds
from winnow.pages.plots import unit
from winnow.pages.svg import BLUE, COLOURS, GREY, INK, MARKS, RED, height_for, legend, message, new_figure, to_svg

if TYPE_CHECKING:
    from winnow.compare.dashboard import Row

MOST = 16  # rows of a matrix; more cannot be read
WIDEST = 32  # characters of a name beside a plot; more would leave the plot no room
BLUES = LinearSegmentedColormap.from_list("overlap", ["#f2f5f9", BLUE])
BOTH = LinearSegmentedColormap.from_list("agreement", [RED, "#f2f5f9", BLUE])
Looks = Mapping[str, tuple[str, str]]  # method -> colour and mark


def looks(labels: Sequence[str]) -> Looks:
    """A colour and a mark for each method, by name."""
    n, names = len(COLOURS), sorted(dict.fromkeys(labels))
    return {name: (COLOURS[i % n], MARKS[(i + i // n) % len(MARKS)]) for i, name in enumerate(names)}


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


def standings(rows: Sequence[Row], metric: str, low: bool, colours: Looks) -> str:
    """One row for each method and share, best first: its mean, with the paired 95% interval of its difference from the
    reference around it, where it was tested. The lines are the reference (full) and the base model (dashed)."""
    rows = sorted(
        (row for row in rows if metric in row.values), key=lambda row: row.values[metric] * (1 if low else -1)
    )
    with new_figure(1.3 + 0.26 * len(rows)) as (figure, axes):
        titles: list[tuple[Artist, list[str]]] = []
        for place, row in enumerate(rows):
            colour, mark = colours[row.label]
            for value in row.each.get(metric, ()):
                axes.plot(value, place, "|", color=colour, markersize=7, alpha=0.6)
            error = row.error(metric)
            point, _, _ = axes.errorbar(
                row.values[metric], place, xerr=error, fmt=mark, color=colour, markersize=6, elinewidth=1.6
            )
            titles.append((point, [row.title(metric)]))
        lines = {one.values[metric] - test["difference"] for one in rows if (test := one.test(metric)) is not None}
        for value in lines:
            axes.axvline(value, color=INK, linewidth=0.9, zorder=1)
        for value in sorted({row.base[metric] for row in rows if metric in row.base})[:3]:
            axes.axvline(value, color=GREY, linestyle="--", linewidth=1.2, zorder=1)
        axes.set_yticks(range(len(rows)), short_names([row.name for row in rows]))
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.margins(x=0.08)
        axes.locator_params("x", nbins=6)  # more numbers of six digits would touch
        axes.grid(axis="y", visible=False)
        axes.set(xlabel=f"{unit(metric)} ({'lower' if low else 'higher'} is better)")
        return to_svg(figure, metric, titles)


def against_ratio(rows: Sequence[Row], metric: str, low: bool, colours: Looks) -> str | None:
    """The metric over the selected share of the pool: a curve for each method, with the paired 95% interval of
    its difference from the reference, and a dashed line for the base model. None where all have the same share."""
    rows = [row for row in rows if row.ratio is not None and metric in row.values]
    if len({row.share for row in rows}) < 2:
        return None
    title = f"{metric} against the selected share"
    labels = sorted({row.label for row in rows})
    names = short_names(labels)
    with new_figure(height_for([*names, "base model"], 3.0)) as (figure, axes):
        titles: list[tuple[Artist, list[str]]] = []
        for label, name in zip(labels, names, strict=True):
            colour, mark = colours[label]
            own = sorted((row for row in rows if row.label == label), key=lambda row: row.ratio)
            shares, values = [100 * row.ratio for row in own], [row.values[metric] for row in own]
            axes.plot(shares, values, color=colour, linewidth=1.5, label=name, marker=mark, markersize=0.1)
            for row, x, y in zip(own, shares, values, strict=True):
                point, _, _ = axes.errorbar(
                    x, y, yerr=row.error(metric), fmt=mark, color=colour, markersize=5.5, elinewidth=1, alpha=0.9
                )
                titles.append((point, [row.title(metric)]))
        bases = sorted({row.base[metric] for row in rows if metric in row.base})
        for value in bases[:3]:
            label = "base model" if value == bases[0] else None
            axes.axhline(value, color=GREY, linestyle="--", linewidth=1.2, label=label)
        axes.set(
            xlabel="selected share of the pool (%)",
            ylabel=f"{unit(metric)}\n({'lower' if low else 'higher'} is better)",
        )
        axes.margins(x=0.06, y=0.12)
        legend(axes)
        return to_svg(figure, title, titles)


def matrix(title: str, names: Sequence[str], values: np.ndarray) -> str:
    """A square matrix of numbers in [-1, 1] with the names beside it; NaN cells are empty."""
    if len(names) < 2:
        return message(title, "There is nothing to compare: fewer than two runs have this.")
    with new_figure(0.8 + 0.27 * len(names)) as (figure, axes):
        cells = draw_cells(axes, values, size=8.5 if len(names) <= MOST // 2 else 6)
        axes.set_yticks(range(len(names)))
        axes.set_xticks(range(len(names)), [str(number + 1) for number in range(len(names))])
        axes.set_yticklabels([f"{name} · {number + 1}" for number, name in enumerate(short_names(names))])
        titles = [(cell, [f"{names[i]} and {names[j]}: {values[i, j]:.3f}"]) for (i, j), cell in cells.items()]
        return to_svg(figure, title, titles)


def draw_cells(axes: Axes, values: np.ndarray, size: float) -> dict[tuple[int, ...], Rectangle]:
    """Draw the numbers of a square matrix as coloured cells, in text of `size` points; NaN cells are empty. Returns the
    cells by place."""
    signed = bool(np.nanmin(values) < 0)
    cells = {}
    # Cell by cell and not as an image: text and colours then follow the page.
    for (i, j), value in np.ndenumerate(values):
        if not np.isnan(value):
            shade = BOTH((value + 1) / 2) if signed else BLUES(value)
            cells[i, j] = Rectangle((j - 0.5, i - 0.5), 1, 1, facecolor=shade, edgecolor="none")
            axes.add_patch(cells[i, j])
            ink = "#fdfdfd" if abs(value) > 0.6 else "#1c1d21"  # contrasts with the cell, not with the page
            label = f"{value:.2f}".replace("-0.00", "0.00")
            axes.text(j, i, label, ha="center", va="center", fontsize=size, color=ink)
    axes.set(xlim=(-0.5, len(values) - 0.5), ylim=(len(values) - 0.5, -0.5))
    axes.grid(visible=False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return cells


def cost_against_gain(rows: Sequence[Row], metric: str, low: bool, colours: Looks) -> str:
    """Improvement over the base model against the seconds of scoring and selection, whichever run spent them."""
    title = f"Gain over the base model in {metric}, and what the selection took"
    rows = [row for row in rows if metric in row.values and metric in row.base and row.cost is not None]
    if not rows:
        return message(title, "No run has both a known cost and a base model.")
    labels = sorted({row.label for row in rows})
    names = dict(zip(labels, short_names(labels), strict=True))
    with new_figure(height_for(list(names.values()), 3.0)) as (figure, axes):
        titles: list[tuple[Artist, list[str]]] = []
        for row in rows:
            colour, mark = colours[row.label]
            gain = (row.values[metric] - row.base[metric]) * (-1 if low else 1)
            point = axes.scatter(
                row.cost, gain, s=42, color=colour, marker=mark, label=names.pop(row.label, None), linewidths=0
            )
            titles.append((point, [f"{row.name}: {show_seconds(row.cost)}, gain {show_number(gain)}"]))
        axes.axhline(0, color=INK, linewidth=0.8)
        axes.set(xlabel="scoring and selection (seconds)", ylabel=f"gain in {unit(metric)}")
        axes.margins(x=0.08, y=0.15)
        legend(axes)
        return to_svg(figure, title, titles)


def seconds_per_stage(rows: Sequence[Row], stages: Sequence[str], colours: Looks) -> str:
    """One stacked bar for each method and share, in the method's colour: the mean seconds of its stages, the later the
    paler."""
    title = "Seconds per stage"
    rows = [row for row in rows if any(row.seconds.values())][:MOST]
    if not rows:
        return message(title, "The time of no stage is known.")
    shades = dict(zip(stages, (1.0, 0.75, 0.5, 0.25), strict=True))
    with new_figure(1.4 + 0.26 * len(rows)) as (figure, axes):
        titles: list[tuple[Artist, list[str]]] = []
        for place, row in enumerate(rows):
            left = 0.0
            for stage, seconds in row.seconds.items():
                if seconds:
                    bar = axes.barh(
                        place, seconds, left=left, height=0.66, color=colours[row.label][0], alpha=shades[stage]
                    )
                    titles.append((bar[0], [f"{row.name}, {stage}: {show_seconds(seconds)}"]))
                    left += seconds
        axes.set_yticks(range(len(rows)), short_names([row.name for row in rows]))
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set(xlabel="seconds")
        axes.grid(axis="y", visible=False)
        handles = [Patch(color=INK, alpha=shade, label=stage) for stage, shade in shades.items()]
        figure.legend(handles=handles, loc="outside lower left", ncols=len(handles))
        return to_svg(figure, title, titles)
