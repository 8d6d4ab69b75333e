"""The linear datamodelling test: its statistic by hand, and the command on run folders."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
from run_folders import run_folder

from winnow.commands import lds as command
from winnow.compare.lds import DRAWS, correlation, lds, subset_means
from winnow.compare.runs import read_runs
from winnow.errors import UserError

KEY = "t/score"
RECORDS = 30
WORTH = np.random.default_rng(0).normal(size=RECORDS).tolist()


def test_spearman_by_hand():
    """Ranks 1 2 3 4 5 and 2 1 3 5 4: d = -1 1 0 -1 1, so rho = 1 - 6 * 4 / (5 * 24) = 0.8. An outlier is one rank."""
    found = correlation(np.array([1.0, 2.0, 3.0, 4.0, 500.0]), np.array([0.2, 0.1, 0.3, 0.5, 0.4]))
    assert found["rho"] == pytest.approx(0.8) and -1 <= found["low"] < 0.8 < found["high"] <= 1


def test_the_interval_of_a_perfect_order_is_a_point():
    """Every resample of subsets in one order has rho 1, in the opposite order -1."""
    x = np.arange(12.0)
    assert [(one["rho"], one["low"], one["high"]) for one in (correlation(x, x**3), correlation(x, -x))] == [
        pytest.approx((1, 1, 1)),
        pytest.approx((-1, -1, -1)),
    ]
    assert correlation(x, np.ones(12)) is None


def test_the_interval_holds_the_truth_as_often_as_it_says(monkeypatch):
    """200 pairs of samples of 40 with the Pearson correlation 0.5, whose Spearman correlation is 6 / pi * asin(0.25) =
    0.4826: 95% of the intervals hold it, a little less for the percentiles of a bootstrap; the standard error is
    sqrt(0.95 * 0.05 / 200) = 0.0154. A sixth of the resamples does."""
    monkeypatch.setattr("winnow.compare.lds.DRAWS", DRAWS // 6)
    random, truth = np.random.default_rng(1), 6 / np.pi * np.arcsin(0.25)
    hits = 0
    for _ in range(200):
        x = random.normal(size=40)
        found = correlation(x, 0.5 * x + np.sqrt(0.75) * random.normal(size=40))
        hits += found["low"] <= truth <= found["high"]
    assert 0.90 < hits / 200 < 0.97


def test_a_record_without_a_score_does_not_count():
    """Subset {a, b} has the mean (1 + 2) / 2, {b, c} that of b alone; {c} has none. The score 0 of d is one."""
    scores = {"a": 1.0, "b": 2.0, "d": 0.0}
    assert subset_means(scores, [frozenset("ab"), frozenset("bc"), frozenset("bd")]).tolist() == [1.5, 2.0, 1.0]
    with pytest.raises(UserError, match="no record that has a score"):
        subset_means(scores, [frozenset("c")])


@pytest.fixture
def sweep(tmp_path):
    """24 subsets of 5 of 30 records; a subset's metric is the sum of what its records are worth. ifd's score is the
    cube of the worth, consistency's (low is good) its negative, length's is drawn."""
    random = np.random.default_rng(2)
    for i in range(24):
        chosen = random.choice(RECORDS, 5, replace=False).tolist()
        value = sum(WORTH[one] for one in chosen)
        run_folder(
            tmp_path / f"random-{i}",
            choices={"method": "random"},
            metrics={KEY: value},
            scores=random.uniform(size=RECORDS).tolist(),
            selected=chosen,
            config={"method.seed": i, "selection.count": 5, "tuning.seed": 0},
            table=None,
        )
    scores = {"ifd": [one**3 for one in WORTH], "consistency": [-one for one in WORTH]}
    for method, own in (scores | {"length": random.normal(size=RECORDS).tolist()}).items():
        run_folder(tmp_path / method, choices={"method": method}, scores=own, table=None)
    return tmp_path


def test_a_score_that_is_the_worth_predicts_it(sweep):
    """The mean of the worth is its sum over 5, so that the score with the direction turned ranks all subsets rightly; a
    monotone function of it has the same mean rank as the worth itself; a drawn score is not told from 0."""
    (one,) = lds(read_runs(sweep))["comparisons"]
    found = {row["method"]: row for row in one["methods"]}
    assert (one["metric"], one["subsets"], one["records"]) == (KEY, 24, 5) and next(iter(found)) == "consistency"
    assert found["consistency"]["score"]["rho"] == pytest.approx(1)
    assert 0.5 < found["ifd"]["score"]["rho"] < 1
    assert found["ifd"]["rank"]["rho"] == pytest.approx(found["consistency"]["rank"]["rho"])
    assert found["length"]["score"]["p"] > 0.05 > found["ifd"]["score"]["p"]


def test_p_values_are_holms_over_the_methods(sweep):
    """Consistency's p is 0 and ifd's the next of three, so that it counts twice; length's, the largest, counts once."""
    runs = read_runs(sweep)
    (one,) = lds(runs)["comparisons"]
    found = {row["method"]: row["score"]["p"] for row in one["methods"]}
    random = [run for run in runs if run.method == "random"]
    values = np.array([run.metrics[KEY]["value"] for run in random])
    for method, times in (("ifd", 2), ("length", 1)):
        (scores,) = (run.scores for run in runs if run.method == method)
        single = correlation(subset_means(scores, [run.subset for run in random]), values)["p"]
        assert found[method] == pytest.approx(times * single)


