"""`make experiments`: what each experiment is told, what is counted, and what a second call repeats."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from functools import partial

import pytest
from composed import CONF, build, config
from run_folders import run_folder

from winnow import commands
from winnow.errors import UserError
from winnow.sweeps.summary import note_failure

read = partial(build, "data/sst2")

SPEC = importlib.util.spec_from_file_location("run_all", CONF.parent / "experiments" / "run_all.py")
run_all = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(run_all)
FINE = {"exit": 0, "seconds": 1.0, "log": "log", "jobs": 2, "failed": 0, "failures": {}}
FINE |= {"finished": ["a", "b"], "stand_ins": ["data=alpaca", "evaluation=consistency"]}
FINE["stages"] = {stage: {"computed": 2, "reused": 0} for stage in run_all.STAGES}


@pytest.fixture
def call(tmp_path, monkeypatch):
    """Calls the script without running a job, in a repository without changes; returns {experiment: overrides} of what
    it would have run."""

    def run(*words: str, about: dict = FINE, changed: str = "") -> dict[str, list[str]]:
        ran: dict[str, list[str]] = {}

        def one(name, command, out, scale):
            ran[name] = command
            for job in about["finished"]:
                folder = out / name / scale / job
                if not folder.exists():
                    run_folder(folder)
            return dict(about)

        monkeypatch.setattr(run_all, "one", one)
        monkeypatch.setattr(run_all, "git_state", lambda folder: {"commit": "0123456789", "dirty": bool(changed)})
        monkeypatch.setattr(sys, "argv", ["run_all.py", "--out", str(tmp_path / "out"), *words])
        run_all.main()
        return ran

    return run


def without_hydra(words: list[str]) -> list[str]:
    return [word for word in words if not word.startswith("hydra.")]


def test_every_experiment_is_run_and_told_what_its_configuration_knows(call, tmp_path):
    """All experiments and both searches, in one store; each one's overrides compose, and NLU data sets come from the
    samples, which the tables say."""
    ran = call()
    assert set(ran) == {*commands.experiments(), "search/consistency", "search/anit"}
    for name in ("consistency/table1", "anit/table4", "anit/table1", "adg/chinese"):
        cfg = config(*without_hydra(ran[name]), "paths.run=run")
        assert cfg.paths.store == str(tmp_path / "out" / "store") and cfg.scale.name == "smoke"
        if name.startswith("anit"):
            assert cfg.data.path == cfg.evaluation.path == str(tmp_path / "out" / "nlu")
            assert cfg.table.data.startswith("sentences written for this project stand in for conll03 ontonotes nyt")
        else:
            assert cfg.table.data is None
    page = (tmp_path / "out" / "all-smoke.md").read_text()
    assert "| consistency/table1 | 2 | 0 | 1 | 2 + 0 |" in page and f"| all | {2 * len(ran)} | 0 |" in page


def test_given_data_takes_the_place_of_the_samples(call, tmp_path):
    """One data set of the user's, in a folder of its name: it is linked, the other seven stay samples. A pool and a
    mirror reach the experiments that can use them; the Chinese one's tasks are not in the mirror."""
    (tmp_path / "mine" / "SST-2").mkdir(parents=True)
    for split in ("train", "test"):
        (tmp_path / "mine" / "SST-2" / f"{split}.tsv").write_text("sentence\tlabel\nnice, too\t1\n")
    (tmp_path / "pool, mine.json").write_text("[]")
    pool = tmp_path / "pool, mine.json"
    ran = call("--nlu", str(tmp_path / "mine"), "--pools", f"alpaca={pool}", "--eval", str(tmp_path))
    nlu = tmp_path / "out" / "nlu"
    assert [record.input.rpartition("Text: ")[2] for record in read(dataset="sst2", path=nlu).records] == ["nice, too"]
    assert len(read(dataset="ontonotes", path=nlu).records) >= 60
    told = next(word for word in ran["anit/table1"] if word.startswith("table.data"))
    assert "sst2" not in told and "lap14" in told
    cfg = config(*without_hydra(ran["consistency/table1"]), "data=alpaca", "paths.run=run")
    assert cfg.data.path == str(pool) and cfg.evaluation.mirror == str(tmp_path)
    assert not any(word.startswith("paths.eval") for word in ran["adg/chinese"])


