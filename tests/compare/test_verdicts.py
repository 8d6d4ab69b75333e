"""Verdicts from run folders: groups by method and seed, references, letters, the page and its JSON."""

from __future__ import annotations

import json

import numpy as np
import pytest
from run_folders import run_folder

from winnow.commands import compare
from winnow.compare.dashboard import content, write_dashboard
from winnow.compare.runs import read_runs
from winnow.compare.verdicts import verdicts, write_verdicts
from winnow.console import standing_lines
from winnow.errors import UserError
from winnow.evaluation.comparison import compare_items, holm, measurements
from winnow.pages.card import show_number
from winnow.tracking.names import pool_name

KEY = "t/score"
DIFFICULTY = np.random.default_rng(0).normal(0, 1, 40)


def job(folder, method, shift, seed=0, selection="top", **options):
    """A run whose items are the difficulty plus a shift and a little of their own; the base model has the shift 0."""
    noise = np.random.default_rng([seed, *method.encode()]).normal(0, 0.1, 40)
    items = {"tuned": (DIFFICULTY + shift + noise).tolist(), "base": DIFFICULTY.tolist()}
    return run_folder(
        folder,
        choices={"method": method, "selection": selection} | options.pop("choices", {}),
        metrics={KEY: float(np.mean(items["tuned"]))},
        base={KEY: float(np.mean(items["base"]))},
        items={model: {KEY: values} for model, values in items.items()},
        config={"selection.ratio": 0.1, "method.seed": seed} | options.pop("config", {}),
        seed=seed,
        table=None,
        **options,
    )


@pytest.fixture
def sweep(tmp_path):
    """ifd is 0.5 above random, length 0.5 below; perplexity is as random. Two seeds each."""
    for method, shift in (("random", 0.0), ("ifd", 0.5), ("length", -0.5), ("perplexity", 0.0)):
        for seed in (0, 1):
            job(tmp_path / f"{method}-{seed}", method, shift, seed)
    return tmp_path


def rows(told) -> dict[str, dict]:
    (one,) = told["comparisons"]
    return {row["method"]: row for row in one["standings"]}


def test_against_random(sweep):
    """Seeds are grouped; the interval holds the true difference; letters and verdicts agree."""
    told = verdicts(read_runs(sweep))
    found = rows(told)
    assert told["against"] == "random" and next(iter(found)) == "ifd" and list(found)[-1] == "length"
    assert [found[name].get("verdict") for name in ("ifd", "length", "perplexity", "random")] == [
        "win",
        "loss",
        "tie",
        None,
    ]
    assert found["ifd"]["low"] < 0.5 < found["ifd"]["high"] and found["ifd"]["seeds"] == [0, 1]
    assert [found[name]["letters"] for name in ("ifd", "length")] == ["a", "c"]
    assert found["perplexity"]["letters"] == found["random"]["letters"] == "b"
    assert found["ifd"]["test"] == "seeds and items" and found["random"]["against"] is None


@pytest.mark.parametrize(("value", "against"), [(None, "random"), ("wiki", "random (evaluation.split=null)")])
def test_a_key_that_the_run_of_an_earlier_version_lacks_is_null(tmp_path, value, against):
    """A later version has one key more, null by default: that is no other setting; another value is one."""
    for seed in (0, 1):
        job(tmp_path / f"random-{seed}", "random", 0.0, seed)
        job(tmp_path / f"ifd-{seed}", "ifd", 0.5, seed, config={"evaluation.split": value})
    assert rows(verdicts(read_runs(tmp_path)))["ifd"]["against"] == against


def test_against_the_best_and_the_base(sweep):
    """Of the best one the others lose or cannot be told apart, as their letters say. The backbone has no seeds."""
    found = rows(verdicts(read_runs(sweep), "best"))
    assert found["ifd"]["against"] is None
    assert {row["verdict"] for name, row in found.items() if name != "ifd"} == {"loss"}
    found = rows(verdicts(read_runs(sweep), "base"))
    assert [found[name]["verdict"] for name in ("ifd", "length", "random")] == ["win", "loss", "tie"]
    assert {row["against"] for row in found.values()} == {"base"}


