"""`winnow` as a process: exit status, one-sentence errors, sweeps, two processes. Most of the processes are forked
from one that has the imports; what hangs on a start of its own has one."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
from composed import on_tiny, places
from trials import call


@pytest.fixture
def command(tiny_folder, tmp_path):
    """The command line for the tiny backbone, everything below tmp_path."""
    return lambda *overrides: [*on_tiny(tiny_folder), *places(tmp_path), *overrides]


def python(arguments):
    """`python -m winnow <arguments>`, imports and all."""
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-m", "winnow", *arguments]
    return subprocess.run(words, capture_output=True, text=True, env=environment, timeout=300)


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["method=magic"], "method=magic is no option. Known are adg,"),
        (["method.magic=1"], "magic"),
        (["stages=[bake]"], "stages=['bake']"),
        (["backbone.name=no/such-model"], "backbone.name=no/such-model could not be loaded"),
        (["paths.run=/dev/null/nowhere"], "/dev/null/nowhere"),
        (["paths.store=/dev/null/nowhere"], "paths.store"),
        ([f"paths.run={__file__}"], "test_command.py is a file; a folder is expected"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_bad_input_is_one_sentence(command, tmp_path, overrides, told):
    """Exit status 1, one line at the end of an output that has at most the run's own first line besides."""
    code, output = call(command("stages=[score,select]", "data.limit=5", *overrides), tmp_path / "log")
    assert code == 1
    *others, last = output.splitlines()
    assert last.startswith("error: ") and told in last and all(line.startswith("Winnow: ") for line in others), output


def test_python_m_winnow_ends_with_one_sentence(command):
    """Started as a user starts it: exit status 1, the sentence on stderr alone."""
    done = python(command("stages=[score,select]", "selection.ratio=0"))
    told = "error: selection.ratio=0 must be above 0"
    assert done.returncode == 1 and done.stderr.startswith(told) and done.stderr.count("\n") == 1 and not done.stdout


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
    words = ["stages=[score,select]", "data=file", f"data.path={pool}", "selection.ratio=0.5"]
    code, output = call(command(*words), tmp_path / "log")
    assert code == 0, output
    flags = pq.read_table(tmp_path / "run" / "scores.parquet")["flag"].to_pylist()
    assert flags == [None] * 6 + ["empty_answer", None, "prompt_fills_window"]
    bad = [json.loads(line) for line in (tmp_path / "run" / "quarantine.jsonl").read_text().splitlines()]
    assert [(row["line"], bool(row["reason"])) for row in bad] == [(10, True), (11, True)]
    assert "2 quarantined" in output


def test_sweep_goes_on_after_a_failed_job(command, tmp_path):
    """A ratio that fails late, one that fails at once and a good one: the good job finishes, the bad ones are named
    with their reason, the exit status is 1."""
    sweep = tmp_path / "sweep"
    arguments = command(
        "stages=[score,select]",
        "data.limit=20",
        "method=random",
        "selection.ratio=0.001,7,0.5",
        f"hydra.sweep.dir={sweep}",
    )
    arguments = [word for word in arguments if not word.startswith("paths.run=")]  # of a single run
    code, output = call(["-m", *arguments], tmp_path / "log")
    assert code == 1
    assert "2 jobs of the sweep failed" in output and "is no record at all" in output
    assert "selection.ratio=7 must be above 0" in output
    ended = [json.loads((sweep / str(i) / "run_card.json").read_text())["status"] for i in (0, 2)]
    assert ended == ["failed", "finished"]


@pytest.mark.slow
def test_two_processes_give_the_same_scores(command, tmp_path):
    """Score, select and tune on two CPU processes from nothing, of which the first one starts the other: the passes,
    that of the selection's vectors among them, are sharded, and both tune on what the first one selects. Scores equal
    those of one process to 1e-5, the selected records are the same, the tuned loss to 1e-4."""
    common = ["stages=[score,select,tune]", "data.limit=40", "tuning.epochs=1", "tuning.batch_size=4"]
    common += ["tuning.micro_batch_size=2", "selection=consistency", "selection.classes=5", "selection.ratio=0.5"]
    two = command(*common, "trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2")
    code, output = call(two, tmp_path / "log")
    assert code == 0, output[-2000:]
    one = command(*common, f"paths.store={tmp_path / 'b'}", f"paths.run={tmp_path / 'one'}")
    assert call(one, tmp_path / "log")[0] == 0
    a, b = (pq.read_table(tmp_path / run / "scores.parquet")["score"].to_numpy() for run in ("run", "one"))
    assert len(a) == 40 and np.allclose(a, b, atol=1e-5, equal_nan=True)
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
    words = ["stages=[score,select]", "data.limit=2", "trainer=cpu", "selection.ratio=0.5"]
    code, output = call([*words, *places(tmp_path)], tmp_path / "log")
    assert code == 0, output[-2000:]
    table = pq.read_table(tmp_path / "run" / "scores.parquet")
    assert np.isfinite(table["score"].to_numpy()).all()
    assert (table["nll_direct"].to_numpy() > 0).all() and (table["score"].to_numpy() > 0).all()