def test_the_same_command_repeats_what_is_missing(call, tmp_path):
    """Finished: passed over. A failed job: status 1 and run again. Another command, or --again: run again."""
    only = ("--only", "consistency/table3", "ifd/main")
    assert set(call(*only)) == {"consistency/table3", "ifd/main"} and call(*only) == {}
    assert set(call(*only, "--again")) == set(call(*only, "--", "seed=1")) == {"consistency/table3", "ifd/main"}
    assert call(*only, "--", "seed=1") == {}
    with pytest.raises(SystemExit, match="2 of 2 experiments are not finished: consistency/table3, ifd/main"):
        call(*only, about=FINE | {"failed": 1, "exit": 1, "failures": {"job": "no pool"}})
    assert "| consistency/table3 | 2 | 1 |" in (tmp_path / "out" / "all-smoke.md").read_text()
    assert set(call(*only)) == {"consistency/table3", "ifd/main"}


def test_finished_is_what_is_still_there_and_was_committed(call, tmp_path):
    """A run folder that was deleted, and files that differ from the commit, now or then: run again."""
    only = ("--only", "consistency/table3")
    assert call(*only) and call(*only) == {}
    shutil.rmtree(tmp_path / "out" / "consistency" / "table3" / "smoke" / "b")
    assert call(*only) and call(*only) == {}
    assert call(*only, changed=" M src/winnow/pipeline.py") and call(*only, changed=" M src/winnow/pipeline.py")
    assert "| 0123456+ |" in (tmp_path / "out" / "all-smoke.md").read_text()
    assert call(*only) and call(*only) == {}


def test_the_page_names_what_stood_in(call, tmp_path):
    """Pools and suites of the jobs, the pool that adg/chinese wants, and the samples of the NLU data sets."""
    call("--only", "consistency/table3", "adg/chinese")
    told = (tmp_path / "out" / "all-smoke.md").read_text()
    assert (
        "The embedded pool and suite stood in for data=alpaca, evaluation=consistency, the pool of adg/chinese." in told
    )
    call("--only", "consistency/table3", "--again", about=FINE | {"stand_ins": []})
    assert "stood in" not in (tmp_path / "out" / "all-smoke.md").read_text()
    call("--only", "anit/table4")
    assert "Sentences written for this project stood in for conll03" in (tmp_path / "out" / "all-smoke.md").read_text()


def test_jobs_of_this_sweep_are_counted(tmp_path):
    """Began at noon: the job of 11:00 does not count. Of three later ones one computed its scores, one found them in
    the store, one failed; a fourth failed before it had a card."""
    for name, hour, how in (("old", 11, "computed"), ("new", 13, "computed"), ("store", 13, "reused")):
        done = {"score": (1.0, how), "evaluate": (1.0, "computed")}
        run_folder(tmp_path / name, seconds=done, started=f"2026-01-01T{hour}:00:00+00:00")
    card = json.loads((tmp_path / "new" / "run_card.json").read_text())
    card["config"]["data"] = {"source": "embedded"}
    (tmp_path / "new" / "run_card.json").write_text(json.dumps(card))
    bad = {"status": "failed", "error": "no pool", "started": "2026-01-01T13:00:00+00:00"}
    run_folder(tmp_path / "bad", seconds={"score": (4.0, "computed")}, **bad)
    (tmp_path / "early").mkdir()
    note_failure(tmp_path / "early", UserError("no ratio"))
    noon = 1767268800.0  # 2026-01-01 12:00 UTC
    found = run_all.jobs_since(tmp_path, noon)
    assert (found["jobs"], found["failed"]) == (4, 2) and found["failures"] == {"bad": "no pool", "early": "no ratio"}
    assert found["finished"] == ["new", "store"] and found["stand_ins"] == ["data=alpaca"]
    assert found["stages"]["score"] == {"computed": 1, "reused": 1}
    assert found["stages"]["evaluate"] == {"computed": 2, "reused": 0}


def test_wrong_words_are_one_sentence(call, capsys):
    for words, told in (
        (["--only", "consistency/table5"], "no such experiment or paper"),
        (["--nlu", "/no/such"], "no such folder"),
        (["--pools", "alpaca"], "NAME=FILE"),
        (["--pools", f"alpacca={__file__}"], "no experiment has a pool of this name; choose alpaca, .*, file"),
    ):
        with pytest.raises(SystemExit, match=told):
            call(*words)
    with pytest.raises(SystemExit):
        call("--scale", "nosuch")
    assert "invalid choice: 'nosuch'" in capsys.readouterr().err
