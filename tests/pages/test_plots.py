"""The report's plots: well-formed and labelled, also with degenerate data."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from winnow.pages import plots

CURVE = [{"step": i, "loss": 2.0 - i / 100, "lr": 1e-4} for i in range(1, 61)]
MODEL = {"metrics": {"a/acc": {"value": 0.5, "stderr": 0.1, "n": 9, "higher_is_better": True}}}
DRAWN = {
    "histogram, nothing": (lambda: plots.score_histogram([]), "No record has a score."),
    "histogram, all null": (lambda: plots.score_histogram([None, None], [False, False]), "No record has a score."),
    "histogram, one": (lambda: plots.score_histogram([0.5], [True], 0.5), "selected (1)"),
    "histogram, all equal": (lambda: plots.score_histogram([2.0] * 9, [True] * 9, None), "selected (9)"),
    "histogram, unselected": (lambda: plots.score_histogram([1.0, 2.0, None]), "scored (2)"),
    "length, all null": (lambda: plots.score_against_length([None], [3]), "No record has both"),
    "length, zero": (lambda: plots.score_against_length([1.0], [0]), "No record has both"),
    "length, one": (lambda: plots.score_against_length([1.0], [1], [True]), "selected (1)"),
    "length, all equal": (lambda: plots.score_against_length([1.0] * 200, [7] * 200), "median by length"),
    "length, many": (
        lambda: plots.score_against_length([i / 7 for i in range(4000)], range(1, 4001)),
        "scored (4,000)",
    ),
    "metrics, none": (lambda: plots.base_against_tuned({}, []), "no metric"),
    "metrics, base only": (lambda: plots.base_against_tuned({"base": MODEL}, ["a/acc"]), "a/acc"),
    "metrics, null": (
        lambda: plots.base_against_tuned({"base": {"metrics": {"a/acc": {"value": None}}}}, ["a/acc"]),
        "no metric",
    ),
    "training, none": (lambda: plots.training_curve([]), "No loss"),
    "training, one step": (lambda: plots.training_curve([{"step": 1, "loss": 2.0}]), "optimiser step"),
    "training, smooth": (lambda: plots.training_curve(CURVE), "mean of 6 steps"),
    "defects, one class": (
        lambda: plots.detection_bars({"overall": {"auc": None, "n_defect": 0, "n_clean": 4}, "by_kind": {}}),
        "needs",
    ),
    "defects, certain": (
        lambda: plots.detection_bars({"overall": {"auc": 1.0, "n_defect": 2, "n_clean": 4}, "by_kind": {}}),
        "1.00",
    ),
}


@pytest.mark.parametrize("case", DRAWN)
def test_plots_of_degenerate_data(case: str) -> None:
    """Every plot is well-formed SVG, labelled for screen readers, holds its legend or reason as text, and has
    no id that could clash with another plot's."""
    draw, expected = DRAWN[case]
    svg = draw()
    root = ElementTree.fromstring(svg)
    assert root.tag.endswith("svg") and root.get("role") == "img" and root.get("aria-label")
    assert "width" not in root.attrib and root.get("viewBox")
    assert expected in " ".join(root.itertext())
    assert not re.search(r"<g [^>]*id=", svg)
    assert not re.search(r"\bnan\b", svg)


def test_far_outliers_are_counted_not_lost() -> None:
    """Scores 0 to 1 in steps of 0.01 and one of 1000: an axis to 1000 would show a single bar. The inner 99%
    is about 1 wide and 1000 lies farther away than that, 0 does not: one value is beyond the axis. With 1.5
    in its place none is."""
    scores = [i / 100 for i in range(101)]
    assert "1 farther out, counted in the outermost bars" in plots.score_histogram([*scores, 1000.0])
    assert "farther out" not in plots.score_histogram([*scores, 1.5])


def test_what_a_filter_took_is_drawn() -> None:
    """Of four scores the filter `at most 1` took one and two are selected: three groups in the legend, the limit as a
    line in both plots, and a title for each bar and point."""
    scores, selected, filtered = [0.5, 0.9, 1.0, 1.4], [False, True, True, False], [False, False, False, True]
    shown = {"filtered": filtered, "limits": {"filter: max 1": 1.0}}
    points = plots.score_against_length(scores, [1, 2, 3, 4], selected, titles=["a", "b", "c", "d"], **shown)
    for svg in (plots.score_histogram(scores, selected, 0.9, **shown), points):
        for words in ("selected (2)", "not selected (1)", "filtered (1)", "filter: max 1"):
            assert svg.count(f">{words}<") == 1
    assert [one.text for one in ElementTree.fromstring(points).iter("{http://www.w3.org/2000/svg}title")] == list(
        "adbc"
    )


def test_metrics_keep_their_order_and_share_an_axis_with_neighbours_of_their_unit() -> None:
    """acc, bits, acc_norm: three axes, as the second stands between; acc, acc_norm, bits: two."""
    names = ("a/acc", "b/bits_per_byte", "c/acc_norm")
    model = {"metrics": {name: {"value": 0.5, "higher_is_better": "bits" not in name} for name in names}}
    for order, axes in (("abc", 3), ("acb", 2)):
        svg = plots.base_against_tuned({"base": model}, sorted(model["metrics"], key=lambda name: order.index(name[0])))
        assert svg.count("is better)<") == axes
        assert svg.index(">a/acc<") < svg.index(">b/bits" if order == "abc" else ">c/acc")
