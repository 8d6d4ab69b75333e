"""Score cards: agreement, overlap and change by hand, and what runs of a folder are compared with what."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from run_folders import run_folder

from winnow.commands import card as command
from winnow.compare.runs import read_runs, same_share
from winnow.compare.scorecard import changed, overlap, rho, scorecards
from winnow.errors import UserError

WORTH = [float(one * 7 % 20) for one in range(20)]  # 0 .. 19 in a mixed order


def test_measures_by_hand():
    """Of the records b, c, d that both have, the ranks are 1 2 3 and 1 3 2: rho = 1 - 6 * 2 / (3 * 8) = 0.5. Of 20
    records the highest tenth is two; one of them is in both. Of a subset's three records the first run knows two, and
    has one."""
    assert rho({"a": 9, "b": 1, "c": 2, "d": 3}, {"b": 10, "c": 30, "d": 20}) == pytest.approx(0.5)
    assert (
        rho({"a": 1, "b": 2}, {"a": 1, "b": 2}) is None
        and rho(dict.fromkeys("abc", 1), dict.fromkeys("abc", 1)) is None
    )
    one = {f"{i:02}": i for i in range(20)}
    assert overlap(one, one | {"00": 30}) == 0.5 and overlap({"a": 1}, {"a": 1}) is None
    assert (
        changed(frozenset("ab"), frozenset("axy"), "abx") == 0.5 and changed(frozenset(), frozenset("a"), "a") is None
    )


@pytest.fixture
def sweep(tmp_path):
    """ifd with two seeds and another template; length with the opposite order."""

    def run(name: str, scores, selected, method="ifd", **options):
        run_folder(tmp_path / name, choices={"method": method}, scores=scores, selected=selected, table=None, **options)

    plain = {"template.name": "alpaca"}
    run("ifd-0", WORTH, [0, 1], config=plain | {"method.seed": 0})
    run("ifd-1", WORTH, [0, 2], config=plain | {"method.seed": 1}, seed=1)
    run("ifd-plain", [-one for one in WORTH], [5, 6], config={"template.name": "plain", "method.seed": 0})
    run("length", [-one for one in WORTH], [], method="length", config=plain)
    (tmp_path / "ifd-0" / "detection.json").write_text(json.dumps({"overall": {"auc": 0.75}}))
    return tmp_path


def test_each_run_is_compared_with_the_one_that_differs_least(sweep):
    """Seed 0 under alpaca differs from either other run in one thing; one of two selected records changes with the
    seed, both with the template, whose scores are in the opposite order."""
    (found,) = scorecards(read_runs(sweep), ["ifd"])
    assert found["agreement"] == [
        {"differs": "seed=1", "rho": pytest.approx(1), "changed": 0.5},
        {"differs": "template.name=plain", "rho": pytest.approx(-1), "changed": 1.0},
    ]
    assert found["others"] == {"length": {"rho": pytest.approx(-1), "overlap": 0.0}}
    assert (found["records"], found["defect_auc"]) == (20, 0.75)


def test_the_run_that_the_others_are_compared_with_is_not_the_first_by_name(tmp_path):
    """b differs from either other run in one thing, a from c in two."""
    for name, seed, form in (("a", 0, "alpaca"), ("b", 1, "alpaca"), ("c", 1, "plain")):
        settings = {"template.name": form, "method.seed": seed}
        scores = {"choices": {"method": "ifd"}, "scores": WORTH, "selected": [0]}
        run_folder(tmp_path / name, config=settings, seed=seed, table=None, **scores)
    (found,) = scorecards(read_runs(tmp_path))
    assert [one["differs"] for one in found["agreement"]] == ["seed=0", "template.name=plain"]


def test_methods_of_another_pool_are_no_others(sweep):
    """length's scores are of a pool of another name."""
    card = sweep / "length" / "run_card.json"
    content = json.loads(card.read_text())
    card.write_text(json.dumps(content | {"data": content["data"] | {"source": "another"}}))
    (found,) = scorecards(read_runs(sweep), ["ifd"])
    assert found["others"] == {}


