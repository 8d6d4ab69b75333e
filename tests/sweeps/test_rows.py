"""The jobs of an experiment, from rows, parameters and the command line."""

from __future__ import annotations

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from winnow.errors import UserError
from winnow.sweeps.rows import expand, job_name
from winnow.tracking.names import identity, text

PARSE = OverridesParser.create().parse_overrides


def jobs(rows, params, arguments=(), only=None):
    """Each job's overrides without the two that every job gets."""
    return [job[:-2] for job in expand(rows, params, list(arguments), PARSE, only)]


def test_rows_are_crossed_with_parameters_and_not_with_each_other():
    """Two rows, the second of two methods, times two seeds: (1 + 2) x 2 = 6 jobs; `full` never meets a ratio."""
    found = jobs(["method=full", "method=random,ifd selection.ratio=0.12"], {"seed": "0,1"})
    assert found == [
        ["method=full", "seed=0"],
        ["method=full", "seed=1"],
        ["method=random", "selection.ratio=0.12", "seed=0"],
        ["method=random", "selection.ratio=0.12", "seed=1"],
        ["method=ifd", "selection.ratio=0.12", "seed=0"],
        ["method=ifd", "selection.ratio=0.12", "seed=1"],
    ]


def test_the_command_line_wins_and_repetitions_fall_out():
    """method=consistency makes both rows' methods consistency, and their three jobs one for each ratio; seed=7,8
    replaces the seeds."""
    rows = ["method=random,ifd selection.ratio=0.1", "method=length selection.ratio=0.2"]
    found = jobs(rows, {"seed": "0"}, ["experiment=consistency/table1", "method=consistency", "seed=7,8"])
    assert found == [
        ["method=consistency", f"selection.ratio={ratio}", f"seed={seed}", "experiment=consistency/table1"]
        for ratio in ("0.1", "0.2")
        for seed in (7, 8)
    ]


def test_only_picks_jobs_by_what_a_row_or_a_parameter_says():
    """method=ifd with seed 0 or 1 of three seeds: two jobs. A number is found as it is written; the command line's
    value counts where it takes a row's place."""
    rows, params = ["method=full", "method=random,ifd selection.ratio=0.12"], {"seed": "0,1,2"}
    assert jobs(rows, params, only={"method": "ifd", "seed": [0, 1]}) == [
        ["method=ifd", "selection.ratio=0.12", "seed=0"],
        ["method=ifd", "selection.ratio=0.12", "seed=1"],
    ]
    assert len(jobs(rows, params, only={"selection.ratio": 0.12})) == 6  # `full` says no ratio
    assert jobs(rows, params, ["seed=7"], {"method": "full"}) == [["method=full", "seed=7"]]
    assert len(jobs(rows, params, only={})) == 9


def test_only_that_picks_nothing_says_what_there_is():
    with pytest.raises(UserError, match="has method=aifd; its rows are: method=full; method=ifd"):
        jobs(["method=full", "method=ifd"], {"seed": "0,1"}, only={"method": "aifd"})


def test_lists_are_values_and_not_sweeps():
    """attack=[a,b] is one job, attack=[a],[b] are two."""
    assert len(jobs(["attack=[a,b]"], {})) == 1 and len(jobs(["attack=[a],[b]"], {})) == 2


def test_a_job_has_the_same_folder_in_a_longer_sweep_and_its_own_among_others():
    """Names come from what varies: a further seed, another order of rows or a path leave a job's name as it is."""
    rows = ["method=random", "method=ifd selection.ratio=0.1"]
    short = expand(rows, {"seed": "0"}, ["data.path=/a"], PARSE)
    long = expand(rows[::-1], {"seed": "0"}, ["data.path=/b", "seed=0,1"], PARSE)
    names = [next(word for word in job if word.startswith("row.job=")) for job in short]
    others = [next(word for word in job if word.startswith("row.job=")) for job in long]
    assert set(names) < set(others) and len(set(others)) == 4
    assert names[1].startswith("row.job='ifd-0.1-0-")


def test_the_order_of_words_makes_no_other_job():
    """Two rows of the same words are one job, whose name has one hash for both. Values that the command line alone
    sweeps have names of their own: otherwise two jobs would write into one folder."""
    words = ["method=ifd", "seed=0"]
    assert len(jobs([" ".join(words), " ".join(words[::-1])], {})) == 1
    assert job_name(words)[-6:] == job_name(words[::-1])[-6:]
    assert len({job[-2] for job in expand(["method=ifd"], {}, ["seed=0,1"], PARSE)}) == 2


def test_only_compares_values_and_not_how_they_are_written():
    """0.10 is 0.1, 1e-5 is 0.00001, a text that is a number is the number; a list in a list is one value; a job that
    says nothing of a key is left out."""

    def picked(**only):
        rows = ["method=ifd selection.ratio=0.10 tuning.learning_rate=1e-5 attack=[a,b]", "method=full scorer=null"]
        wanted = {key.replace("__", "."): value for key, value in only.items()}
        return [job[0] for job in expand(rows, {"seed": "0,1"}, [], PARSE, wanted)]

    for value in (0.1, "0.1", "0.10", [0.5, 0.1]):
        assert picked(selection__ratio=value) == ["method=ifd"] * 2
    assert picked(tuning__learning_rate=0.00001, seed=1) == ["method=ifd"]
    assert picked(attack=[["a", "b"]]) == ["method=ifd"] * 2 and picked(scorer=None) == ["method=full"] * 2
    for only in ({"seed": True}, {"selection__ratio": 0.11}, {"metod": "ifd"}):
        with pytest.raises(UserError, match="no row of this experiment has"):
            picked(**only)


def test_the_keys_of_the_command_line_are_kept_from_scales():
    keep = expand(["method=random"], {}, ["experiment=x", "data.limit=5"], PARSE)[0][-1]
    assert keep == "scale.keep=['experiment','data.limit']"


def test_a_deletion_has_no_value():
    """`~data.limit` takes a key out; a name says nothing of it."""
    assert job_name(["seed=1", "~data.limit"]).startswith("1-")


def test_a_secret_stands_in_no_name():
    assert "abc" not in job_name(["seed=1", "+tracking.api_key=abc", "+env={HF_TOKEN:abc}"])


def test_names_are_those_of_the_paper():
    """0.10 and 0.1 are one ratio, lists are joined, all data has the ratio 1, an adversary is a method of ANIT's."""
    assert text(0.10) == text("0.1") == "0.1" and text(["a", "b"]) == "a+b"
    assert [text(one) for one in (1_000_001, 52_002.0, None, True, 1e20)] == [
        "1000001",
        "52002",
        "null",
        "true",
        "1e+20",
    ]
    choices = {"backbone": "gemma_2b", "data": "lap14", "method": "full", "selection": "top", "adversary": "nrm"}
    found = identity({"job": "x", "ratio": None, "beta": None}, choices | {"noising": "padding"}, "anit")
    assert found == {"backbone": "gemma_2b", "pool": "14lap", "method": "anit", "noise": "in_context_padding"}
    assert identity({"ratio": 0.1}, choices, "consistency")["ratio"] == "1"
    assert "ratio" not in identity({"method": "lima", "ratio": ""}, choices, "consistency")  # all of another pool
