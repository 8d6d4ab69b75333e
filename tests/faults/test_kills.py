"""Runs that are killed, interrupted or told to end, at any moment of any stage: nothing is lost, nothing is left."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from trials import call, start, without_privileges

STAGES = ["score", "select", "tune", "evaluate", "report"]
TRIALS = int(os.environ.get("WINNOW_KILL_TRIALS", "1"))  # for each stage
SETTINGS = [
    "trainer=cpu",
    "tracking=none",
    "backbone=hub",
    "template.max_length=1500",
    "data.limit=16",
    "scoring.tokens_per_batch=1",  # a record a batch and a part a record: many moments
    "scoring.flush_seconds=0",
    "selection.ratio=0.5",
    "tuning.max_steps=6",
    "tuning.batch_size=4",
    "tuning.micro_batch_size=2",
    "tuning.checkpoint_every_steps=1",
    "evaluation.limit=3",
]
PARTS = "store/passes/*/parts/*.parquet"
UNREPORTED = "stages=[score,select,tune,evaluate]"  # a report takes a fifth of a run, and one of the tests reads it
INTERRUPTS = [("score", signal.SIGINT), ("tune", signal.SIGINT), ("tune", signal.SIGTERM), ("evaluate", signal.SIGINT)]


@pytest.fixture(scope="module")
def settings(tiny_folder) -> list[str]:
    return [*SETTINGS, f"backbone.name={tiny_folder}"]


@pytest.fixture(scope="module")
def undisturbed(settings, tmp_path_factory):
    """(numbers, seconds of each stage) of a run that nothing disturbs."""
    folder = tmp_path_factory.mktemp("undisturbed")
    code, output = call([*settings, *paths(folder)], folder / "log")
    assert code == 0, output
    stages = json.loads((folder / "run" / "run_card.json").read_text())["stages"]
    return numbers(folder / "run"), {name: stage["seconds"] for name, stage in stages.items()}


@pytest.fixture(scope="module")
def half_scored(settings, tmp_path_factory):
    """Run and store of half of the records, scored and selected."""
    folder = tmp_path_factory.mktemp("half_scored")
    (folder / "store" / "evaluations").mkdir(parents=True)
    code, output = call([*settings, *paths(folder), "data.limit=8", "stages=[score,select]"], folder / "log")
    assert code == 0, output
    return folder


def paths(folder: Path) -> list[str]:
    return [f"paths.run={folder / 'run'}", f"paths.store={folder / 'store'}"]


def numbers(run: Path, whole: bool = True) -> dict[str, object]:
    """All that a run concludes: scores, the subset, and of a whole one the loss of each step and every metric."""
    subset = (run / "subset.jsonl").read_bytes()
    chosen = {"scores": pq.read_table(run / "scores.parquet")["score"].to_numpy(), "subset": subset}
    if not whole:
        return chosen
    results = json.loads((run / "results.json").read_text())["models"]
    return chosen | {
        "losses": np.array([point["loss"] for point in json.loads((run / "tuning.json").read_text())["train_loss"]]),
        "metrics": np.array([one["value"] for name in ("base", "tuned") for one in results[name]["metrics"].values()]),
    }


def same(ours: dict[str, object], theirs: dict[str, object]) -> bool:
    """The subset to the byte, numbers to the rounding of other batches, as far as ours go."""
    close = all(np.allclose(ours[key], theirs[key], atol=1e-4) for key in ours.keys() - {"subset"})
    return close and ours["subset"] == theirs["subset"]


def ended(folder: Path) -> set[str]:
    """The stages that the latest run of the folder has ended; its card has those of the runs before as skipped."""
    stages = json.loads((folder / "run" / "run_card.json").read_text())["stages"]
    return {name for name, stage in stages.items() if stage["status"] in ("computed", "reused")}


def wait_for(stage: str, folder: Path, process) -> None:
    """Until the stage runs: the card is there before the first one and has a stage when it has ended. A card of the run
    before, which the process has not replaced yet, lacks the stage in which that run was stopped."""
    before = set(STAGES[: STAGES.index(stage)])
    while process.is_alive():
        if (folder / "run" / "run_card.json").exists() and before <= ended(folder):
            return
        time.sleep(0.005)


@pytest.mark.slow
@pytest.mark.fault(
    "SIGKILL at a random moment of each stage, and the same command after each",
    promise="the numbers of an undisturbed run; no lock, no half file stands in the way",
    trials="1 a stage in CI, 30 a stage with WINNOW_KILL_TRIALS=30",
)
@pytest.mark.parametrize("trial", range(TRIALS))
def test_killed_run_ends_at_the_same_numbers(settings, undisturbed, tmp_path, record_property, trial):
    """In one folder the command is killed in its first stage, the same command in the second one, and so on; the last
    one ends. The moment is drawn from the stage's seconds in the undisturbed run; the first of all leaves a part of a
    pass. Where a quicker run has ended the stage by then, a run in a fresh folder is killed after half the time; every
    folder has a run that ends."""
    record_property("trials", len(STAGES))
    expected, seconds = undisturbed
    folders = [tmp_path / "0"]
    for stage in STAGES:
        wait = random.Random(f"{stage} {trial}").random() * seconds[stage]
        for attempt in range(5):
            process = start([*settings, *paths(folders[-1])], tmp_path / "log")
            wait_for(stage, folders[-1], process)
            time.sleep(wait / 2**attempt)
            while stage == "score" and not trial and process.is_alive() and not any(folders[-1].glob(PARTS)):
                time.sleep(0.005)
            process.kill()
            process.join()
            if stage == "select" and not trial and len(folders) == 1:  # after the kill that left a part
                score = json.loads((folders[0] / "run" / "run_card.json").read_text())["stages"]["score"]
                assert score["reused"] + score["resumed"] > 0
            if process.exitcode == -signal.SIGKILL and stage not in ended(folders[-1]):
                break
            folders.append(tmp_path / str(len(folders)))
        else:
            pytest.fail(f"no run was killed in the stage {stage}: {(tmp_path / 'log').read_text()}")
    for folder in folders:
        code, output = call([*settings, *paths(folder)], tmp_path / "log")
        assert code == 0, output
        assert same(numbers(folder / "run"), expected)
        assert "</html>" in (folder / "run" / "report.html").read_text()
        assert not list(folder.rglob("*.tmp"))


@pytest.mark.slow
@pytest.mark.fault(
    "Ctrl-C or SIGTERM in a stage",
    promise="one sentence with the stage and what was finished, exit 1; the card says interrupted; goes on from there",
    trials="SIGINT in three stages, SIGTERM in one of them",
)
def test_interrupted_run_says_so(settings, undisturbed, tmp_path, record_property):
    """One command in one folder, interrupted four times, and then left alone. In the middle of the stage by the clock
    of the undisturbed run; of tuning, once there is a new checkpoint. Where a quicker run has ended the stage by then,
    a run in a fresh folder is interrupted; every folder has a run that ends."""
    record_property("trials", len(INTERRUPTS))
    expected, seconds = undisturbed
    folders = [tmp_path / "0"]
    for stage, number in INTERRUPTS:
        for attempt in range(1, 4):
            folder = folders[-1]
            before = checkpoints(folder)
            process = start([*settings, UNREPORTED, *paths(folder)], tmp_path / "log")
            wait_for(stage, folder, process)
            if stage == "tune":
                while process.is_alive() and not checkpoints(folder) - before:
                    time.sleep(0.005)
            else:
                time.sleep(seconds[stage] / 2**attempt)
            with suppress(ProcessLookupError):  # a run so much quicker that it has ended
                os.kill(process.pid, number)
            process.join(60)
            output = (tmp_path / "log").read_text()
            if before:  # a bar begins there, too, and has an end
                assert re.search(r"Tuning goes on from step [1-5] of 6\.", output)
                assert re.search(r"Tuning: +\d+%\|[^|]*\| [1-9]\d*/\d+ ", output)
            if stage not in ended(folder):
                break
            folders.append(tmp_path / str(len(folders)))
        else:
            pytest.fail(f"no run was interrupted in the stage {stage}: {output}")
        card = json.loads((folder / "run" / "run_card.json").read_text())
        assert (process.exitcode, card["status"]) == (1, "interrupted"), output
        done = ", ".join(STAGES[: STAGES.index(stage)]) or "no stage"
        assert card["error"] == f"Interrupted in the stage {stage}; finished: {done}."
        assert card["stages"][stage]["status"] == "interrupted"
        told = f"{card['error']} The store holds the finished results; the same command continues from there."
        assert output.rstrip().endswith(told)
        assert "Traceback" not in output
    for folder in folders:
        code, output = call([*settings, UNREPORTED, *paths(folder)], tmp_path / "log")
        assert code == 0 and same(numbers(folder / "run"), expected), output


def checkpoints(folder: Path) -> set[Path]:
    return set(folder.rglob("step_*.ckpt"))


@pytest.mark.slow
@pytest.mark.fault(
    "four runs share a store, and one that computes is killed",
    promise="the others end with the same numbers, each record computed by one of them",
    trials="1",
)
def test_runs_share_a_store(settings, undisturbed, tmp_path):
    """Three others wait for the first one's lock, or take over when it is gone."""
    expected, seconds = undisturbed
    store = f"paths.store={tmp_path / 'store'}"
    runs = [
        start([*settings, UNREPORTED, store, f"paths.run={tmp_path / name / 'run'}"], tmp_path / f"{name}.log")
        for name in "abcd"
    ]
    wait_for("score", tmp_path / "a", runs[0])
    time.sleep(seconds["score"] / 2)
    runs[0].kill()
    for name, process in zip("bcd", runs[1:], strict=True):
        process.join(500)
        assert process.exitcode == 0, (tmp_path / f"{name}.log").read_text()
        assert same(numbers(tmp_path / name / "run"), expected)
    ledgers = list(tmp_path.glob("store/passes/*/ledger.jsonl"))
    computed = [sum(json.loads(line)["records"] for line in file.read_text().splitlines()) for file in ledgers]
    assert ledgers and max(computed) <= 16  # one less where the kill came between a part and its line