def test_a_tenth_of_the_pool_is_taken_away(tmp_path):
    """10 of 20 records and 9 of 18 are one share. The whole pool comes first; of the 9 one is not among its 10."""
    for name, records, selected in (("part", 18, range(2, 11)), ("whole", 20, range(10))):
        budget = {"data.sample": records, "selection.count": len(selected)}
        scores = {"choices": {"method": "ifd"}, "scores": WORTH[:records], "selected": list(selected)}
        run_folder(tmp_path / name, config=budget, table=None, **scores)
    (found,) = scorecards(read_runs(tmp_path))
    (told,) = found["agreement"]
    assert told == {"differs": "data.sample=18", "rho": pytest.approx(1), "changed": pytest.approx(1 / 9)}


def test_a_key_without_a_value_is_null(tmp_path):
    """The first run, with more records, has a value; the other's `null` is what the command line takes."""
    for name, value, records in (("set", 50, 20), ("unset", None, 18)):
        scores = {"choices": {"method": "ifd"}, "scores": WORTH[:records], "selected": [0]}
        run_folder(tmp_path / name, config={"method.top_k": value}, table=None, **scores)
    (found,) = scorecards(read_runs(tmp_path))
    assert [one["differs"] for one in found["agreement"]] == ["method.top_k=null"]


def test_another_option_of_a_group_is_named(tmp_path):
    """The two templates differ in two keys; the option alone says so."""
    for name, form in (("a", "alpaca"), ("b", "plain")):
        settings = {"template.name": form, "template.prefix": f"{form}:"}
        scores = {"scores": WORTH, "selected": [0]}
        run_folder(tmp_path / name, choices={"template": form}, config=settings, table=None, **scores)
    (found,) = scorecards(read_runs(tmp_path))
    assert [one["differs"] for one in found["agreement"]] == ["template=plain"]


def test_a_card_of_an_earlier_version_is_refused(sweep):
    """A run card without the chosen options would name a control of `ifd` as `ifd` itself."""
    file = sweep / "ifd-0" / "run_card.json"
    file.write_text(json.dumps({key: value for key, value in json.loads(file.read_text()).items() if key != "hydra"}))
    with pytest.raises(UserError, match="ifd-0: its run card does not say which options were chosen; run it again"):
        read_runs(sweep)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (("count=200", 0.1), ("count=180", 0.1), True),  # of 1,800
        (("count=200", 0.1), ("count=202", 0.101), False),
        (("ratio=0.1", 0.1), ("ratio=0.12", 0.1), False),  # of very few records
        (("count=200", None), ("count=180", None), False),  # of no selection
    ],
)
def test_the_same_share(one, other, same):
    """Equal shares of the pool, whatever the numbers, but where both are given as shares."""
    runs = (SimpleNamespace(share=share, ratio=ratio) for share, ratio in (one, other))
    assert same_share(*runs) == same


def test_another_share_says_nothing_of_the_score(sweep):
    """The same scores at another share are no second run, and their larger subset is no change of the selection. Seed 1
    has both shares: of the two records of the own share one changes, though its larger subset is read first."""
    for name, seed in (("more", 0), ("ifd-0 of seed 1", 1)):
        run_folder(
            sweep / name,
            choices={"method": "ifd"},
            scores=WORTH,
            selected=[0, 1, 2, 3],
            config={"template.name": "alpaca", "method.seed": seed, "selection.ratio": 0.2},
            seed=seed,
            table=None,
        )
    (found,) = scorecards(read_runs(sweep), ["ifd"])
    assert [one["differs"] for one in found["agreement"]] == ["seed=1", "template.name=plain"]
    assert found["agreement"][0]["changed"] == 0.5


def test_the_command_writes_page_and_json(sweep, tmp_path, capsys):
    command(["ifd", "--runs", str(sweep), "--out", str(tmp_path / "out")])
    page = (tmp_path / "out" / "scorecards.md").read_text()
    assert "Planted defects: AUC 0.750" in page and "| again, seed=1 | +1.000 | 50.0% |" in page
    assert [one["method"] for one in json.loads((tmp_path / "out" / "scorecards.json").read_text())] == ["ifd"]
    html = (tmp_path / "out" / "scorecards.html").read_text()
    assert "75% of the time" in html and 'data-value="0.5">50%' in html
    assert page.strip() in capsys.readouterr().out
    with pytest.raises(UserError, match="winnow card adg: no finished run of it has scores; there are ifd, length"):
        command(["adg", "--runs", str(sweep)])