def test_the_backbone_is_that_of_any_run_that_has_it(tmp_path):
    """The first run has no results of the backbone, the second has: both are tested. The first alone is not."""
    for method in ("ifd", "random"):
        job(tmp_path / method, method, 0.5)
    results = json.loads((tmp_path / "ifd" / "results.json").read_text())
    del results["models"]["base"]
    (tmp_path / "ifd" / "results.json").write_text(json.dumps(results))
    assert {row["against"] for row in rows(verdicts(read_runs(tmp_path), "base")).values()} == {"base"}
    (row,) = rows(verdicts(read_runs(tmp_path / "ifd"), "base")).values()
    assert (row["against"], row["no_verdict"]) == (None, "no run has this metric of the backbone")


def test_each_method_against_its_own_backbone(tmp_path):
    """One name in two precisions: the base of nf4 is 0.2 below that of bf16, and each row has its own."""
    for dtype, lower in (("bf16", 0.0), ("nf4", 0.2)):
        folder = job(tmp_path / dtype, "ifd", 0.5, config={"backbone.dtype": dtype})
        lines = [json.loads(line) for line in (folder / "base.jsonl").read_text().splitlines()]
        for line in lines:
            line["metrics"]["score"] -= lower
        (folder / "base.jsonl").write_text("\n".join(map(json.dumps, lines)))
        results = json.loads((folder / "results.json").read_text())
        results["models"]["base"]["metrics"][KEY]["value"] -= lower
        (folder / "results.json").write_text(json.dumps(results))
    found = rows(verdicts(read_runs(tmp_path), "base"))
    theirs = {name: row["theirs"] for name, row in found.items()}
    bf16, nf4 = (theirs[f"ifd, backbone.dtype={dtype}"] for dtype in ("bf16", "nf4"))
    assert bf16 - nf4 == pytest.approx(0.2)


def test_models_of_one_name_in_two_folders_are_two(tmp_path):
    for place in ("x", "y"):
        for method in ("ifd", "random"):
            name = {"backbone.name": f"/{place}/final"}
            job(tmp_path / f"{place} {method}", method, 0.5, config=name, choices={"backbone": "local"})
    assert len(verdicts(read_runs(tmp_path))["comparisons"]) == 2


def test_items_are_the_prompts_too(sweep):
    """The same documents with other examples before the question are other items."""
    for folder in sweep.glob("ifd-*"):
        lines = [json.loads(line) | {"prompt_hash": "five examples"} for line in (folder / "tuned.jsonl").open()]
        (folder / "tuned.jsonl").write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(UserError, match=f"{KEY}: the models have different items of the task t"):
        verdicts(read_runs(sweep))


def test_a_reference_without_the_adversary_is_named(tmp_path):
    """ifd alone was tuned with one: plain random is what there is, and the verdict says that it is plain."""
    job(tmp_path / "random", "random", 0.0)
    more = {"adversary": "nrm", "noising": "replacement"}
    job(tmp_path / "ifd", "ifd", 0.5, choices=more, config={"adversary.alpha": 0.3, "noising.omega": 0.1})
    found = rows(verdicts(read_runs(tmp_path)))
    assert found["ifd"]["against"] == "random (adversary=none, noising=none)"


def test_the_same_adversary_goes_before_the_same_learning_rate(tmp_path):
    """Two runs of random: one with ifd's adversary at another rate, one at its rate without the adversary."""
    robust = {"choices": {"adversary": "nrm"}}
    for name, rate, more in (("random", 1e-4, {}), ("random", 2e-4, robust), ("ifd", 1e-4, robust)):
        job(tmp_path / f"{name} {rate}", name, 0.0, config={"tuning.learning_rate": rate}, **more)
    against = rows(verdicts(read_runs(tmp_path)))["ifd"]["against"]
    assert against == "random, adversary=nrm (tuning.learning_rate=0.0002)"


def test_each_method_against_its_own_control(tmp_path):
    """length_matched(ifd) is what ifd is tested against, and not what perplexity is."""
    for method in ("ifd", "perplexity"):
        job(tmp_path / method, method, 0.5)
        job(tmp_path / f"{method} control", method, 0.0, seed=3, selection="length_matched")
    found = rows(verdicts(read_runs(tmp_path), "length_matched"))
    assert {name: row["against"] for name, row in found.items()} == {
        "ifd": "length_matched(ifd)",
        "perplexity": "length_matched(perplexity)",
        "length_matched(ifd)": None,
        "length_matched(perplexity)": None,
    }
    assert found["ifd"]["verdict"] == "win"


