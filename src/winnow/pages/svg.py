"""The style of plots: one palette, and SVG that fits into a page.

Colours are Okabe and Ito's, which stay apart for colour-blind eyes. In a page they follow the CSS variables
`--plot-...` and the text colour, so one SVG suits a light and a dark page. Text stays text.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Iterable, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from scipy.stats import spearmanr

INK, GRID = "#1a1b1e", "#d8dade"
BLUE, GREY, RED, AMBER = "#0072b2", "#999999", "#d55e00", "#e69f00"
COLOURS = (BLUE, RED, AMBER, INK, GREY)  # of curves, in this order
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
WIDTH = 9.0  # inches; 648 SVG units, shown about 900 pixels wide


def new_figure(height: float) -> tuple[Figure, Axes]:
    """An empty figure `height` inches high with one pair of axes. No global state: pyplot is not involved."""
    figure = Figure(figsize=(WIDTH, height))
    return figure, figure.subplots()


def height_for(entries: int, least: float) -> float:
    """Inches of a plot with this many entries in the legend beside it; at least `least`."""
    return max(least, 0.7 + 0.22 * entries)


def scatter(
    axes: Axes, x: np.ndarray, y: np.ndarray, groups: Iterable[tuple[np.ndarray, str, str]], sizes: Sequence[float]
) -> None:
    """Draw points in groups (mask, colour, label) of the given sizes; the legend has the number of points."""
    for (mask, colour, label), size in zip(groups, sizes, strict=True):
        if mask.any():
            style = {"s": size, "color": colour, "alpha": 0.7, "linewidths": 0, "rasterized": len(x) > MANY}
            axes.scatter(x[mask], y[mask], label=f"{label} ({mask.sum():,})", **style)


def rank_correlation(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Spearman's rank correlation; None for fewer than 3 pairs or constant values."""
    if len(x) < 3 or len(set(x)) == 1 or len(set(y)) == 1:
        return None
    return float(spearmanr(x, y).statistic)


def message(title: str, text: str) -> str:
    """A sentence in place of a plot."""
    with matplotlib.rc_context(STYLE):
        figure, axes = new_figure(1.1)
        axes.set_title(title)
        axes.text(0, 0.5, text, va="center", transform=axes.transAxes)
        axes.set_axis_off()
        return to_svg(figure, title)


def to_svg(figure: Figure, title: str) -> str:
    """The figure as an `<svg>` element that scales with its container, named for screen readers, in the
    page's colours and font."""
    buffer = io.StringIO()
    FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :].strip()
    text = re.sub(r"\s*<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(
        r'(<svg[^>]*?) width="[^"]*"', r"\1", re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1), count=1
    )
    # Group names such as axes_1 repeat from plot to plot, which a page must not; nothing refers to them.
    text = re.sub(r' id="[a-zA-Z0-9.]+_\d+"', "", text)
    text = re.sub(r"'DejaVu Sans'[^;\"]*", "system-ui, -apple-system, 'Segoe UI', sans-serif", text)
    # The white sheet behind figure and axes.
    text = re.sub(r'style="fill: #ffffff[^"]*"', 'style="fill: none"', text)
    for colour, variable in CSS.items():
        text = text.replace(colour, variable)
    return text.replace("<svg ", f'<svg class="plot" role="img" aria-label="{html.escape(title)}" ', 1)
