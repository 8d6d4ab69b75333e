"""The numbers of the dashboard, by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from run_folders import run_folder

from winnow.compare.dashboard import alike, content, jaccard, read_runs, share_name, spearman, write_dashboard
from winnow.compare.plots import looks
from winnow.errors import UserError
from winnow.pages.report import write_report
from winnow.store.files import write_sum
from winnow.sweeps.summary import note_failure


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
    run_folder(tmp_path / "c", choices={"method": "consistency"}, scores=[1.0, 2.0, 3.0, None], selected=[0, 1])
    run_folder(tmp_path / "d", status="failed", error="no")
    return tmp_path


def test_jaccard_by_hand(folder):
    """|{1, 2}| / |{0, 1, 2, 3}| = 1/2; |{0, 1}| / |{0, 1, 2}| = 2/3; |{1}| / |{0, 1, 2, 3}| = 1/4."""
    wanted = [[1, 1 / 2, 2 / 3], [1 / 2, 1, 1 / 4], [2 / 3, 1 / 4, 1]]
    assert np.allclose(jaccard(read_runs(folder)), wanted)


def test_other_pools_and_suites_are_lists_of_their_own(folder):
    """a is of another pool. Of b and c, which share one, c was not evaluated: it stands with b. a on that pool with
    another limit, is a list of its own again; c then stands with the first of the two."""
    runs = read_runs(folder)
    runs[0].fingerprint = "another"
    assert [[run.name for run in some] for some in alike(runs)] == [["b", "c"], ["a"]]
    runs[0].fingerprint = "f"
    runs[0].results["settings"] = {"limit": 5}
    assert [[run.name for run in some] for some in alike(runs)] == [["a", "c"], ["b"]]
    assert runs[0].suite == "s, 5 items a task"


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
    where the pass came from the store and no ledger says what it took."""
    (found,) = content(read_runs(folder), folder)["lists"]
    rows = {row.runs[0].name: row for row in found["rows"]}
    assert list(rows) == ["b", "a", "c"] and found["best"] == {"t/acc": 0.7}
    assert {name: row.cost for name, row in rows.items()} == {"b": None, "a": 4.0, "c": None}
    assert [row.ratio for row in found["rows"]] == [0.75, 0.75, 0.5]


def test_a_pass_from_the_store_costs_what_its_ledger_says(folder):
    """b took its passes from the store: the card's price of 7 s counts, and 5 s of tuning by another run. An
    evaluation that another run made counts for nothing."""
    card = json.loads((folder / "b" / "run_card.json").read_text())
    for stage in ("tune", "evaluate"):
        card["stages"][stage] = {"seconds": 0.1, "status": "reused", "reused": 1, "resumed": 0}
    (folder / "b" / "run_card.json").write_text(json.dumps(card | {"price": {"seconds": 7.0}}))
    (folder / "b" / "tuning.json").write_text(json.dumps({"steps": 1, "train_loss": [], "seconds": 5.0}))
    run = next(run for run in read_runs(folder) if run.name == "b")
    assert run.cost == 7.0 and run.seconds == {"score": 7.0, "select": 0.0, "tune": 5.0}


def test_seeds_are_one_row_that_leads_to_their_reports(tmp_path):
    """Two seeds at 10%, 0.4 and 0.6, and one at 30%: rows `ifd, 10%` of 0.5 and `ifd, 30%`, in one colour."""
    for name, ratio, seed, value in (("a", 0.1, 0, 0.4), ("b", 0.1, 1, 0.6), ("c", 0.3, 0, 0.7)):
        path = run_folder(
            tmp_path / name,
            choices={"method": "ifd"},
            config={"selection.ratio": ratio},
            seed=seed,
            metrics={"t/acc": value},
            table=None,
        )
        (path / "report.html").touch()
    page = content(read_runs(tmp_path), tmp_path)
    rows = page["lists"][0]["rows"]
    assert [(row.name, row.values["t/acc"]) for row in rows] == [("ifd, 30%", 0.7), ("ifd, 10%", pytest.approx(0.5))]
    assert page["links"]["b"] == "b/report.html" and list(page["colours"]) == ["ifd"]
    assert [share_name(one) for one in ("count=500", "")] == ["500 records", "all"]


def test_a_budget_of_answer_tokens_says_so(tmp_path):
    """20,000 tokens are no 20,000 records, nor a tenth of the tokens a tenth of the records."""
    for place, (key, value) in enumerate((("count", 20000), ("ratio", 0.1))):
        budget = {f"selection.{key}": value, "selection.budget": "answer_tokens"}
        run_folder(tmp_path / f"{place}", config=budget, table=None)
    assert [share_name(run.share) for run in read_runs(tmp_path)] == ["20000 answer tokens", "10% of the answer tokens"]