def test_the_reference_has_the_same_share(tmp_path):
    """Random at 5% and at 10%: ifd at 10% is tested against the latter; all data, of no share, against neither."""
    for share in (0.05, 0.1):
        job(tmp_path / f"random {share}", "random", share, config={"selection.ratio": share})
    job(tmp_path / "ifd", "ifd", 0.5)
    job(tmp_path / "full", "full", 0.5)
    found = rows(verdicts(read_runs(tmp_path), "random"))
    assert {name: row["against"] for name, row in found.items()} == {
        "ifd, ratio=0.1": "random, ratio=0.1",
        "full": None,
        "random, ratio=0.1": None,
        "random, ratio=0.05": None,
    }


def test_a_share_may_be_given_as_a_number_of_records(tmp_path):
    """Equally many records of one pool."""
    own = {"scores": [0.1 * number for number in range(10)], "selected": [3]}
    job(tmp_path / "random", "random", 0.0, config={"selection.ratio": None, "selection.count": 1}, **own)
    job(tmp_path / "ifd", "ifd", 0.5, **own)
    random, ifd = sorted(read_runs(tmp_path), key=lambda run: run.identity["method"] == "ifd")
    assert random.ratio == ifd.ratio == 0.1 and random.share != ifd.share
    assert rows(verdicts([random, ifd], "random"))["ifd, ratio=0.1"]["against"] == "random, count=1"


def test_a_reference_of_another_share_is_none(tmp_path, capsys):
    """Random at 5% alone: ifd at 30% has no verdict, and lines and dashboard say why; all data, which has no share, is
    tested against it, and so is length at 5%, though its learning rate is another, which is told."""
    job(tmp_path / "random", "random", 0.0, config={"selection.ratio": 0.05, "tuning.learning_rate": 1e-4})
    job(tmp_path / "ifd", "ifd", 0.5, config={"selection.ratio": 0.3, "tuning.learning_rate": 1e-4})
    job(tmp_path / "full", "full", 0.5, config={"tuning.learning_rate": 1e-4})
    job(tmp_path / "length", "length", 0.5, config={"selection.ratio": 0.05, "tuning.learning_rate": 2e-4})
    compare([str(tmp_path), "--out", str(tmp_path / "out")])
    found = rows(json.loads((tmp_path / "out" / "verdicts.json").read_text()))
    assert {name: row["against"] for name, row in found.items()} == {
        "full": "random, ratio=0.05",
        "length, ratio=0.05": "random, ratio=0.05 (tuning.learning_rate=0.0001)",
        "ifd, ratio=0.3": None,
        "random, ratio=0.05": None,
    }
    why = "random has no run for this method at this share"
    assert f"no verdict: {why}" in capsys.readouterr().out
    assert f'title="{why}">no verdict</span>' in write_dashboard(tmp_path).read_text()


def test_the_reference_has_the_same_settings(tmp_path, capsys):
    """Methods and learning rates: each is tested against random at its own rate. A method of a third rate has two
    references, so it has no verdict, and page and screen name both."""
    for rate in (1e-4, 2e-4):
        for method in ("random", "ifd"):
            settings = {"tuning.learning_rate": rate, f"method.{method}": 1}
            job(tmp_path / f"{method} {rate}", method, 0.5, config=settings)
    job(tmp_path / "length", "length", 0.5, config={"tuning.learning_rate": 3e-4})
    compare([str(tmp_path), "--out", str(tmp_path / "out")])
    found = rows(json.loads((tmp_path / "out" / "verdicts.json").read_text()))
    both = [f"random, tuning.learning_rate={rate}" for rate in (0.0001, 0.0002)]
    assert {name: row["against"] for name, row in found.items()} == {
        "ifd, tuning.learning_rate=0.0001": both[0],
        "ifd, tuning.learning_rate=0.0002": both[1],
        "length": None,
        **dict.fromkeys(both),
    }
    why = found["length"]["no_verdict"]
    assert all(one in why for one in both) and f"no verdict: {why}" in capsys.readouterr().out
    assert "no verdict: its reference may be random, " in (tmp_path / "out" / "verdicts.html").read_text()