@pytest.mark.slow
@pytest.mark.fault(
    "a folder is read-only: the run's, the whole store, one kind of artifact, a folder of a pass",
    promise="one sentence that names the folder, exit 1; writable again, the same command ends at the same numbers",
    trials="4 places",
)
@pytest.mark.parametrize("place", ["run", "store", "store/evaluations", "store/passes/*/parts"])
def test_a_read_only_folder_is_one_sentence(settings, undisturbed, half_scored, tmp_path, place):
    """It is made so after half of the records were scored; the same pass then asks for all of them. The stages
    after the selection run where they are the first to write into the folder."""
    expected, _ = undisturbed
    whole = place in ("store", "store/evaluations")
    command = [*settings, UNREPORTED if whole else "stages=[score,select]", *paths(tmp_path)]
    shutil.copytree(half_scored, tmp_path, symlinks=True, dirs_exist_ok=True)
    folders = list(tmp_path.glob(place))
    for folder in folders:
        folder.chmod(0o555)
    code, output = without_privileges(command, tmp_path / "log")
    told = output.splitlines()[-1].partition("error: ")[2]  # a bar may stand before it
    assert code == 1 and "cannot be written" in told and any(str(folder) in told for folder in folders), output
    assert "Traceback" not in output
    for folder in folders:
        folder.chmod(0o755)
    code, output = call(command, tmp_path / "log")
    assert code == 0 and same(numbers(tmp_path / "run", whole), expected), output


