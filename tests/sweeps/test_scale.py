"""A scale changes what it says, and nothing that the user has set."""

from __future__ import annotations

import copy

import pytest
from composed import config
from omegaconf import OmegaConf

from winnow.config import compose
from winnow.sweeps.scale import rescaled, scaled, show_value

SCALE = {
    "name": "smoke",
    "backbone": {"name": "packaged:small", "dtype": "fp32"},
    "data": {"source": "embedded", "path": None, "limit": None},
    "tuning": {"mode": "lora", "max_steps": None, "batch_size": 8},
    "evaluation": {"name": "embedded", "tasks": [{"task": "embedded_answers"}], "limit": None},
    "noising": {"_target_": "a.Padding"},
    "at_most": {
        "data.limit": 60,
        "start.pool.limit": 60,
        "target.limit": 60,
        "tuning.max_steps": 3,
        "tuning.batch_size": 4,
        "method.draws": 1,
        "evaluation.limit": 8,
    },
    "suite": {"leave_out": ["mmlu"], "num_fewshot": 0},
}
PAPER = {
    "scale": SCALE,
    "backbone": {"name": "big/model", "dtype": "bf16"},
    "data": {"source": "pool/of-the-hub", "path": None, "limit": None},
    "method": {"name": "consistency", "draws": 3},
    "selection": {"ratio": 0.1, "count": None},
    "tuning": {"mode": "full", "max_steps": None, "batch_size": 128},
    "evaluation": {
        "name": "paper",
        "limit": None,
        "mirror": None,
        "tasks": [
            {"task": "mmlu", "num_fewshot": 5, "metrics": ["acc"]},
            {"task": "arc", "num_fewshot": 25, "metrics": ["acc"]},
        ],
        "averages": {"both": ["mmlu/acc", "arc/acc"]},
        "headline": ["average/both", "arc/acc"],
    },
    "seed": 0,
}


@pytest.fixture
def paper() -> dict:
    return copy.deepcopy(PAPER)


def test_every_change_is_named_with_both_values():
    """Groups of the hub give way, numbers are cut; the seed, the ratio and the method's name stay."""
    new, changes = rescaled(PAPER, [])
    assert changes["backbone.name"] == ["big/model", "packaged:small"]
    assert changes["data.source"] == ["pool/of-the-hub", "embedded"] and changes["data.limit"] == [None, 60]
    assert changes["tuning.max_steps"] == [None, 3] and changes["tuning.batch_size"] == [128, 4]
    assert changes["method.draws"] == [3, 1] and changes["evaluation.limit"] == [None, 8]
    assert not {"seed", "selection.ratio", "method.name"} & changes.keys()
    assert new["scale"] == {"name": "smoke", "changes": changes} and new["tuning"]["mode"] == "lora"
    assert PAPER["backbone"]["name"] == "big/model"  # the given configuration is untouched


def test_what_the_command_line_sets_stays(paper):
    """A named backbone keeps its group; data.limit goes along to the new pool; a kept number is not cut."""
    paper["data"]["limit"] = 500
    new, changes = rescaled(paper, ["backbone.name", "data.limit", "method.draws", "tuning"])
    assert new["backbone"] == PAPER["backbone"] and new["tuning"]["mode"] == "full"
    assert new["data"]["source"] == "embedded" and new["data"]["limit"] == 500 and new["method"]["draws"] == 3
    assert "method.draws" not in changes and changes["tuning.batch_size"] == [128, 4]


def test_local_data_stays_and_its_suite_is_trimmed(paper):
    """With data.path and evaluation.mirror nothing comes from the hub: the long task goes, and the mean that needs
    it."""
    paper["data"]["path"], paper["evaluation"]["mirror"] = "pool.json", "eval"
    new, _ = rescaled(paper, [])
    assert new["data"]["path"] == "pool.json" and new["data"]["limit"] == 60
    assert new["evaluation"]["tasks"] == [{"task": "arc", "num_fewshot": 0, "metrics": ["acc"]}]
    assert new["evaluation"]["averages"] == {} and new["evaluation"]["headline"] == ["arc/acc"]


def test_smaller_numbers_stay_smaller(paper):
    paper["data"] |= {"path": "pool.json", "limit": 10}
    assert rescaled(paper, [])[0]["data"]["limit"] == 10


def test_a_budget_in_records_keeps_its_share(paper):
    """10,000 of 52,002 records is 19.2%; of 60 records that is 11.5, rounded to 12. At least 4 are left; of a pool that
    is no larger than the limit the budget stays."""
    paper["selection"]["count"], paper["table"] = 10_000, {"records": 52_002}
    assert rescaled(paper, [])[1]["selection.count"] == [10_000, 12]
    assert rescaled(paper, ["selection.count"])[0]["selection"]["count"] == 10_000
    for count, records, left in ((1_000, 52_002, 4), (20, 60, 20), (20, 30, 20)):
        paper["selection"]["count"], paper["table"] = count, {"records": records}
        assert rescaled(paper, [])[0]["selection"]["count"] == left


def test_a_scorer_shrinks_too(paper):
    """Unless the command line names it."""
    with_scorer = paper | {"scorer": {"name": "other/model"}}
    assert rescaled(with_scorer, [])[0]["scorer"]["name"] == "packaged:small"
    for kept in ("backbone@scorer", "scorer.name"):
        assert rescaled(with_scorer, [kept])[0]["scorer"] == with_scorer["scorer"]


