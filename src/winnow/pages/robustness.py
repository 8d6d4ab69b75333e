"""Robustness under noised instructions: curves from the content of `results.json`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import cycle
from typing import Any

from matplotlib.ticker import FuncFormatter

from winnow.pages.svg import AMBER, BLUE, GREY, INK, RED, legend, new_figure, to_svg

_KEY = re.compile(r"(?!average/)([^/]+)/([^/@]+)(?:@([\d.]+))?/micro_f1")  # data set, noise, omega
_LOOKS = ((BLUE, "-"), (RED, "-"), (AMBER, "-"), (GREY, "-"), (BLUE, "--"), (RED, "--"), (AMBER, "--"))


def robustness_curves(results: Mapping[str, Any]) -> list[str]:
    """A plot for each data set with noised instructions and each model; none for other results."""
    found: dict[str, dict[str, dict[str, list]]] = {}  # data set -> model -> noise -> (omega, entry) of each condition
    for model, result in results["models"].items():
        for key, entry in result["metrics"].items():
            if match := _KEY.fullmatch(key):
                dataset, noise, omega = match.groups()
                points = found.setdefault(dataset, {}).setdefault(model, {}).setdefault(noise, [])
                points.append((omega and float(omega), entry))
    return [
        _curves(f"{dataset} under noised instructions, {model} model", noises)
        for dataset, models in found.items()
        for model, noises in models.items()
        if len(noises) > 1
    ]


def _curves(title: str, noises: Mapping[str, list]) -> str:
    """Micro-F1 against omega, with one standard error: a line for each noise, dotted for a noise without omega; the
    clean value at omega 0 and as a thin line."""
    clean = noises["clean"][0][1]
    others = [(noise, points) for noise, points in noises.items() if noise != "clean"]
    with new_figure(3.8) as (figure, axes):
        axes.axhline(clean["value"], color=INK, linewidth=0.8, label=f"clean ({clean['value']:.3f})")
        for (noise, points), (colour, line) in zip(others, cycle(_LOOKS), strict=False):
            if points[0][0] is None:
                value = points[0][1]["value"]
                axes.axhline(value, color=colour, linestyle=":", linewidth=1.6, label=f"{noise} ({value:.3f})")
                continue
            points = [(0.0, clean), *sorted(points, key=lambda point: point[0])]
            axes.errorbar(
                [omega for omega, _ in points],
                [entry["value"] for _, entry in points],
                [entry["stderr"] or 0.0 for _, entry in points],
                color=colour,
                linestyle=line,
                marker="o",
                markersize=3.5,
                linewidth=1.5,
                elinewidth=0.7,
                label=noise,
            )
        axes.set(xlabel="omega, share of noised words", ylabel="micro f1")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        legend(axes)
        return to_svg(figure, title)