def test_a_file_with_another_checksum_is_refused(folder):
    """Dashboard and report read a file whose checksum is right or absent, and none that was changed behind it."""
    for name in ("selection.json", "scores.parquet"):
        file = folder / "a" / name
        before = file.read_bytes()
        write_sum(file)
        assert read_runs(folder)
        file.write_bytes(before + b" ")
        for read in (lambda: read_runs(folder), lambda: write_report(folder / "a")):
            with pytest.raises(UserError, match=f"a/{name} is damaged: {name}.sha256 .* has another checksum"):
                read()
        file.write_bytes(before)


def ifd_and_random(folder: Path, right: int, of: int) -> None:
    """A run of each on as many items; `right` of them are right for ifd alone."""
    for method, side in (("ifd", [1] * right + [0] * (of - right)), ("random", [0] * of)):
        values = {"metrics": {"t/acc": sum(side) / of}, "items": {"tuned": {"t/acc": side}}}
        run_folder(folder / method, choices={"method": method}, table=None, **values)


def test_error_bars_are_the_paired_interval(tmp_path):
    """Ten of 40 items are right for ifd alone: 0.25 more than random, between 0.11 and 0.39 (t(39) = 2.0227 times the
    standard error 0.0693). The bar is as long around the mean, and the point says so."""
    ifd_and_random(tmp_path, right=10, of=40)
    first, second = content(read_runs(tmp_path), tmp_path)["lists"][0]["rows"]
    assert first.error("t/acc") == [[pytest.approx(0.1402, abs=1e-4)], [pytest.approx(0.1402, abs=1e-4)]]
    assert first.title("t/acc") == "ifd, all: 0.25, 1 seed; +0.25 [+0.11, +0.39] against random: win"
    assert second.error("t/acc") is None
    page = write_dashboard(tmp_path).read_text()
    assert "<title>ifd, all: 0.25, 1 seed; +0.25 [+0.11, +0.39] against random: win</title>" in page


def test_an_error_bar_of_a_tie_reaches_to_the_reference(tmp_path, monkeypatch):
    """Five of 20 items are right for ifd alone: by the exact test a tie, p = 2 / 2^5, so that the interval goes down to
    0, 0.25 below the mean. Up it is t(19) = 2.0930 times sqrt(0.25 * 0.75 / 19). The plot's line is at random's 0."""
    ifd_and_random(tmp_path, right=5, of=20)
    lines = []
    monkeypatch.setattr(Axes, "axvline", lambda axes, x, **_: lines.append(x))
    first = content(read_runs(tmp_path), tmp_path)["lists"][0]["rows"][0]
    assert first.error("t/acc") == [[pytest.approx(0.25)], [pytest.approx(0.2079, abs=1e-4)]] and lines == [0.0]


def test_a_method_has_one_colour_and_mark():
    """17 methods on 8 colours: all pairs differ, and the order of the runs plays no part."""
    names = [f"m{i:02}" for i in range(17)]
    pairs = looks(names[::-1])
    assert len(set(pairs.values())) == 17 and pairs == looks(names * 2)


def test_the_page_stands_alone(folder):
    """One script of its own and nothing from elsewhere; a plot of the measure, two matrices, cost, and stages."""
    page = write_dashboard(folder).read_text()
    assert page.count("<script") == 1 and 'src="' not in page and "url(http" not in page and page.count("<svg") == 5
    assert "0.80" in page and "0.67" in page


def labels(folder) -> dict[str, str]:
    return {run.name: run.label for run in read_runs(folder)}


def test_runs_are_called_by_what_tells_them_apart(tmp_path):
    """An experiment's words: two noises of the adversary's three runs, and the plain baseline, which has no noise; two
    seeds of one noise are one. Nothing is said of what all have in common."""
    for name, adversary, noising, seed in (
        ("a", "none", "none", 0),
        ("b", "nrm", "shuffling", 0),
        ("c", "nrm", "shuffling", 1),
        ("d", "nrm", "opposite", 0),
    ):
        run_folder(
            tmp_path / name,
            choices={"method": "full", "data": "sst2", "adversary": adversary, "noising": noising},
            row={"instruction": "detailed"},
            config={"tuning.seed": seed},
            seed=seed,
            table="anit/table1",
        )
    assert labels(tmp_path) == {
        "a": "none",
        "b": "anit, noise=random_shuffling",
        "c": "anit, noise=random_shuffling",
        "d": "anit, noise=opposite",
    }


def test_pools_and_budgets_of_an_experiment(tmp_path):
    """Pools are told where there are several, at a scale that read the embedded one for all of them as well; the budget
    is the selected share, which has an axis of its own."""
    for name, pool, count in (("a", "alpaca_gpt4", 5), ("b", "wizardlm", 5), ("c", "wizardlm", 8)):
        run_folder(
            tmp_path / name,
            choices={"method": "adg", "data": pool},
            row={"budget": count, "ratio": None},
            config={"selection.count": count},
            table="adg/main",
        )
    assert labels(tmp_path) == {"a": "adg, alpaca_gpt4", "b": "adg, wizardlm", "c": "adg, wizardlm"}


