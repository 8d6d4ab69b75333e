"""`python -m winnow` as a process: exit status, one-sentence errors, sweeps, kill and restart, two processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow.parquet as pq
import pytest

QUICK = ["trainer=cpu", "tracking=none", "backbone=hub", "backbone.dtype=fp32", "template.max_length=1500"]


@pytest.fixture
def command(tiny_folder, tmp_path):
    """The command line for the tiny backbone, everything below tmp_path."""

    def build(*overrides: str) -> list[str]:
        paths = [f"paths.run={tmp_path / 'run'}", f"paths.store={tmp_path / 'store'}"]
        return [sys.executable, "-m", "winnow", *QUICK, f"backbone.name={tiny_folder}", *paths, *overrides]

    return build


def call(arguments, **options):
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.run(arguments, capture_output=True, text=True, env=environment, timeout=300, **options)


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["selection.ratio=0"], "selection.ratio=0 must be above 0"),
        (["selection.ratio=1.5"], "selection.ratio=1.5 must be above 0 and at most 1"),
        (["method=magic"], "method=magic is no option"),
        (["method.magic=1"], "magic"),
        (["stages=[bake]"], "stages=['bake']"),
        (["backbone.name=no/such-model"], "backbone.name=no/such-model could not be loaded"),
        (["data=file", "data.path=/no/such.json"], "/no/such.json"),
        (["paths.run=/dev/null/nowhere"], "/dev/null/nowhere"),
        (["paths.store=/dev/null/nowhere"], "paths.store"),
        ([f"paths.run={__file__}"], "test_command.py is a file; a folder is expected"),
        (["seed=abc"], "seed=abc is not a whole number"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_bad_input_is_one_sentence(command, overrides, told):
    """Exit status 1, one line on stderr, no traceback."""
    done = call(command("stages=[score,select]", "data.limit=5", *overrides))
    assert done.returncode == 1
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert len(lines) == 1 and lines[0].startswith("error: ") and told in lines[0], done.stderr


def test_bad_rows_do_not_stop_a_run(command, tmp_path):
    """An empty answer, a 100,000-token record, a prompt that fills the window, a row without an answer field and a
    line that is no JSON: two are quarantined, the rest is flagged or scored, the run ends well."""
    rows = [{"instruction": f"Say {i}", "input": "", "output": f"{i} it is"} for i in range(6)]
    rows += [
        {"instruction": "Nothing", "input": "", "output": ""},
        {"instruction": "Long", "input": "", "output": "word " * 20_000},
        {"instruction": "Fill " * 1000, "input": "", "output": "x"},
        {"instruction": "No answer field"},
    ]
    pool = tmp_path / "pool.jsonl"
    pool.write_text("\n".join(json.dumps(row) for row in rows) + "\n{broken\n", encoding="utf-8")
    done = call(command("stages=[score,select]", "data=file", f"data.path={pool}", "selection.ratio=0.5"))
    assert done.returncode == 0, done.stderr
    flags = pq.read_table(tmp_path / "run" / "scores.parquet")["flag"].to_pylist()
    assert flags == [None] * 6 + ["empty_answer", None, "prompt_fills_window"]
    bad = [json.loads(line) for line in (tmp_path / "run" / "quarantine.jsonl").read_text().splitlines()]
    assert [(row["line"], bool(row["reason"])) for row in bad] == [(10, True), (11, True)]
    assert "2 quarantined" in done.stdout


def test_sweep_goes_on_after_a_failed_job(command, tmp_path):
    """Two methods, a ratio that fails late and one that fails at once: the good jobs finish, the bad ones are named
    with their reason, the exit status is 1."""
    sweep = tmp_path / "sweep"
    arguments = command(
        "stages=[score,select]",
        "data.limit=20",
        "method=random,length",
        "selection.ratio=0.5,0.001,7",
        f"hydra.sweep.dir={sweep}",
    )
    arguments.insert(3, "-m")  # flags come before overrides
    done = call(arguments)
    assert done.returncode == 1
    assert "4 jobs of the sweep failed" in done.stderr and "is no record at all" in done.stderr
    assert "selection.ratio=7 must be above 0" in done.stderr
    finished = [json.loads((sweep / str(i) / "run_card.json").read_text())["status"] for i in (0, 1, 3, 4)]
    assert finished == ["finished", "failed", "finished", "failed"]


def test_killed_while_scoring_goes_on(command, tmp_path):
    """SIGKILL after the first parts are on disk, then the same command: it says how many records are there, and the
    scores equal those of an undisturbed run to 1e-5."""
    slow = ["stages=[score]", "scoring.tokens_per_batch=1", "scoring.flush_seconds=0"]
    process = subprocess.Popen(
        command(*slow), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    store = tmp_path / "store" / "passes"
    deadline = time.monotonic() + 120
    while len(list(store.glob("*/parts/*.parquet"))) < 20:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    resumed = call(command(*slow))
    assert resumed.returncode == 0 and "of 380 records are in the store" in resumed.stdout
    undisturbed = call(command("stages=[score]", f"paths.store={tmp_path / 'b'}", f"paths.run={tmp_path / 'whole'}"))
    assert undisturbed.returncode == 0
    a, b = (pq.read_table(tmp_path / run / "scores.parquet")["score"].to_numpy() for run in ("run", "whole"))
    assert len(a) == 380 and np.allclose(a, b, atol=1e-5, equal_nan=True)


@pytest.mark.slow
def test_two_processes_give_the_same_scores(command, tmp_path):
    """Score, select and tune on two CPU processes from nothing: the passes, that of the selection's vectors among them,
    are sharded, and both tune on what the first one selects. Scores equal those of one process to 1e-5, the selected
    records are the same, the tuned loss to 1e-4."""
    common = ["stages=[score,select,tune]", "data.limit=60", "tuning.epochs=1", "tuning.batch_size=4"]
    common += ["tuning.micro_batch_size=2", "selection=consistency", "selection.classes=5", "selection.ratio=0.5"]
    two = call(command(*common, "trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"))
    assert two.returncode == 0, two.stderr[-2000:]
    one = call(command(*common, f"paths.store={tmp_path / 'b'}", f"paths.run={tmp_path / 'one'}"))
    assert one.returncode == 0
    a, b = (pq.read_table(tmp_path / run / "scores.parquet")["score"].to_numpy() for run in ("run", "one"))
    assert len(a) == 60 and np.allclose(a, b, atol=1e-5, equal_nan=True)
    made = [json.loads((tmp_path / run / "selection.json").read_text())["decisions"] for run in ("run", "one")]
    picked = [[(row["id"], row["class"], row["selected"]) for row in decisions] for decisions in made]
    assert picked[0] == picked[1] and sum(selected for _, _, selected in picked[0]) > 3
    loss = [
        json.loads((tmp_path / run / "tuning.json").read_text())["train_loss"][-1]["loss"] for run in ("run", "one")
    ]
    assert abs(loss[0] - loss[1]) < 1e-4


@pytest.mark.slow
def test_packaged_backbone_scores(tmp_path):
    """The default backbone on a few records: every loss is finite and above 0, and so is every ratio."""
    done = call(
        [
            sys.executable,
            "-m",
            "winnow",
            "stages=[score,select]",
            "data.limit=16",
            "tracking=none",
            "trainer=cpu",
            f"paths.run={tmp_path / 'run'}",
            f"paths.store={tmp_path / 'store'}",
            "selection.ratio=0.5",
        ]
    )
    assert done.returncode == 0, done.stderr[-2000:]
    table = pq.read_table(tmp_path / "run" / "scores.parquet")
    assert np.isfinite(table["score"].to_numpy()).all()
    assert (table["nll_direct"].to_numpy() > 0).all() and (table["score"].to_numpy() > 0).all()
