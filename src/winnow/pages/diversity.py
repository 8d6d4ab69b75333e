"""The report's section on diversity: plots, and the sentences' numbers, from the content of `diversity.json`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.ticker import FuncFormatter, MaxNLocator

from winnow.pages.svg import BLUE, GREY, INK, RED, legend, message, new_figure, scatter, to_svg


def diversity_section(content: Mapping[str, Any]) -> dict[str, Any]:
    """What the page shows of `diversity.json`: the numbers as they are, and three plots."""
    return {
        **content,
        "class_plot": Markup(class_shares(content["classes"]["by_class"])),
        "neighbour_plot": Markup(neighbour_histogram(content["neighbours"])),
        "map_plot": Markup(pool_map(content["map"])),
    }


def class_shares(by_class: list[Mapping[str, Any]]) -> str:
    """Selected share of each class, largest class first: selected / records of the class that may be selected. The
    line is the share over all classes; a class below it gives less than its part."""
    title = "Selected share of each class"
    valid = np.array([one["valid"] for one in by_class], dtype=float)
    selected = np.array([one["selected"] for one in by_class], dtype=float)
    if not valid.sum():
        return message(title, "No record of any class may be selected.")
    share = np.divide(selected, valid, out=np.zeros_like(valid), where=valid > 0)
    overall = selected.sum() / valid.sum()
    with new_figure(3.0) as (figure, axes):
        places = np.arange(len(share))
        bars = axes.bar(places, share, width=0.8, color=BLUE, label="of the class")
        axes.axhline(overall, color=INK, linestyle="--", linewidth=1.2, label=f"of the pool: {100 * overall:.3g}%")
        none = places[(selected == 0) & (valid > 0)]
        if len(none):
            label = f"nothing selected ({len(none)})"
            axes.plot(none, np.zeros(len(none)), "x", color=RED, markersize=5, clip_on=False, label=label)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.4g}%"))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=10))
        axes.set(xlabel="class, largest first", ylabel="share selected")
        axes.set_xlim(-0.6, len(share) - 0.4)
        axes.set_ylim(top=max(share.max(), overall) * 1.08 or 1)
        axes.grid(axis="x", visible=False)
        legend(axes)
        titles = [
            (bar, [f"class {place}: {chosen:.0f} of {records:.0f} records"])
            for bar, place, chosen, records in zip(bars, places, selected, valid, strict=True)
        ]
        return to_svg(figure, title, titles)


def neighbour_histogram(neighbours: Mapping[str, Any] | None) -> str:
    """Cosine of each selected record with the selected record most like it, in blue, against random subsets of equal
    size as a dark line; shares of the subset per bar."""
    title = "Similarity inside the subset"
    if neighbours is None:
        return message(title, "The subset has fewer than two records.")
    edges = np.array(neighbours["edges"])
    with new_figure(3.2) as (figure, axes):
        label = f"subset (median {neighbours['subset_median']:.3f})"
        axes.stairs(neighbours["subset"], edges, fill=True, color=BLUE, label=label)
        label = f"random subsets of equal size\n(median {neighbours['random_median']:.3f})"
        axes.stairs(neighbours["random"], edges, color=INK, linewidth=1.6, label=label)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.4g}%"))
        axes.set(xlabel="cosine with the nearest other record of the subset", ylabel="records")
        axes.set_xlim(edges[0], edges[-1])
        axes.grid(axis="x", visible=False)
        legend(axes)
        return to_svg(figure, title)


def pool_map(content: Mapping[str, Any] | None) -> str:
    """The pool on its first two principal components, selected records in blue."""
    title = "Map of the pool"
    if content is None:
        return message(title, "The pool has too few vectors for a map.")
    x, y = np.array(content["x"]), np.array(content["y"])
    chosen = np.array(content["selected"], dtype=bool)
    with new_figure(5.6) as (figure, axes):
        groups = [(~chosen, GREY, "not selected"), (chosen, BLUE, "selected")]
        scatter(axes, x, y, groups, [7, 13] if len(x) > 1000 else [14, 26])
        first, second = content["explained"]
        axes.set(
            xlabel=f"first principal component ({100 * first:.3g}% of the variance)",
            ylabel=f"second ({100 * second:.3g}%)",
        )
        axes.set_aspect("equal", adjustable="datalim")
        legend(axes)
        return to_svg(figure, title)
