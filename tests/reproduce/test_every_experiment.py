"""Every experiment under conf/experiment really runs, through the command line's own entry point: a tiny backbone, one
step, two items, one job for each kind of row."""

from __future__ import annotations

import csv
import inspect
import json
import sys
from pathlib import Path

import pytest
from composed import CONF
from tiny import tiny_model, tiny_tokenizer

from winnow import __main__ as command_line
from winnow import commands
from winnow.evaluation.greedy import greedy_answers
from winnow.stages import report
from winnow.sweeps import rows

SAMPLES = CONF.parent / "experiments" / "samples" / "nlu"
# Its categories are not counted; of the other one the jobs that are left to run only score.
UNMEASURED = ("consistency/table6", "verdict/lds")
SEARCHES = sorted(f"search/{path.stem}" for path in (CONF / "experiment" / "search").glob("*.yaml"))
# scale=smoke on another backbone and smaller still; a byte is a token of the tiny tokenizer.
SCALE = """
defaults:
  - smoke
  - _self_
name: tiny
backbone: {{name: {backbone}, dtype: fp32, attn_implementation: sdpa}}
at_most: {{data.limit: 12, start.pool.limit: 12, target.limit: 4,
  tuning.max_steps: 1, tuning.batch_size: 2, tuning.micro_batch_size: 2,
  pre_experience.tuner.batch_size: 2, pre_experience.tuner.micro_batch_size: 2, pre_experience.clusters: 2,
  pre_experience.per_cluster: 1,
  evaluation.limit: 2, method.max_new_tokens: 4, method.layer: 2, selection.classes: 4, selection.count: 2}}
"""


SELECTING = ("method", "selection", "pre_experience", "attack", "data@target", "stages")
ENDS = {  # stages -> the groups and keys that they have to do with
    "[score,select]": SELECTING,
    "[score,select,tune]": (*SELECTING, "noising", "adversary"),
}
SEEN: set[str] = set()  # kinds of rows that ran already, in this process


def kinds(job: list[str]) -> set[str]:
    """What of a job is code of its own: choices of a group (`method=ifd`), and which other keys are swept. Backbones
    and pools are made one by the scale; the NLU data sets have tests of their own."""
    words = [word for word in job[:-2] if not word.startswith(("row.", "backbone=", "scorer.name", "seed", "data="))]
    return {word if "." not in word.split("=")[0] and "[" not in word else word.split("=")[0] for word in words}


def few(jobs: list[list[str]], seen: set[str]) -> list[list[str]]:
    """Few of a sweep's jobs in which every kind occurs that is not in `seen`, at least one job; `seen` grows. A job
    that differs from the first one in its selection or tuning alone ends there."""
    left = set().union(*map(kinds, jobs)) - seen
    seen |= left
    chosen = []
    while left or not chosen:
        chosen.append(max(jobs, key=lambda job: len(left & kinds(job))))
        left -= kinds(chosen[-1])
    for i, job in enumerate(chosen[1:], 1):
        new = kinds(job) - kinds(chosen[0])
        ends = [f"stages={end}" for end, keys in ENDS.items() if all(kind.startswith(keys) for kind in new)]
        chosen[i] = [*ends[:1], *job]
    return chosen


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with the scale's YAML, a backbone, and one store for all experiments: what they share is computed once.
    The backbone has four blocks, as ADG takes the vectors of four."""
    folder = tmp_path_factory.mktemp("experiments")
    tiny_model(layers=4, width=16).save_pretrained(folder / "backbone")
    tiny_tokenizer().save_pretrained(folder / "backbone")
    (folder / "conf" / "scale").mkdir(parents=True)
    (folder / "conf" / "scale" / "tiny.yaml").write_text(SCALE.format(backbone=folder / "backbone"), encoding="utf-8")
    return folder


def short_answers(*given, **named):
    """NLU answers of 4 tokens: an untrained model does not end its own."""
    call = inspect.signature(greedy_answers).bind(*given, **named)
    call.arguments["max_tokens"] = 4
    return greedy_answers(*call.args, **call.kwargs)


@pytest.fixture
def experiment(place, monkeypatch):
    """Runs an experiment as `python -m winnow` does; returns its sweep's folder."""
    monkeypatch.setattr("winnow.evaluation.model.greedy_answers", short_answers)
    monkeypatch.setattr("hydra.plugins.sweeper.Sweeper.validate_batch_is_legal", lambda *_: None)  # the launch does so
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")

    def run(name: str, *overrides: str) -> Path:
        if (place / "runs" / name.split("/")[0]).exists():  # pages of one experiment of each paper
            monkeypatch.setattr(report, "write_report", lambda *given: None)
            monkeypatch.setattr("winnow.compare.dashboard.write_dashboard", lambda folder: folder)
        folder = place / "runs" / name
        own = [
            f"experiment={name}",
            "scale=tiny",
            f"hydra.searchpath=[file://{place / 'conf'}]",
            "template.max_length=1500",
            f"selection.ratio={1.0 if name.startswith('aifd') else 0.5}",  # few have an IFD below 1
            "trainer=cpu",
            "trainer.enable_progress_bar=false",
            "tracking=none",
            f"paths.store={place / 'store'}",
            f"paths.nlu={SAMPLES}",
            f"hydra.sweep.dir={folder}",
        ]
        monkeypatch.setattr(sys, "argv", ["winnow", *own, *overrides])
        command_line.main()  # a failed job is a SystemExit that names it
        return folder

    return run