def test_a_share_of_less_than_a_record_becomes_two(paper):
    """1% of 60 records is none at all, so the ratio becomes 2 / 60; 5%, three records, stays. One that is set stays."""
    paper["selection"]["ratio"] = 0.01
    assert rescaled(paper, [])[1]["selection.ratio"] == [0.01, 2 / 60] and int(60 * (2 / 60)) == 2
    assert rescaled(paper, ["selection.ratio"])[0]["selection"]["ratio"] == 0.01
    paper["selection"]["ratio"] = 0.05
    assert "selection.ratio" not in rescaled(paper, [])[1]


def test_the_pool_to_start_from_shrinks_too(paper):
    """One of the hub gives way to the embedded pool, whatever the run's own; a local one is cut. What is set stays."""
    begun = paper | {"start": {"pool": {"source": "a/b", "path": None, "limit": None, "style": "short"}}}
    new, changes = rescaled(begun, [])
    assert new["start"]["pool"] == SCALE["data"] | {"limit": 60} and changes["start.pool.style"] == ["short", "absent"]
    assert rescaled(begun, ["start.pool.limit"])[0]["start"]["pool"] == SCALE["data"]  # null: all, and kept
    for kept in ("data@start.pool", "start.pool.source"):
        assert rescaled(begun, [kept])[0]["start"]["pool"] == begun["start"]["pool"] | {"limit": 60}
    begun["start"]["pool"] |= {"path": "folder", "limit": 500}
    assert rescaled(begun, [])[0]["start"]["pool"] == begun["start"]["pool"] | {"limit": 60}
    assert "pool" not in rescaled(PAPER | {"start": {"_target_": "nothing"}}, [])[0]["start"]


def test_a_target_shrinks_by_the_same_rule(paper):
    """One of the hub gives way to the embedded pool, 60 records of it; a local one is cut; one that is named stays."""
    aimed = paper | {"target": {"source": "a/b", "path": None, "limit": None}}
    assert rescaled(aimed, [])[0]["target"] == SCALE["data"] | {"limit": 60}
    assert rescaled(aimed, ["data@target"])[0]["target"] == {"source": "a/b", "path": None, "limit": 60}
    assert "target" not in rescaled(PAPER, [])[0]


def test_only_nlu_records_have_an_opposite(paper):
    """On the embedded pool the opposite instruction gives way to padding; on an NLU data set it stays."""
    noised = paper | {"noising": {"_target_": "a.Opposite"}}
    assert rescaled(noised, [])[1]["noising._target_"] == ["a.Opposite", "a.Padding"]
    noised["data"] |= {"dataset": "sst2", "path": "folder"}
    assert "noising._target_" not in rescaled(noised, [])[1]
    noised["start"] = {"pool": {"source": "a/b", "path": None, "limit": None}}
    assert rescaled(noised, [])[1]["noising._target_"] == ["a.Opposite", "a.Padding"]


def test_paper_scale_changes_nothing(capsys):
    cfg = config("paths.run=run")
    assert scaled(cfg) is cfg and not capsys.readouterr().out


def test_smoke_is_printed_once(capsys):
    """Each change is a line `key: from -> to`; a configuration that was scaled before comes back as it is."""
    cfg = config("scale=smoke", "scale.keep=[]", "paths.run=run", "backbone=qwen2_7b", "method=consistency")
    new = scaled(cfg)
    told = capsys.readouterr().out.splitlines()
    assert told[0] == f"scale=smoke changes {len(new.scale.changes)} settings:" and len(told) == 1 + len(
        new.scale.changes
    )
    assert "  backbone.name: Qwen/Qwen2-7B -> packaged:smollm2_135m" in told and "  method.draws: 3 -> 1" in told
    assert scaled(new) is new and not OmegaConf.is_missing(new, "backbone")


def test_held_out_answers_stay_where_all_pools_are_at_hand(paper):
    """One pool of the hub, and the whole suite gives way; else the records left out are those of the smaller pool."""
    paper["data"]["path"] = "pool.json"
    pools = {"a": {"source": "a/a", "path": "a.json"}, "b": {"source": "b/b", "path": None}}
    paper["evaluation"] = {"pools": pools, "besides": copy.deepcopy(paper["data"]), "limit": None, "tasks": []}
    assert rescaled(paper, [])[0]["evaluation"]["name"] == "embedded"
    pools["b"]["path"] = "b.json"
    new, _ = rescaled(paper, [])
    assert new["evaluation"]["pools"] == pools and new["evaluation"]["limit"] == 8
    assert new["evaluation"]["besides"] == new["data"] and new["data"]["limit"] == 60


def test_a_scale_raises_no_number_of_examples(paper):
    """null and nothing both mean the number of the task itself, which the suite does not say."""
    paper["scale"]["suite"]["num_fewshot"] = 5
    paper["evaluation"]["mirror"] = "eval"
    paper["evaluation"]["tasks"] = [{"task": "a", "metrics": []}, {"task": "b", "num_fewshot": None, "metrics": []}]
    assert [task["num_fewshot"] for task in rescaled(paper, [])[0]["evaluation"]["tasks"]] == [0, 0]
    assert show_value(paper["evaluation"]["tasks"]) == "a, b"
    assert show_value(PAPER["evaluation"]["tasks"]) == "mmlu 5-shot, arc 25-shot"


def test_tasks_of_the_command_line_are_not_trimmed(paper):
    paper["evaluation"]["mirror"] = "eval"
    assert rescaled(paper, ["evaluation.tasks"])[0]["evaluation"]["tasks"] == PAPER["evaluation"]["tasks"]


def test_the_words_of_a_composed_configuration_stay(capsys):
    """`winnow.config.compose` in a notebook: what its words set stays, as what a command line sets does."""
    small = scaled(compose("scale=smoke", "data.limit=7", "paths.run=run"))
    assert small.data.limit == 7 and "data.limit" not in capsys.readouterr().out and "hydra" not in small.scale.changes
