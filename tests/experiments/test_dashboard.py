"""The numbers of the dashboard, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from experiments.run_folders import run_folder

from winnow.experiments.dashboard import content, jaccard, read_runs, spearman, write_dashboard


@pytest.fixture
def folder(tmp_path):
    """Three runs on one pool: a and b select {0, 1, 2} and {1, 2, 3}; c, where low is wanted, {0, 1}."""
    run_folder(
        tmp_path / "a",
        scores=[4.0, 3.0, 2.0, 1.0],
        selected=[0, 1, 2],
        metrics={"t/acc": 0.6},
        base={"t/acc": 0.5},
        seconds={"score": (3.0, "computed"), "select": (1.0, "computed")},
    )
    run_folder(
        tmp_path / "b",
        choices={"method": "ifd"},
        scores=[4.0, 3.0, 1.0, 2.0],
        selected=[1, 2, 3],
        metrics={"t/acc": 0.7},
        base={"t/acc": 0.5},
        seconds={"score": (9.0, "reused")},
    )
    run_folder(tmp_path / "c", choices={"method": "noise"}, scores=[1.0, 2.0, 3.0, None], selected=[0, 1])
    run_folder(tmp_path / "d", status="failed", error="no")
    return tmp_path


def test_jaccard_by_hand(folder):
    """|{1, 2}| / |{0, 1, 2, 3}| = 1/2; |{0, 1}| / |{0, 1, 2}| = 2/3; |{1}| / |{0, 1, 2, 3}| = 1/4."""
    wanted = [[1, 1 / 2, 2 / 3], [1 / 2, 1, 1 / 4], [2 / 3, 1 / 4, 1]]
    assert np.allclose(jaccard(read_runs(folder)), wanted)


def test_other_pools_are_not_compared(folder):
    runs = read_runs(folder)
    runs[0].fingerprint = "another"
    assert np.isnan(jaccard(runs)[0, 1]) and jaccard(runs)[1, 2] == 1 / 4


def test_spearman_by_hand(folder):
    """Ranks 4 3 2 1 and 4 3 1 2: 1 - 6 (1 + 1) / (4 * 15) = 0.8. c is turned (low is wanted) and has three scores, 1
    2 3 against a's 4 3 2: both fall, so 1; against b's 4 3 1: 1 as well."""
    assert np.allclose(spearman(read_runs(folder)), [[1, 0.8, 1], [0.8, 1, 1], [1, 1, 1]])


def test_constant_scores_have_no_rank(folder):
    runs = read_runs(folder)
    runs[0].scores = dict.fromkeys(runs[0].scores, 1.0)
    assert math.isnan(spearman(runs)[0, 1])


def test_leaderboard_order_and_cost(folder):
    """0.7 before 0.6 before the run that was not evaluated; the failed run is not there; cost is 3 + 1 s, or unknown
    where the pass came from the store."""
    page = content(read_runs(folder), folder)
    assert [run.name for run in page["runs"]] == ["b", "a", "c"] and page["best"] == {"t/acc": 0.7}
    assert page["total"] == {"a": 4.0, "b": 0, "c": 0}
    assert [run.ratio for run in page["runs"]] == [0.75, 0.75, 0.5]


def test_the_page_stands_alone(folder):
    page = write_dashboard(folder).read_text()
    assert "<script" not in page and 'src="http' not in page and "url(http" not in page and page.count("<svg") == 5
    assert "0.80" in page and "0.67" in page