def test_an_adversary_is_tested_against_none(tmp_path, capsys):
    """One method at two shares, plain, with an adversary and with noise: the reference is the plain one of the same
    share. Without it there is none, and a line says so."""
    for share in (0.05, 0.1):
        for place, robust in enumerate(({}, {"adversary": "nrm"}, {"noising": "replacement"})):
            job(tmp_path / f"{share} {place}", "ifd", place, choices=robust, config={"selection.ratio": share})
    found = rows(verdicts(read_runs(tmp_path), "ifd"))
    assert {name: row["against"] for name, row in found.items()} == {
        f"ifd{robust}, ratio={share}": f"ifd, ratio={share}" if robust else None
        for share in ("0.05", "0.1")
        for robust in ("", ", adversary=nrm", ", noising=replacement")
    }
    assert not any(row["no_verdict"] for row in found.values())
    compare([str(tmp_path / "0.1 1"), str(tmp_path / "0.1 2"), "--against", "ifd", "--out", str(tmp_path / "out")])
    said = capsys.readouterr().out
    assert said.count("no verdict: ifd is the reference's own method; name another with --against") == 2


def test_the_lines_under_a_sweep_say_what_the_verdicts_say(sweep):
    """A method a line, best first: value, difference, interval and verdict; the reference has its value alone."""
    head, *lines = standing_lines(read_runs(sweep))
    assert head == f"{KEY} (high is good, mean of 2 seeds) on pool, best first:"
    found, judged = rows(verdicts(read_runs(sweep))), {"win": "better", "loss": "worse", "tie": "tie"}
    for line, (name, row) in zip(lines, found.items(), strict=True):
        told = f"  {name:<10}  {row['value']:.4f}"
        if name != "random":
            told += f"  {row['difference']:+.4f} [{row['low']:+.4f}, {row['high']:+.4f}] against random: "
            told += judged[row["verdict"]]
        assert line == told


def test_holm_is_over_the_methods_of_the_table(sweep):
    """Three methods against random: with p-values p1 <= p2 <= p3 of the single tests, the smallest counts three times,
    the next one twice."""
    runs = read_runs(sweep)
    items = {run.name: measurements(run.results["models"]["tuned"])[0][KEY] for run in runs}
    sides = {name: [items[f"{name}-{seed}"] for seed in (0, 1)] for name in ("random", "ifd", "length", "perplexity")}
    raw = {name: compare_items(side, sides["random"]).p for name, side in sides.items() if name != "random"}
    low, middle, high = sorted(raw, key=raw.get)
    found = rows(verdicts(runs))
    assert found[low]["p"] == pytest.approx(3 * raw[low])
    assert found[middle]["p"] == pytest.approx(max(3 * raw[low], 2 * raw[middle]))
    assert found[high]["p"] == pytest.approx(max(2 * raw[middle], raw[high]))


def test_letters_and_the_best_are_over_all_pairs(sweep):
    """Four methods make six pairs, of which the single p-values are corrected together: the smallest counts six times.
    A method's row against the best has the p-value of their pair."""
    runs = read_runs(sweep)
    items = {run.name: measurements(run.results["models"]["tuned"])[0][KEY] for run in runs}
    sides = {name: [items[f"{name}-{seed}"] for seed in (0, 1)] for name in ("random", "ifd", "length", "perplexity")}
    told = verdicts(runs, "best")
    pairs = told["comparisons"][0]["pairs"]
    raw = [compare_items(sides[one["first"]], sides[one["second"]]).p for one in pairs]
    assert len(raw) == 6 and [one["p"] for one in pairs] == pytest.approx(holm(raw))
    assert min(one["p"] for one in pairs) == pytest.approx(6 * min(raw))
    of_best = {one["second"]: one["p"] for one in pairs if one["first"] == "ifd"}
    assert {name: row["p"] for name, row in rows(told).items() if name != "ifd"} == of_best


def test_verdicts_go_by_the_corrected_p_value(sweep, monkeypatch):
    """With 0.2 for every p-value after the correction, ifd and length, whose own are far below 5%, are ties too."""
    monkeypatch.setattr("winnow.compare.verdicts.holm", lambda p: [0.2] * len(p))
    told = verdicts(read_runs(sweep))
    assert [row["verdict"] for row in rows(told).values() if row["against"]] == ["tie"] * 3
    assert [one["verdict"] for one in told["comparisons"][0]["pairs"]] == ["tie"] * 6
    assert {row["letters"] for row in rows(told).values()} == {"a"}


