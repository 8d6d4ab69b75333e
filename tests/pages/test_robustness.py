"""The curves of robustness."""

from __future__ import annotations

import pytest

from winnow.pages import robustness
from winnow.pages.robustness import robustness_curves


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


def test_conditions(monkeypatch):
    """Averages and other tasks are no conditions."""
    monkeypatch.setattr(robustness, "_curves", lambda *drawn: drawn)
    (title, base), (_, tuned) = robustness_curves(RESULTS)
    assert title == "sst2 under noised instructions, base model"
    assert [(noise, omega) for noise, points in base.items() for omega, _ in points] == [
        ("clean", None),
        ("replacement", 0.1),
        ("replacement", 0.3),
        ("opposite", None),
        ("my-swap2", 0.3),
    ]
    assert base["replacement"][0][1] == entry(0.4, None) and base["opposite"][0][1]["value"] == 0.1
    assert tuned["replacement"][0][1]["value"] == pytest.approx(0.65)


@pytest.mark.parametrize("key", ["arc_easy/acc", "sst2/micro_f1", "sst2/clean/micro_f1"])
def test_results_without_noise_have_no_curves(key):
    assert robustness_curves({"models": {"base": {"metrics": {key: entry(0.3)}}}}) == []


def test_curves():
    """A plot for each model, with one label for each noise, the same bytes each time."""
    base, tuned = robustness_curves(RESULTS)
    assert [base, tuned] == robustness_curves(RESULTS)
    assert base.startswith("<svg") and "clean (0.500)" in base and "base model" in base
    assert all(word in tuned for word in ("clean (0.750)", "replacement", "opposite (0.350)", "tuned model"))
