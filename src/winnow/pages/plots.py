"""The report's plots: pure functions from numbers to SVG text. The same numbers give the same bytes.

Data that cannot be drawn (no score at all, no metric) gives an SVG that says so.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from winnow.pages.card import show_number
from winnow.pages.svg import AMBER, BLUE, GREY, GRID, INK, RED, STYLE, WIDTH, message, new_figure, scatter, to_svg

LOWER_IS_BETTER = re.compile(r"bits_per_byte|perplexity|(^|[/_])(loss|nll|bpb|ppl)([,_/]|$)")


def lower_is_better(metric: str, entry: Mapping[str, Any] | None) -> bool:
    """Whether a smaller value of `<task>/<metric>` is the better one: what its entry in results.json says, or, for
    results that do not say, its name (losses, perplexities, bits per byte)."""
    if entry is not None and entry.get("higher_is_better") is not None:
        return not entry["higher_is_better"]
    return LOWER_IS_BETTER.search(metric.lower()) is not None


def score_histogram(
    scores: Sequence[float | None],
    selected: Sequence[bool] | None = None,
    cut: float | None = None,
    name: str = "score",
) -> str:
    """Histogram of the scores that are not null, the selected part in blue and the cut as a line. When a few
    scores lie far out, they are counted in the outermost bars and the axis says so. `selected` is aligned
    with `scores`; None before selection."""
    values, chosen = _valid(scores, selected)
    title = "Distribution of the scores"
    if not len(values):
        return message(title, "No record has a score.")
    low, high, outside = _range(values, cut)
    shown = np.clip(values, low, high)
    width = (high - low) / np.clip(round(2 * np.sqrt(len(shown))), 10, 60)
    # Bars begin at the cut, so that no bar mixes the two sides of it.
    start = low if cut is None else cut - width * np.ceil((cut - low) / width)
    bins = start + width * np.arange(np.ceil((high - start) / width) + 1)
    bins[-1] = max(bins[-1], high)
    with matplotlib.rc_context(STYLE):
        figure, axes = new_figure(3.4)
        if selected is None:
            axes.hist(shown, bins, color=GREY, label=f"scored ({len(values):,})")
        else:
            axes.hist(
                [shown[chosen], shown[~chosen]],
                bins,
                stacked=True,
                color=[BLUE, GREY],
                label=[f"selected ({chosen.sum():,})", f"not selected ({(~chosen).sum():,})"],
            )
        if cut is not None:
            axes.axvline(cut, color=RED, linestyle="--", linewidth=1.5, label=f"cut at {show_number(cut)}")
        edge = f"; {outside:,} farther out, counted in the outermost bars" if outside else ""
        axes.set(title=title, xlabel=name + edge, ylabel="records")
        axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        axes.grid(axis="x", visible=False)
        axes.legend()
        return to_svg(figure, title)


def score_against_length(
    scores: Sequence[float | None],
    lengths: Sequence[int | None],
    selected: Sequence[bool] | None = None,
    name: str = "score",
) -> str:
    """Score against answer length in tokens (log axis), selected records in blue, with the median score in
    ten groups of equal size by length when there are 100 records or more. The three sequences are aligned."""
    title = "Score against answer length"
    known = [score if length else None for score, length in zip(scores, lengths, strict=True)]
    values, chosen = _valid(known, selected)
    tokens = np.array([length for score, length in zip(known, lengths, strict=True) if score is not None], dtype=float)
    if not len(values):
        return message(title, "No record has both a score and an answer length.")
    low, high, outside = _range(values, None)
    with matplotlib.rc_context(STYLE):
        figure, axes = new_figure(3.8)
        groups = [(~chosen, GREY, "scored" if selected is None else "not selected"), (chosen, BLUE, "selected")]
        scatter(axes, tokens, np.clip(values, low, high), groups, [14 if len(values) <= 1000 else 6] * 2)
        if len(values) >= 100:
            groups = np.array_split(np.argsort(tokens, kind="stable"), 10)
            middle = [(np.median(tokens[group]), np.median(values[group])) for group in groups]
            axes.plot(*zip(*middle, strict=True), color=INK, linewidth=1.4, label="median by length")
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_locator(NullLocator())
        if tokens.min() == tokens.max():  # a log axis cannot choose limits for one value
            axes.set_xlim(tokens[0] / 2, tokens[0] * 2)
        edge = f"\n({outside:,} farther out, drawn at the edge)" if outside else ""
        axes.set(title=title, xlabel="answer length (tokens)", ylabel=name + edge)
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1))
        return to_svg(figure, title)


def base_against_tuned(models: Mapping[str, Mapping[str, Any]], metrics: Sequence[str]) -> str:
    """A row per metric with the base model's value (grey, open) and the tuned model's (blue, filled) and one
    standard error to either side. Metrics where more is better share an axis; every other one has its own.
    `models` is `results.json`'s: name -> {"metrics": {metric: {"value", "stderr"}}}; one of the two models
    may be missing."""
    title = "Base against tuned"
    tables = {name: models[name]["metrics"] for name in ("base", "tuned") if name in models}
    metrics = [metric for metric in metrics if any(_value(table, metric) is not None for table in tables.values())]
    low = {
        metric: lower_is_better(metric, next(table[metric] for table in tables.values() if metric in table))
        for metric in metrics
    }
    panels = [[metric for metric in metrics if not low[metric]]]
    panels = [panel for panel in panels if panel] + [[metric] for metric in metrics if low[metric]]
    if not panels:
        return message(title, "There is no metric to compare.")
    heights = [len(panel) + 1.2 for panel in panels]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 0.6 + 0.36 * sum(heights)))
        rows = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)[:, 0]
        for axes, panel in zip(rows, panels, strict=True):
            for place, metric in enumerate(panel):
                ends = [value for table in tables.values() if (value := _value(table, metric)) is not None]
                axes.plot(ends, [place] * len(ends), color=GRID, linewidth=2.5, zorder=1)
                for model, colour, shift in (("base", GREY, -0.13), ("tuned", BLUE, 0.13)):
                    if (value := _value(tables.get(model, {}), metric)) is not None:
                        axes.errorbar(
                            value,
                            place + shift,
                            xerr=tables[model][metric].get("stderr") or 0,
                            fmt="o",
                            color=colour,
                            markerfacecolor="none" if model == "base" else colour,
                            markersize=6,
                            elinewidth=1.6,
                            label=model if place == 0 else None,
                        )
            axes.set_yticks(range(len(panel)), panel)
            axes.set_ylim(len(panel) - 0.4, -0.6)
            axes.margins(x=0.12)
            axes.grid(axis="y", visible=False)
            axes.set_xlabel("lower is better" if low[panel[0]] else "higher is better")
        rows[0].set_title(f"{title} (bars: one standard error)")
        rows[0].legend(loc="upper left", bbox_to_anchor=(1.01, 1))
        return to_svg(figure, title)


def training_curve(train_loss: Sequence[Mapping[str, float]]) -> str:
    """Training loss by optimiser step, with its running mean over a tenth of the steps when there are 30 or
    more, and the learning rate on a second axis. `train_loss` is tuning.json's list of {"step", "loss",
    "lr"}."""
    title = "Training loss"
    if not train_loss:
        return message(title, "No loss was logged.")
    steps, losses = [point["step"] for point in train_loss], np.array([point["loss"] for point in train_loss], float)
    rates = [point.get("lr") for point in train_loss]
    mark = "o" if len(steps) <= 40 else None
    with matplotlib.rc_context(STYLE):
        figure, axes = new_figure(3.2)
        window = len(steps) // 10
        smooth = window >= 3
        style = {"color": BLUE, "alpha": 0.4 if smooth else 1, "linewidth": 1.2, "marker": mark, "markersize": 3.5}
        axes.plot(steps, losses, label="loss", **style)
        if smooth:
            mean = np.convolve(losses, np.ones(window) / window, mode="valid")
            axes.plot(steps[window - 1 :], mean, color=BLUE, linewidth=2, label=f"mean of {window} steps")
        if any(rate is not None for rate in rates):
            right = axes.twinx()
            right.plot(steps, rates, color=AMBER, linestyle="--", linewidth=1.4)
            axes.plot([], [], color=AMBER, linestyle="--", linewidth=1.4, label="learning rate (right)")
            right.set_ylabel("learning rate")
            right.set_ylim(bottom=0)
            right.ticklabel_format(axis="y", style="sci", scilimits=(-2, 2))
            right.grid(visible=False)
            right.spines["right"].set_visible(True)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set(title=title, xlabel="optimiser step", ylabel="loss (nats per answer token)")
        axes.legend()
        return to_svg(figure, title)


def detection_bars(detection: Mapping[str, Any]) -> str:
    """AUC of each kind of planted defect as a bar from chance (0.5): to the right the method ranks clean
    records above defective ones, to the left below. `detection` is detection.json's content."""
    title = "Planted defects: how often a clean record outranks a defective one"
    overall = detection["overall"]
    rows = [("all kinds", overall["auc"], overall["n_defect"])]
    kinds = [(kind.replace("_", " "), one["auc"], one["n"]) for kind, one in detection["by_kind"].items()]
    rows += sorted(kinds, key=lambda row: -1 if row[1] is None else row[1], reverse=True)
    rows = [row for row in rows if row[1] is not None]
    if not rows:
        return message(title, "The pool needs clean and defective records for this.")
    with matplotlib.rc_context(STYLE):
        figure, axes = new_figure(0.9 + 0.34 * len(rows))
        for place, (_, auc, count) in enumerate(rows):
            axes.barh(place, auc - 0.5, left=0.5, height=0.62, color=BLUE if auc >= 0.5 else RED)
            inward = {"x": auc + 0.008, "ha": "left"} if auc >= 0.5 else {"x": auc - 0.008, "ha": "right"}
            axes.text(y=place, s=f"{auc:.2f}  (n = {count:,})", va="center", **inward)
        axes.axvline(0.5, color=INK, linewidth=1)
        axes.set_yticks(range(len(rows)), [row[0] for row in rows])
        axes.get_yticklabels()[0].set_fontweight("bold")
        axes.set(
            title=title,
            xlabel="AUC (0.5 = chance, 1 = every clean record outranks every defective one)",
            xlim=(-0.02, 1.14),
        )
        axes.set_xticks(np.linspace(0, 1, 6))
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.grid(axis="y", visible=False)
        return to_svg(figure, title)


