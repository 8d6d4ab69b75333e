"""Local copies in place of the hub, named once for all jobs of a sweep (`paths.pools`, `paths.nlu`, `paths.eval`)."""

from __future__ import annotations

import pytest
from composed import CONF, config

POOLS = ["alpaca", "alpaca_gpt4", "alpagasus", "dolly", "flan_cot", "lima", "sharegpt", "wizardlm", "wizardlm_filtered"]
NLU = ["agnews", "conll03", "lap14", "nyt", "ontonotes", "rest14", "scierc", "sst2", "webnlg"]


@pytest.mark.parametrize("name", POOLS)
def test_a_pool_is_read_from_its_own_file(name):
    """`paths.pools` names a file for each choice of `data`: a pool takes its own, and no other's."""
    copies = "paths.pools={" + ", ".join(f"{one}: /copies/{one}.json" for one in POOLS) + "}"
    assert config(f"data={name}", copies).data.path == f"/copies/{name}.json"
    other = next(one for one in POOLS if one != name)
    assert config(f"data={name}", f"paths.pools.{other}=/copies/other.json").data.path is None


@pytest.mark.parametrize("name", NLU)
def test_the_nlu_folder_serves_data_and_evaluation(name):
    """The training split and the evaluation are looked for in the same folder."""
    cfg = config(f"data={name}", "evaluation=nlu", "paths.nlu=/copies/nlu")
    assert cfg.data.path == cfg.evaluation.path == "/copies/nlu"


def test_every_pool_with_a_hub_name_is_listed():
    """A pool that is added later has to read `paths.pools` or `paths.nlu` too; `suite` reads `paths.eval`."""
    assert sorted([*POOLS, *NLU, "embedded", "file", "hub", "nlu_tasks", "suite"]) == sorted(
        path.stem for path in (CONF / "data").glob("[!_]*.yaml")
    )


@pytest.mark.parametrize("suite", ["consistency", "leaderboard", "adg", "ifeval", "hellaswag_arc_easy"])
def test_the_folder_of_the_suites(suite):
    assert config(f"evaluation={suite}", "paths.eval=/copies/eval").evaluation.mirror == "/copies/eval"


def test_the_run_s_own_path_wins():
    copies = "paths.pools={alpaca: /copies/alpaca.json}"
    assert config("data=alpaca", copies, "data.path=/mine.json").data.path == "/mine.json"
