"""The style of plots: one palette, and SVG that fits into a page.

Colours are Okabe and Ito's, which stay apart for colour-blind eyes. In a page they follow the CSS variables
`--plot-...` and the text colour, so one SVG suits a light and a dark page. Text stays text. A mark may have a title,
which a browser shows under the pointer.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from textwrap import fill
from xml.etree import ElementTree

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from scipy.stats import spearmanr

INK, GRID = "#1a1b1e", "#d8dade"
BLUE, GREY, RED, AMBER = "#0072b2", "#999999", "#d55e00", "#e69f00"
GREEN, PINK, SKY = "#009e73", "#cc79a7", "#56b4e9"
COLOURS = (BLUE, RED, GREEN, AMBER, PINK, SKY, INK, GREY)  # of curves, in this order
MARKS = "osD^vP*X"
MANY = 3000  # points; more are drawn as one image, because as many SVG circles make a page unusable
CSS = {
    INK: "currentColor",
    GRID: "var(--plot-grid, #d8dade)",
    BLUE: "var(--plot-blue, #0072b2)",
    GREY: "var(--plot-grey, #999999)",
    RED: "var(--plot-red, #d55e00)",
    AMBER: "var(--plot-amber, #e69f00)",
}
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "winnow",
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "figure.titlesize": 10.5,
    "figure.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.axisbelow": True,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "figure.constrained_layout.use": True,
    "legend.borderaxespad": 0.2,
}
WIDTH = 5.6  # inches; 403 SVG units: the text can be read where a telephone shows the plot 360 pixels wide
SVG = "{http://www.w3.org/2000/svg}"
ElementTree.register_namespace("", SVG[1:-1])
ElementTree.register_namespace("xlink", "http://www.w3.org/1999/xlink")


@contextmanager
def new_figure(height: float) -> Iterator[tuple[Figure, Axes]]:
    """An empty figure `height` inches high with one pair of axes, and the style of plots inside the block. No global
    state is left: pyplot is not involved."""
    with new_panels(height, [1]) as (figure, axes):
        yield figure, axes[0]


@contextmanager
def new_panels(height: float, ratios: Sequence[float]) -> Iterator[tuple[Figure, np.ndarray]]:
    """The same with a pair of axes for each ratio of heights, one below the other."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, height), facecolor="none")
        rows = figure.subplots(len(ratios), 1, squeeze=False, height_ratios=ratios, subplot_kw={"facecolor": "none"})
        yield figure, rows[:, 0]


def height_for(labels: Sequence[str], least: float) -> float:
    """Inches of a plot with these labels in the legend below it; `least` without the legend."""
    return least + 0.2 * -(-len(labels) // _columns(labels))


def legend(axes: Axes) -> None:
    """The legend, below the plot, where it takes no width."""
    handles, labels = axes.get_legend_handles_labels()
    axes.figure.legend(handles, labels, loc="outside lower left", ncols=_columns(labels))


def _columns(labels: Sequence[str]) -> int:
    return max(1, min(3, 64 // (6 + max(map(len, labels), default=1))))


def scatter(
    axes: Axes,
    x: np.ndarray,
    y: np.ndarray,
    groups: Iterable[tuple[np.ndarray, str, str]],
    sizes: Sequence[float],
    titles: Sequence[str] | None = None,
) -> list[tuple[Artist, list[str]]]:
    """Draw points in groups (mask, colour, label) of the given sizes; the legend has the number of points. Returns the
    titles of the points for `to_svg`, none for points that become an image."""
    drawn = []
    for (mask, colour, label), size in zip(groups, sizes, strict=True):
        if mask.any():
            style = {"s": size, "color": colour, "alpha": 0.7, "linewidths": 0, "rasterized": len(x) > MANY}
            points = axes.scatter(x[mask], y[mask], label=f"{label} ({mask.sum():,})", **style)
            if titles is not None and len(x) <= MANY:
                drawn.append((points, [titles[i] for i in np.flatnonzero(mask)]))
    return drawn


def rank_correlation(x: Sequence[float | None], y: Sequence[float | None]) -> float | None:
    """Spearman's rank correlation over the pairs without a None; None for fewer than 3 of them or constant values."""
    pairs = [pair for pair in zip(x, y, strict=True) if None not in pair]
    if len(pairs) < 3 or any(len(set(side)) == 1 for side in zip(*pairs, strict=True)):
        return None
    return float(spearmanr(*zip(*pairs, strict=True)).statistic)


def message(title: str, text: str) -> str:
    """A sentence in place of a plot."""
    with new_figure(0.9) as (figure, axes):
        axes.text(0, 0.5, fill(text, 70), va="center", transform=axes.transAxes)
        axes.set_axis_off()
        return to_svg(figure, title)


def to_svg(figure: Figure, title: str, titles: Iterable[tuple[Artist, Sequence[str]]] = ()) -> str:
    """The figure as an `<svg>` element under its title that scales with its container, in the page's colours. Screen
    readers find the title too.

    titles: of the marks of an artist (the points of a scatter, one bar), in their order."""
    figure.suptitle(fill(title, 60), x=0.01, ha="left")
    named = {f"titles-{number}": one for number, one in enumerate(titles)}
    for name, (artist, _) in named.items():
        artist.set_gid(name)
    buffer = io.StringIO()
    FigureCanvasSVG(figure).print_svg(buffer, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    root = ElementTree.fromstring(buffer.getvalue())
    root.attrib |= {"class": "plot", "role": "img", "aria-label": title}
    del root.attrib["width"], root.attrib["height"]
    for group in root.iter(f"{SVG}g"):
        # Group names such as axes_1 repeat from plot to plot, which a page must not; nothing refers to them.
        name = group.attrib.pop("id", None)
        if name in named:
            shared = {one for definitions in group.iter(f"{SVG}defs") for one in definitions.iter()}
            marks = [*group.iter(f"{SVG}use")] or [one for one in group.iter(f"{SVG}path") if one not in shared]
            for mark, text in zip(marks, named[name][1], strict=True):
                ElementTree.SubElement(mark, f"{SVG}title").text = text
    text = ElementTree.tostring(root, encoding="unicode")
    for colour, variable in CSS.items():
        text = text.replace(colour, variable)
    return text