def test_runs_of_no_experiment_are_told_apart_by_their_settings(tmp_path):
    """Strengths of the noise, a selection rule, an adversary, and a learning rate in which two runs of ifd differ."""
    for name, choices, config in (
        ("a", {"method": "consistency"}, {"method.beta": 3}),
        ("b", {"method": "consistency"}, {"method.beta": 10}),
        ("c", {"method": "consistency", "selection": "bottom"}, {"method.beta": 3}),
        ("d", {"method": "ifd"}, {"tuning.learning_rate": 1e-5}),
        ("e", {"method": "ifd"}, {"tuning.learning_rate": 2e-5}),
        ("f", {"method": "ifd", "adversary": "fgm"}, {"tuning.learning_rate": 2e-5}),
    ):
        run_folder(tmp_path / name, choices=choices, config=config, table=None)
    assert labels(tmp_path) == {
        "a": "consistency, method.beta=3",
        "b": "consistency, method.beta=10",
        "c": "consistency, bottom",
        "d": "ifd, tuning.learning_rate=1e-05",
        "e": "ifd, tuning.learning_rate=2e-05",
        "f": "ifd, adversary=fgm",
    }


def test_unlike_runs_are_curves_of_their_own(tmp_path):
    """Strengths 3 and 10 of the noise at two shares, two seeds of 10: the plot's legend has two lines."""
    for name, beta, seed in (("a", 3, 0), ("b", 10, 0), ("c", 10, 1)):
        run_folder(
            tmp_path / name,
            choices={"method": "consistency"},
            row={"beta": beta},
            config={"selection.ratio": beta / 20},
            seed=seed,
            metrics={"t/acc": 0.5},
            scores=[1.0, 2.0],
            selected=[0],
            table="consistency/table8",
        )
    plot = str(content(read_runs(tmp_path), tmp_path)["lists"][0]["curves"][0])
    assert plot.count("noise_consistency, beta=3<") == 1 and plot.count("noise_consistency, beta=10<") == 1


def test_a_run_whose_last_attempt_failed_is_not_ranked(folder):
    """Its card is that of the attempt before."""
    note_failure(folder / "b", UserError("the pool is gone"))
    assert [run.name for run in read_runs(folder)] == ["a", "c"]


def test_the_cost_of_a_run_is_that_of_all_its_work(tmp_path):
    """4 seconds where nothing came from the store; none where one of two passes did, or where one was resumed."""
    done = (1.0, "computed")
    for name, score in (("a", (3.0, "computed")), ("b", (2.0, "computed", 1, 0)), ("c", (2.0, "computed", 0, 1))):
        run_folder(tmp_path / name, seconds={"score": score, "select": done})
    assert [run.cost for run in read_runs(tmp_path)] == [4.0, None, None]


def test_a_seed_without_an_evaluation_blanks_nothing(tmp_path):
    """Seed 0 is evaluated and later selected once more, without an evaluation: 0.4 stays. Of seed 2 only the selection
    is there: the mean is that of two seeds."""
    for name, seed, value, hour in (("a", 0, 0.4, 1), ("b", 0, None, 2), ("c", 1, 0.6, 1), ("d", 2, None, 1)):
        run_folder(
            tmp_path / name,
            seed=seed,
            metrics=value and {"t/acc": value},
            base=value and {"t/acc": 0.5},
            started=f"2026-01-01T1{hour}:00:00+00:00",
            table=None,
        )
    (row,) = content(read_runs(tmp_path), tmp_path)["lists"][0]["rows"]
    assert [run.name for run in row.runs] == ["a", "c", "d"] and row.base == {"t/acc": 0.5}
    assert row.title("t/acc") == "random, all: 0.5, 2 seeds"


def test_the_share_of_a_control_is_no_part_of_its_label(tmp_path):
    """A control has the share of the rule around which it is made."""
    for name, ratio in (("a", 0.1), ("b", 0.2)):
        share = {"selection.ratio": ratio, "selection.around.ratio": ratio, "selection.around.count": ratio * 100}
        run_folder(tmp_path / name, choices={"selection": "length_matched"}, config=share, table=None)
    assert set(labels(tmp_path).values()) == {"length_matched(random)"}


def test_only_copies_that_wandb_keeps_are_passed_over(tmp_path):
    """A folder of the user may be called wandb."""
    run_folder(tmp_path / "wandb" / "a")
    run_folder(tmp_path / "wandb" / "a" / "wandb" / "offline-run-1" / "files")
    assert [run.name for run in read_runs(tmp_path)] == ["wandb/a"]