def test_low_may_be_good(sweep):
    """The same runs with a loss as the metric: length comes first and wins, ifd comes last and loses, and what it gains
    over the base model is below 0. Table and plots turn the order too."""
    for path in sweep.glob("*/results.json"):
        results = json.loads(path.read_text())
        for model in results["models"].values():
            model["metrics"][KEY]["higher_is_better"] = False
        path.write_text(json.dumps(results))
    runs = read_runs(sweep)
    found = rows(verdicts(runs))
    assert (next(iter(found)), list(found)[-1]) == ("length", "ifd") and found["length"]["letters"] == "a"
    assert [found[name]["verdict"] for name in ("length", "ifd")] == ["win", "loss"]
    for run in runs:
        run.cost = 4.0
    (one,) = content(runs, sweep)["lists"]
    first, *_, last = one["rows"]
    assert (first.label, last.label) == ("length", "ifd") and one["best"][KEY] == first.values[KEY]
    plot = str(one["standings"][0])
    assert plot.index("<title>length") < plot.index("<title>ifd")
    gain = show_number(last.base[KEY] - last.values[KEY])
    assert gain.startswith("−") and f"<title>ifd, 10%: 4.0 s, gain {gain}</title>" in str(one["cost"])


def test_the_command(sweep, tmp_path, capsys):
    """Folders of runs in place of one sweep; page and JSON say the same, and the screen too."""
    runs = [str(sweep / name) for name in ("ifd-0", "random-0")]
    compare([*runs, "--out", str(tmp_path / "out")])
    told = json.loads((tmp_path / "out" / "verdicts.json").read_text())
    assert [row["method"] for row in told["comparisons"][0]["standings"]] == ["ifd", "random"]
    page = (tmp_path / "out" / "verdicts.html").read_text()
    assert "▲ win" in page and page.count("<script") == 1
    said = capsys.readouterr().out
    assert "against random: win" in said and "1 seed" in said and "verdicts.html" in said
    assert "two seeds" not in said
    compare([str(sweep), "--out", str(tmp_path / "out")])
    assert capsys.readouterr().out.count("  two seeds: 3 to 7% false alarms") == 1


def test_the_page_has_the_price_of_each_method(tmp_path):
    """The pass of ifd took 16 s and 2 * 5 parameters * 6e11 tokens = 6 TFLOP for 20 records: half of that for the 10 of
    this pool, 8 s, twice the 4 s of tuning. Two shares of ifd and its control use it, and no other method: all 8 s are
    its own. The control's model came from the store, and so did the 4 s. Random has no pass and no price."""
    line = {"pass": "likelihood", "records": 20, "forwards": 20, "tokens": 600_000_000_000, "parameters": 5}
    (tmp_path / "store" / "passes" / "p").mkdir(parents=True)
    (tmp_path / "store" / "passes" / "p" / "ledger.jsonl").write_text(json.dumps(line | {"seconds": 16.0}))
    control = {"selection": "length_matched"}
    for name, method, ratio, more in (
        *(("a", "ifd", 0.1, {}), ("b", "ifd", 0.3, {})),
        *(("c", "random", 0.1, {}), ("d", "ifd", 0.1, control)),
    ):
        run_folder(
            tmp_path / "runs" / name,
            choices={"method": method} | more,
            config={"selection.ratio": ratio, "paths.store": str(tmp_path / "store")},
            seconds={"score": (9.0, "computed"), "tune": (4.0, "reused" if more else "computed")},
            metrics={"t/acc": 0.5},
            items={"tuned": {"t/acc": [0, 1]}},
            table=None,
        )
        card = json.loads((tmp_path / "runs" / name / "run_card.json").read_text())
        card["stages"]["score"]["fingerprint"] = "p" if method == "ifd" else None
        (tmp_path / "runs" / name / "run_card.json").write_text(json.dumps(card))
    tuned = {"steps": 1, "train_loss": [], "seconds": 4.0}
    (tmp_path / "runs" / "d" / "tuning.json").write_text(json.dumps(tuned))
    summary = write_verdicts([tmp_path / "runs"], None, tmp_path)
    (prices,) = summary["prices"]
    assert sorted(prices) == ["ifd", "length_matched(ifd)"]
    assert {(one["seconds"], one["marginal"]["seconds"]) for one in prices.values()} == {(8.0, 8.0)}
    price = (tmp_path / "verdicts.html").read_text().split("<h2>Price</h2>")[1]
    assert price.count(">8.0 s<") == 4 and ">3<" in price and price.count(">2 times<") == 2


