"""The robustness table and its curves."""

from __future__ import annotations

import pytest

from winnow.pages.robustness import robustness_curves, robustness_table


def entry(value: float, stderr: float | None = 0.1) -> dict:
    return {"value": value, "stderr": stderr, "n": 4, "higher_is_better": True}


BASE = {
    "sst2/clean/micro_f1": entry(0.5),
    "sst2/clean/unreadable": entry(0.2),
    "sst2/replacement@0.1/micro_f1": entry(0.4, None),
    "sst2/replacement@0.3/micro_f1": entry(0.2),
    "sst2/opposite/micro_f1": entry(0.1),
    "sst2/my-swap2@0.3/micro_f1": entry(0.3),
    "average/sst2/noisy": entry(0.2333),
    "arc_easy/acc": entry(0.3),
}
RESULTS = {
    "models": {
        "base": {"metrics": BASE},
        "tuned": {"metrics": {key: entry(one["value"] + 0.25) for key, one in BASE.items()}},
    }
}


def test_table():
    """Averages and other tasks are no conditions."""
    rows = robustness_table(RESULTS)
    assert [(row["dataset"], row["noise"], row["omega"]) for row in rows] == [
        ("sst2", "clean", None),
        ("sst2", "replacement", 0.1),
        ("sst2", "replacement", 0.3),
        ("sst2", "opposite", None),
        ("sst2", "my-swap2", 0.3),
    ]
    assert rows[1]["base"] == {"value": 0.4, "stderr": None}
    assert rows[1]["tuned"]["value"] == pytest.approx(0.65) and rows[3]["base"]["value"] == 0.1


def test_results_without_noise_have_no_table():
    assert robustness_table({"models": {"base": {"metrics": {"arc_easy/acc": entry(0.3)}}}}) == []


def test_curves():
    """One label for each noise, the same bytes each time; without noise a sentence."""
    svg = robustness_curves(RESULTS, "sst2", "tuned")
    assert svg == robustness_curves(RESULTS, "sst2", "tuned")
    assert svg.startswith("<svg") and all(word in svg for word in ("clean (0.750)", "replacement", "opposite (0.350)"))
    assert "There are no results under noise." in robustness_curves(RESULTS, "lap14", "base")