def cards(folder: Path) -> list[dict]:
    return [json.loads(path.read_text()) for path in folder.glob("*/run_card.json")]


@pytest.mark.slow
@pytest.mark.parametrize("name", commands.experiments())
def test_every_kind_of_row_runs_and_the_table_is_written(name, experiment, place, monkeypatch):
    """All jobs finish, each with the stages that it was asked for; every one of them is found by the table."""
    asked = []
    expand = rows.expand
    monkeypatch.setattr(rows, "expand", lambda *given: asked.extend(few(expand(*given), SEEN)) or asked)
    pool = ["data=embedded"] if name == "adg/chinese" else []  # it wants a pool of yours
    done = cards(experiment(name, f"table.folder={place / name}", *pool))
    assert len(done) == len(asked) > 0 and {card["status"] for card in done} == {"finished"}
    limit = 12 * (8 if name == "anit/multitask" else 1)  # of each data set
    for card in done:
        groups = {"tune": "tuning", "evaluate": "evaluation"}
        idle = {stage for stage, group in groups.items() if card["hydra"]["choices"][group] == "none"}
        ran = {stage for stage, record in card["stages"].items() if record["status"] != "skipped"}
        assert ran == set(card["config"]["stages"]) - idle
        assert (
            card["config"]["scale"]["name"] == card["hydra"]["choices"]["scale"] == "tiny"
            and card["data"]["n_records"] <= limit
        )
    written = (place / name / "results-tiny.md").read_text()
    assert f"\n{len(done)} jobs" in written and "failed or unfinished" not in written
    measured = csv.DictReader((place / name / "results-tiny.csv").open(encoding="utf-8"))
    assert any(row["ours"] and row["commit"] for row in measured) or name in UNMEASURED


@pytest.mark.slow
@pytest.mark.parametrize("name", SEARCHES)
def test_every_search_runs(name, experiment):
    """One trial: the objective that the YAML names is among the results."""
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    folder = experiment(name, "hydra.sweeper.n_trials=1")
    (card,) = cards(folder)
    assert card["config"]["objective"] in card["results"]
    assert "best_value" in (folder / "optimization_results.yaml").read_text()


def test_few_jobs_stand_for_all():
    """Two methods at two ratios on two backbones, and all data: three jobs have every choice and every swept key; the
    last two only select. Of what another experiment has had, one job is left."""
    names = ["a", "b"]
    jobs = [["method=full", f"backbone={b}", "x", "y"] for b in names]
    for method in names:
        jobs += [[f"method={method}", f"selection.ratio={r}", f"backbone={b}", "x", "y"] for r in (1, 2) for b in names]
    seen = set()
    first, *others = few(jobs, seen)
    assert {first[0], *(job[1] for job in others)} == {"method=a", "method=b", "method=full"}
    assert [job[0] for job in others] == ["stages=[score,select]"] * 2
    assert seen == {"method=a", "method=b", "method=full", "selection.ratio"} and len(few(jobs, seen)) == 1
