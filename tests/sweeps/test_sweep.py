"""A sweep of an experiment as a process: launchers, failing and killed jobs, and the same command once more."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from composed import config_of_hydra, on_tiny
from trials import call

TABLE = "experiment=consistency/table3"


@pytest.fixture
def command(tiny_folder, tmp_path):
    """The command line of table 3 for the tiny backbone at smoke scale, everything below tmp_path."""

    def build(*overrides: str) -> list[str]:
        own = [
            "scale=smoke",
            *on_tiny(tiny_folder),
            "tracking=none",
            "data.limit=24",
            "selection.count=null",
            "tuning=none",
            "evaluation=none",
            "stages=[score,select]",
            f"paths.store={tmp_path / 'store'}",
            f"hydra.sweep.dir={tmp_path / 'sweep'}",
        ]
        return [*own, *overrides]

    return build


def joblib(arguments, path) -> tuple[int, str]:
    """(exit code, what it says on stderr) of `python -m winnow <arguments>` with two jobs at a time, in processes of
    their own; joblib's wait forever for one another if their parent is forked. `path` is searched for modules."""
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    places = os.pathsep.join([str(path), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": places}
    words = [sys.executable, "-m", "winnow", *arguments, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    done = subprocess.run(words, capture_output=True, text=True, env=environment, timeout=300)
    return done.returncode, done.stderr


def cards(tmp_path) -> dict[str, dict]:
    """Job -> its run card."""
    found = [json.loads(path.read_text()) for path in sorted((tmp_path / "sweep").glob("*/run_card.json"))]
    return {card["config"]["row"]["job"]: card for card in found}


@pytest.mark.slow
def test_a_failing_job_is_named_and_only_what_is_missing_is_repeated(command, tmp_path):
    """High consistency at two ratios, one of which keeps no record of 24: one job fails late and is named with its
    reason, the other one finishes, the exit status is 1, the table is written all the same. With the ratio mended, the
    same folders: what was scored before comes from the store, nothing fails."""
    only = "hydra.sweeper.only={method: consistency, row.order: high}"
    words = [TABLE, only, f"table.folder={tmp_path / 'table'}"]
    code, first = call(command(*words, "selection.ratio=0.5,0.01"), tmp_path / "log")
    assert code == 1, first
    told = first.splitlines()[-1]
    assert told.count("is no record at all") == 1 and "1 job of the sweep failed" in told
    assert sorted(card["status"] for card in cards(tmp_path).values()) == ["failed", "finished"]
    assert "scale=smoke changes" in first and "The table has" in first
    assert "is no record at all" in (tmp_path / "table" / "results-smoke.md").read_text()
    code, again = call(command(*words, "selection.ratio=0.5,0.25"), tmp_path / "log")
    assert code == 0, again
    mended = [one for job, one in cards(tmp_path).items() if "0.01" not in job]
    assert [(card["status"], card["stages"]["score"]["status"]) for card in mended] == [("finished", "reused")] * 2


@pytest.mark.slow
def test_submitit_runs_a_job(command, tmp_path):
    """The way to a cluster, without one: the job is a process of its own that submitit starts."""
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    one = ["hydra.sweeper.only={row.order: high}", "seed=0", f"table.folder={tmp_path / 'table'}"]
    code, output = call(command(TABLE, "hydra/launcher=submitit_local", *one), tmp_path / "log")
    assert code == 0, output
    assert [card["status"] for card in cards(tmp_path).values()] == ["finished"]
    (told,) = [card["command"] for card in cards(tmp_path).values()]
    assert TABLE in told and "submitit.core" not in told, told


KILLER = """
import os, time
from pathlib import Path
from hydra.experimental.callback import Callback
class Killer(Callback):
    def on_job_start(self, config, **kwargs):
        if config.row.order == "low":
            cards = Path(config.hydra.sweep.dir).glob
            while len([card for card in cards("random*/run_card.json") if '"running"' not in card.read_text()]) < 2:
                time.sleep(0.1)
            os._exit(9)
"""


@pytest.mark.slow
def test_joblib_runs_the_same_jobs_and_a_killed_one_is_named(command, tmp_path):
    """Two at a time: of the two random jobs one fails late and is named, the other finishes. A later process ends as if
    the system had killed it: the launcher's error is a sentence, its job is named, the table has what there is."""
    (tmp_path / "killer.py").write_text(KILLER)
    rows = "hydra.sweeper.rows=['method=random selection=top','method=consistency selection=bottom row.order=low']"
    words = [rows, "selection.ratio=0.5,0.01", "+hydra.callbacks.killer._target_=killer.Killer"]
    code, output = joblib(command(TABLE, *words, f"table.folder={tmp_path / 'table'}"), tmp_path)
    assert code == 1, output
    random = [card["status"] for job, card in cards(tmp_path).items() if job.startswith("random")]
    assert sorted(random) == ["failed", "finished"] and "is no record at all" in output
    assert "consistency-bottom" in output and ": not finished: it was killed" in output
    assert "ended early: TerminatedWorkerError" in output and "sweep_error.txt" in output
    assert (tmp_path / "table" / "results-smoke.md").is_file() and (tmp_path / "sweep" / "sweep_error.txt").is_file()


def test_single_runs_keep_their_mode():
    """The experiment alone makes a run a sweep; plain runs are as they were."""
    assert config_of_hydra().hydra.mode is None