def test_the_price_of_a_freed_pass_is_that_of_the_run_card(tmp_path, capsys):
    """The card's 16 s hold, though the store has none of the pass; what the others would spare it is then unknown. Of
    two runs of the method the later one counts, not the 99 s of the one before it."""
    metrics = {"metrics": {"t/acc": 0.5}, "items": {"tuned": {"t/acc": [0, 1]}}, "table": None}
    price = {"passes": [], "forwards": 20, "tokens": 40, "flops": 400, "tuning_seconds": None}
    for name, month, seconds in (("a", 2, 16.0), ("b", 1, 99.0)):
        folder, started = tmp_path / "runs" / name, f"2026-0{month}-01T12:00:00+00:00"
        store = {"paths.store": str(tmp_path)}
        run_folder(folder, choices={"method": "ifd"}, config=store, started=started, **metrics)
        card = json.loads((folder / "run_card.json").read_text())
        card["stages"]["score"] = {"status": "computed", "seconds": seconds, "fingerprint": "p"}
        (folder / "run_card.json").write_text(json.dumps(card | {"price": price | {"seconds": seconds}}))
    compare([str(tmp_path / "runs"), "--out", str(tmp_path / "out")])
    assert "Price of ifd: 20 forwards, 0.0 TFLOP, 16 s\n" in capsys.readouterr().out
    assert '">–</td>' in (tmp_path / "out" / "verdicts.html").read_text().split("<h2>Price</h2>")[1]


def test_bad_requests_are_one_sentence(sweep, tmp_path):
    with pytest.raises(UserError, match="--against noise: no run of that method; choose best, base, ifd, length"):
        verdicts(read_runs(sweep), "noise")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no finished run with an evaluation"):
        compare([str(tmp_path / "empty")])
    with pytest.raises(UserError, match="nothing: there is no such folder; name runs or the folder of a sweep"):
        compare([str(sweep / "ifd-0"), str(tmp_path / "nothing")])
    other = json.loads((sweep / "ifd-0" / "results.json").read_text())
    lines = (sweep / "ifd-0" / "tuned.jsonl").read_text().splitlines()
    (sweep / "ifd-0" / "tuned.jsonl").write_text("\n".join(lines[:30]))
    values = [json.loads(line)["metrics"]["score"] for line in lines[:30]]
    other["models"]["tuned"]["metrics"][KEY]["value"] = float(np.mean(values))
    (sweep / "ifd-0" / "results.json").write_text(json.dumps(other))
    with pytest.raises(UserError, match=f"{KEY}: the models have different items of the task t"):
        verdicts(read_runs(sweep))
    page = write_dashboard(sweep).read_text()
    assert "There are no verdicts" in page and "▲" not in page


def test_a_pool_of_the_hub_keeps_its_number(tmp_path):
    """What looks like an ending is a version."""
    for version in ("2.5", "3.1"):
        folder = job(tmp_path / version, "ifd", 0.5)
        card = json.loads((folder / "run_card.json").read_text())
        card["data"]["source"] = f"teknium/OpenHermes-{version}"
        (folder / "run_card.json").write_text(json.dumps(card))
    assert {run.pool for run in read_runs(tmp_path)} == {"OpenHermes-2.5", "OpenHermes-3.1"}
    assert pool_name("my/pool.JSONL.gz") == "pool"


def test_the_dashboard_colours_no_tie(sweep):
    """The leaderboard's first row is a win; perplexity and random are neither better nor worse."""
    (found,) = content(read_runs(sweep), sweep)["lists"]
    rows = {row.label: row for row in found["rows"]}
    assert rows["ifd"].test(KEY)["verdict"] == "win" and rows["perplexity"].test(KEY)["verdict"] == "tie"
    assert rows["random"].test(KEY) is None
    text = write_dashboard(sweep).read_text()
    assert text.count('class="better"') == 1 and text.count('class="worse"') == 1 and text.count('class="tie"') == 1


def test_pools_of_one_name_are_no_one_pool(tmp_path):
    """Random and ifd on two files train.jsonl: two comparisons of two methods each. Where a file lies plays no part."""
    for records in "ab":
        for place, method in enumerate(("random", "ifd")):
            path = {"data.path": f"{place}/train.jsonl"}
            card = job(tmp_path / f"{method} {records}", method, 0.5, config=path) / "run_card.json"
            content = json.loads(card.read_text())
            card.write_text(json.dumps(content | {"data": {"fingerprint": records}}))
    told = verdicts(read_runs(tmp_path))
    assert [len(one["standings"]) for one in told["comparisons"]] == [2, 2]