def _value(table: Mapping[str, Mapping[str, Any]], metric: str) -> float | None:
    return table[metric]["value"] if metric in table else None


def _valid(scores: Sequence[float | None], selected: Sequence[bool] | None) -> tuple[np.ndarray, np.ndarray]:
    """The non-null scores and, aligned, whether each is selected."""
    flags = [False] * len(scores) if selected is None else selected
    pairs = [(score, flag) for score, flag in zip(scores, flags, strict=True) if score is not None]
    return np.array([score for score, _ in pairs], dtype=float), np.array([flag for _, flag in pairs], dtype=bool)


def _range(values: np.ndarray, cut: float | None) -> tuple[float, float, int]:
    """Axis limits and the number of values beyond them. An end of the axis that would lie farther from the
    inner 99% of the values than these are wide is drawn in to them."""
    low, high = float(values.min()), float(values.max())
    inner_low = float(np.quantile(values, 0.005, method="higher"))
    inner_high = float(np.quantile(values, 0.995, method="lower"))
    width = inner_high - inner_low
    if width > 0:
        low = inner_low if inner_low - low > width else low
        high = inner_high if high - inner_high > width else high
    if cut is not None:
        low, high = min(low, cut), max(high, cut)
    if low == high:
        margin = 0.05 * abs(low) or 0.5
        low, high = low - margin, high + margin
    return low, high, int(((values < low) | (values > high)).sum())