def test_a_metric_of_which_low_is_good(sweep):
    """Losses that are the negative of the values: with the direction turned nothing changes."""
    before = lds(read_runs(sweep))
    for path in sweep.glob("random-*/results.json"):
        results = json.loads(path.read_text())
        metric = results["models"]["tuned"]["metrics"][KEY]
        metric.update(value=-metric["value"], higher_is_better=False)
        path.write_text(json.dumps(results))
    assert lds(read_runs(sweep)) == before


def test_what_is_constant_is_left_out(sweep, tmp_path, capsys):
    """All data has the score 1 for each record: nothing can be correlated with it, and the others stay."""
    before = lds(read_runs(sweep))
    run_folder(tmp_path / "full", choices={"method": "full"}, scores=[1.0] * RECORDS, table=None)
    assert lds(read_runs(sweep)) == before
    assert capsys.readouterr().out == f"Left out, because all subsets have the same value: {KEY}, full.\n"


def test_a_subset_is_one_point(sweep):
    """The first subset again: an earlier run of its seed counts for nothing, one of another seed for the mean, which
    here is the value itself. Points and intervals stay as they are."""
    before = lds(read_runs(sweep))
    first = next(run for run in read_runs(sweep) if run.name == "random-0")
    chosen = [int(one.removeprefix("record ")) for one in first.subset]
    for name, seed, value in (("earlier", 0, 99.0), ("seed", 1, first.metrics[KEY]["value"])):
        run_folder(
            sweep / f"random-{name}",
            seed=seed,
            started="2025-01-01T12:00:00+00:00",
            metrics={KEY: value},
            scores=[0.5] * RECORDS,
            selected=chosen,
            config={"method.seed": 0, "selection.count": 5, "tuning.seed": seed},
            table=None,
        )
    assert lds(read_runs(sweep)) == before


def test_a_subset_counts_with_the_mean_over_its_seeds(sweep):
    """Two seeds with v - 50 and v + 50 are one run with v."""
    runs = read_runs(sweep)
    before = lds(runs)
    first = next(run for run in runs if run.name == "random-0")
    twin, metric = copy.copy(first), first.metrics[KEY]
    first.metrics, twin.metrics = ({KEY: metric | {"value": metric["value"] + far}} for far in (-50, 50))
    twin.seed = 1
    assert lds([*runs, twin]) == before


def test_the_command_writes_what_it_says(sweep, tmp_path, capsys):
    out = tmp_path / "out"
    command([str(sweep), "--out", str(out)])
    assert json.loads((out / "lds.json").read_text())["comparisons"][0]["methods"][0]["method"] == "consistency"
    assert "| consistency | +1.00 | [+1.00, +1.00] |" in (out / "lds.md").read_text()
    assert "24 random subsets of 5 records" in capsys.readouterr().out


def test_bad_requests_are_one_sentence(sweep, tmp_path):
    runs = read_runs(sweep)
    with pytest.raises(UserError, match="5 random subsets are too few: 8 different ones"):
        lds([run for run in runs if run.method != "random"] + [run for run in runs if run.method == "random"][:5])
    others, random = ([run for run in runs if (run.method == "random") == own] for own in (False, True))
    twin = copy.copy(random[0])
    twin.seed = 1
    with pytest.raises(UserError, match="7 random subsets are too few"):  # one of them with two seeds
        lds([*others, *random[:7], twin])
    assert lds([*others, *random[:8]])["comparisons"][0]["subsets"] == 8
    twin.share = "count=6"
    with pytest.raises(UserError, match=r"not made alike \(selection differ\)"):
        lds([*runs, twin])
    with pytest.raises(UserError, match="nothing to correlate: .* experiment=verdict/lds"):
        lds(random)
    for run in others:
        run.fingerprint = "a pool of other records"
    with pytest.raises(UserError, match="nothing to correlate"):
        lds(runs)
    run_folder(
        sweep / "longer",
        metrics={KEY: 1.0},
        scores=[0.5] * RECORDS,
        selected=[0],
        config={"tuning.max_steps": 99, "selection.count": 5},
        table=None,
    )
    with pytest.raises(UserError, match="not made alike .*max_steps"):
        lds(read_runs(sweep))
