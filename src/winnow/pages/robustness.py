"""Robustness under noised instructions: a table and curves from the content of `results.json`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from matplotlib.ticker import FuncFormatter

from winnow.pages.svg import AMBER, BLUE, GREY, INK, RED, legend, message, new_figure, to_svg

_KEY = re.compile(r"(?P<dataset>[^/]+)/(?P<noise>[^/@]+)(?:@(?P<omega>[\d.]+))?/(?P<metric>[a-z0-9_]+)")
_CLEAN = "clean"
_LOOKS = ((BLUE, "-"), (RED, "-"), (AMBER, "-"), (GREY, "-"), (BLUE, "--"), (RED, "--"), (AMBER, "--"))


def robustness_table(results: Mapping[str, Any], metric: str = "micro_f1") -> list[dict[str, Any]]:
    """One row for each data set, noise and omega of results.json, in its order.

    Keys: dataset, noise (`clean` first), omega (None where there is none), and for each model a mapping of value and
    stderr. [] for results without noised conditions.
    """
    models = {name: model["metrics"] for name, model in results["models"].items()}
    rows: dict[str, dict[str, Any]] = {}
    for name, metrics in models.items():
        for key, entry in metrics.items():
            match = None if key.startswith("average/") else _KEY.fullmatch(key)
            if match is None or match["metric"] != metric:
                continue
            omega = None if match["omega"] is None else float(match["omega"])
            row = rows.setdefault(key, {"dataset": match["dataset"], "noise": match["noise"], "omega": omega})
            row[name] = {"value": entry["value"], "stderr": entry["stderr"]}
    return list(rows.values())


def robustness_curves(results: Mapping[str, Any], dataset: str, model: str, metric: str = "micro_f1") -> str:
    """SVG of `metric` against omega, with one standard error: a line for each noise, dotted for a noise without omega;
    the clean value at omega 0 and as a thin line."""
    title = f"{dataset} under noised instructions, {model} model"
    rows = [row for row in robustness_table(results, metric) if row["dataset"] == dataset and model in row]
    noises = list(dict.fromkeys(row["noise"] for row in rows if row["noise"] != _CLEAN))
    if not noises:
        return message(title, "There are no results under noise.")
    clean = next(row[model] for row in rows if row["noise"] == _CLEAN)
    with new_figure(3.8) as (figure, axes):
        axes.axhline(clean["value"], color=INK, linewidth=0.8, label=f"clean ({clean['value']:.3f})")
        for i, noise in enumerate(noises):
            colour, line = _LOOKS[i % len(_LOOKS)]
            points = [(row["omega"], row[model]) for row in rows if row["noise"] == noise]
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
        axes.set(xlabel="omega, share of noised words", ylabel=metric.replace("_", " "))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        legend(axes)
        return to_svg(figure, title)
