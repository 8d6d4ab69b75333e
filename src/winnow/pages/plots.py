"""The report's plots: pure functions from numbers to SVG text. The same numbers give the same bytes.

Data that cannot be drawn (no score at all, no metric) gives an SVG that says so.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from winnow.pages.card import show_number
from winnow.pages.svg import (
    AMBER,
    BLUE,
    GREY,
    GRID,
    INK,
    RED,
    height_for,
    legend,
    message,
    new_figure,
    new_panels,
    scatter,
    to_svg,
)


def score_histogram(
    scores: Sequence[float | None],
    selected: Sequence[bool] | None = None,
    cut: float | None = None,
    name: str = "score",
    filtered: Sequence[bool] | None = None,
    limits: Mapping[str, float] | None = None,
) -> str:
    """Histogram of the scores that are not null: selected records in blue, those that a filter took out in amber, the
    cut and the limits of filters on the score as lines. When a few scores lie far out, they are counted in the
    outermost bars and the axis says so. selected and filtered are aligned with the scores; selected is None before
    selection. limits: {what the line is: score}."""
    values, chosen = _valid(scores, selected)
    _, out = _valid(scores, filtered)
    title = "Distribution of the scores"
    if not len(values):
        return message(title, "No record has a score.")
    lines = [] if cut is None else [(cut, f"cut at {show_number(cut)}", RED)]
    lines += [(value, words, AMBER) for words, value in (limits or {}).items()]
    low, high, outside = _range(values, [value for value, _, _ in lines])
    shown = np.clip(values, low, high)
    width = (high - low) / np.clip(round(2 * np.sqrt(len(shown))), 10, 60)
    # Bars begin at the cut, so that none mixes its two sides where high scores are wanted.
    start = low if cut is None else cut - width * np.ceil((cut - low) / width)
    bins = start + width * np.arange(np.ceil((high - start) / width) + 1)
    bins[-1] = max(bins[-1], high)
    parts = [
        (mask, colour, f"{words} ({mask.sum():,})")
        for mask, colour, words in (
            (chosen, BLUE, "selected"),
            (~chosen & ~out, GREY, "scored" if selected is None else "not selected"),
            (out & ~chosen, AMBER, "filtered"),
        )
        if mask.any()
    ]
    with new_figure(height_for([""] * (len(parts) + len(lines)), 2.8)) as (figure, axes):
        masks, colours, labels = zip(*parts, strict=True)
        counts, edges, bars = axes.hist(
            [shown[mask] for mask in masks], bins, stacked=True, color=list(colours), label=list(labels)
        )
        for value, words, colour in lines:
            axes.axvline(value, color=colour, linestyle="--", linewidth=1.5, label=words)
        edge = f"\n({outside:,} farther out, counted in the outermost bars)" if outside else ""
        axes.set(xlabel=name + edge, ylabel="records")
        axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        axes.grid(axis="x", visible=False)
        legend(axes)
        stacks = bars if len(parts) > 1 else [bars]
        tops = np.vstack([np.zeros(len(edges) - 1), np.atleast_2d(counts)])
        titles = [
            (bar, [f"{show_number(float(edges[i]))} to {show_number(float(edges[i + 1]))}: {words}: {number:,.0f}"])
            for stack, words, numbers in zip(stacks, labels, np.diff(tops, axis=0), strict=True)
            for i, (bar, number) in enumerate(zip(stack, numbers, strict=True))
            if number
        ]
        return to_svg(figure, title, titles)


def score_against_length(
    scores: Sequence[float | None],
    lengths: Sequence[int | None],
    selected: Sequence[bool] | None = None,
    name: str = "score",
    filtered: Sequence[bool] | None = None,
    limits: Mapping[str, float] | None = None,
    titles: Sequence[str] | None = None,
) -> str:
    """Score against answer length in tokens (log axis), selected records in blue, those that a filter took out in amber
    and the filters' limits as lines, with the median score in ten groups of equal size by length when there are 100
    records or more. All sequences are aligned. titles: of the points."""
    title = "Score against answer length"
    known = [score if length else None for score, length in zip(scores, lengths, strict=True)]
    values, chosen = _valid(known, selected)
    _, out = _valid(known, filtered)
    tokens = np.array([length for score, length in zip(known, lengths, strict=True) if score is not None], dtype=float)
    if not len(values):
        return message(title, "No record has both a score and an answer length.")
    low, high, outside = _range(values, list((limits or {}).values()))
    names = titles and [one for score, one in zip(known, titles, strict=True) if score is not None]
    with new_figure(height_for([""] * 5, 2.8)) as (figure, axes):
        groups = [
            (~chosen & ~out, GREY, "scored" if selected is None else "not selected"),
            (out & ~chosen, AMBER, "filtered"),
            (chosen, BLUE, "selected"),
        ]
        size = 14 if len(values) <= 1000 else 6
        drawn = scatter(axes, tokens, np.clip(values, low, high), groups, [size] * 3, names)
        for words, value in (limits or {}).items():
            axes.axhline(value, color=AMBER, linestyle="--", linewidth=1.5, label=words)
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
        axes.set(xlabel="answer length (tokens)", ylabel=name + edge)
        legend(axes)
        return to_svg(figure, title, drawn)


def unit(metric: str) -> str:
    """The unit of `<task>/<metric>`, for an axis."""
    name = metric.rpartition("/")[2].split(",")[0].split("@")[0]
    if re.fullmatch(r"(.*_)?acc(_norm)?|exact_match|pass", name):
        return "share of items right"
    return name.replace("_", " ").replace("f1", "F1")


def base_against_tuned(models: Mapping[str, Mapping[str, Any]], metrics: Sequence[str]) -> str:
    """A row per metric, in their order, with the base model's value (grey, open) and the tuned model's (blue, filled)
    and one standard error to either side. Neighbours with the same unit and direction share an axis. `models` is
    `results.json`'s: name -> {"metrics": {metric: {"value", "stderr", "higher_is_better"}}}; one of the two models may
    be missing."""
    title = "Base against tuned (bars: one standard error)"
    tables = {name: models[name]["metrics"] for name in ("base", "tuned") if name in models}
    metrics = [metric for metric in metrics if any(_value(table, metric) is not None for table in tables.values())]
    low = {
        metric: not next(table[metric]["higher_is_better"] for table in tables.values() if metric in table)
        for metric in metrics
    }
    panels = [list(same) for _, same in groupby(metrics, lambda metric: (low[metric], unit(metric)))]
    if not panels:
        return message(title, "There is no metric to compare.")
    heights = [len(panel) + 1.2 for panel in panels]
    titles = []
    with new_panels(0.8 + 0.36 * sum(heights), heights) as (figure, rows):
        for axes, panel in zip(rows, panels, strict=True):
            for place, metric in enumerate(panel):
                ends = [value for table in tables.values() if (value := _value(table, metric)) is not None]
                axes.plot(ends, [place] * len(ends), color=GRID, linewidth=2.5, zorder=1)
                for model, colour, shift in (("base", GREY, -0.13), ("tuned", BLUE, 0.13)):
                    if (value := _value(tables.get(model, {}), metric)) is not None:
                        error = tables[model][metric].get("stderr") or 0
                        line, _, _ = axes.errorbar(
                            value,
                            place + shift,
                            xerr=error,
                            fmt="o",
                            color=colour,
                            markerfacecolor="none" if model == "base" else colour,
                            markersize=6,
                            elinewidth=1.6,
                            label=model if place == 0 else None,
                        )
                        titles.append((line, [f"{metric}, {model}: {show_number(value)} ± {error:.2g}"]))
            axes.set_yticks(range(len(panel)), panel)
            axes.set_ylim(len(panel) - 0.4, -0.6)
            axes.margins(x=0.12)
            axes.grid(axis="y", visible=False)
            axes.set_xlabel(f"{unit(panel[0])} ({'lower' if low[panel[0]] else 'higher'} is better)")
        legend(rows[0])
        return to_svg(figure, title, titles)


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
    with new_figure(3.0) as (figure, axes):
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
        axes.set(xlabel="optimiser step", ylabel="loss (nats per answer token)")
        legend(axes)
        return to_svg(figure, title)


def detection_bars(detection: Mapping[str, Any]) -> str:
    """AUC of each kind of planted defect as a bar from chance (0.5): to the right the method ranks clean
    records above defective ones, to the left below. `detection` is detection.json's content."""
    title = "A clean record outranks a defective one"
    overall = detection["overall"]
    rows = [("all kinds", overall["auc"], overall["n_defect"])]
    kinds = [(kind.replace("_", " "), one["auc"], one["n"]) for kind, one in detection["by_kind"].items()]
    rows += sorted(kinds, key=lambda row: -1 if row[1] is None else row[1], reverse=True)
    rows = [row for row in rows if row[1] is not None]
    if not rows:
        return message(title, "The pool needs clean and defective records for this.")
    with new_figure(0.9 + 0.34 * len(rows)) as (figure, axes):
        for place, (_, auc, count) in enumerate(rows):
            axes.barh(place, auc - 0.5, left=0.5, height=0.62, color=BLUE if auc >= 0.5 else RED)
            inward = {"x": auc + 0.008, "ha": "left"} if auc >= 0.5 else {"x": auc - 0.008, "ha": "right"}
            axes.text(y=place, s=f"{auc:.2f}  (n = {count:,})", va="center", **inward)
        axes.axvline(0.5, color=INK, linewidth=1)
        axes.set_yticks(range(len(rows)), [row[0] for row in rows])
        axes.get_yticklabels()[0].set_fontweight("bold")
        axes.set(xlabel="AUC (0.5: by chance; 1: always)", xlim=(-0.02, 1.3))
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


def _range(values: np.ndarray, lines: Sequence[float]) -> tuple[float, float, int]:
    """Axis limits that hold the lines, and the number of values beyond them. An end of the axis that would lie farther
    from the inner 99% of the values than these are wide is drawn in to them."""
    low, high = float(values.min()), float(values.max())
    inner_low = float(np.quantile(values, 0.005, method="higher"))
    inner_high = float(np.quantile(values, 0.995, method="lower"))
    width = inner_high - inner_low
    if width > 0:
        low = inner_low if inner_low - low > width else low
        high = inner_high if high - inner_high > width else high
    low, high = min(low, *lines, low), max(high, *lines, high)
    if low == high:
        margin = 0.05 * abs(low) or 0.5
        low, high = low - margin, high + margin
    return low, high, int(((values < low) | (values > high)).sum())