LEADER = """
import os, signal, sys, time
from winnow.perturb.attacks.prompts import worker_pool
if __name__ == "__main__":
    with worker_pool(2) as pool:
        running = [pool.submit(os.getpid) for _ in range(2)]
        for one in running:
            one.result()
        print(*pool._processes, flush=True)
        time.sleep(60)
"""


@pytest.mark.slow
@pytest.mark.fault("SIGKILL of a leader whose workers make prompts", promise="its workers end with it", trials="1")
def test_workers_end_with_their_leader(tmp_path):
    """Two workers of 780 MiB each waited for work forever."""
    (tmp_path / "leader.py").write_text(LEADER)
    leader = subprocess.Popen([sys.executable, tmp_path / "leader.py"], stdout=subprocess.PIPE, text=True)
    workers = [int(word) for word in leader.stdout.readline().split()]
    assert workers and all(map(runs, workers))
    leader.kill()
    leader.wait()
    deadline = time.monotonic() + 20
    while any(map(runs, workers)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(map(runs, workers))


def runs(process: int) -> bool:
    """Whether a process is there and is no zombie."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except FileNotFoundError:
        return False


@pytest.mark.fault("SIGKILL of a sweep", promise="the next sweep in its folder removes its notes", trials="1")
def test_notes_of_a_killed_sweep_are_removed(tmp_path):
    """Those of a process that lives stay: it may be a sweep in the same folder."""
    from composed import config
    from omegaconf import open_dict

    from winnow.sweeps.summary import SWEEPS, SweepSummary

    ended = subprocess.Popen(["true"])
    ended.wait()
    dead, alive = (tmp_path / f".jobs-{os.uname().nodename}-{pid}-ab" for pid in (ended.pid, os.getppid()))
    dead.mkdir(), alive.mkdir()
    cfg = config("data.limit=3")
    with open_dict(cfg):
        sweeper = {"_target_": "hydra._internal.core_plugins.basic_sweeper.BasicSweeper", "params": {}}
        cfg.hydra = {"sweep": {"dir": str(tmp_path)}, "sweeper": sweeper, "overrides": {"task": []}}
    try:
        SweepSummary().on_multirun_start(cfg)
    finally:
        SWEEPS.clear()
    assert not dead.exists() and alive.exists()
