"""Two processes train the same model as one."""

from __future__ import annotations

import json

import ddp_run
import pytest
from tiny_tuning import difference
from trials import two


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where two processes have run all cases: their start is what takes time."""
    folder = tmp_path_factory.mktemp("ddp")
    codes, output = two(ddp_run.tune_all, folder, log=folder / "log")
    assert codes == [0, 0], output
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["lora", "full"])
def test_two_processes_equal_one(mode, folder, tmp_path):
    """Batches of 8, 8 and 6 records in micro-batches of 2: each process takes 2 per step, and one of them has
    an empty one in step 3. Dropout is drawn by record, so only the order of additions differs."""
    expected = ddp_run.fit(tmp_path, mode)
    reports = [json.loads((folder / mode / f"rank_{rank}.json").read_text()) for rank in range(2)]
    assert reports[0]["train_loss"] == reports[1]["train_loss"]
    for ours, single in zip(reports[0]["train_loss"], expected["train_loss"], strict=True):
        assert abs(ours["loss"] - single["loss"]) < 1e-5
    assert difference(folder / mode, tmp_path) < 1e-5


@pytest.mark.slow
def test_two_processes_wait_for_no_expert(folder, tmp_path):
    """Two records of at most 13 tokens leave some of 16 experts without one in either process. A gradient that is not
    waited for would end the run in step 2; steps of AdamW that one process counts otherwise would be 1e-3 off."""
    ddp_run.fit(tmp_path, "full experts")
    assert difference(folder / "full experts", tmp_path) < 2e-4


@pytest.mark.slow
def test_two_processes_resume(folder, tmp_path):
    """Stopped in step 4 (2 + 2 + 2 or 1 forward passes for steps 1 to 3), continued: the uninterrupted
    run."""
    reports = [json.loads((folder / "resumed" / f"rank_{rank}.json").read_text()) for rank in range(2)]
    assert [report["resumed_from"] for report in reports] == [3, 3]
    ddp_run.fit(tmp_path, "lora")
    assert difference(folder / "resumed", tmp_path) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lora nrm", "full freelb"])
def test_two_processes_equal_one_with_an_adversary(name, folder, tmp_path):
    """Gradients of an ascent stay in their process; those that are trained on, handed over or not, are averaged. Of the
    20 and 2 records of `full freelb` the processes take 10 each, and in step 2 one of them takes none.

    Rounding is amplified where a gradient is brought to unit length and by Adam's division: differences of 5e-5 were
    seen. Adam takes steps of up to 5e-3 here, so that a gradient that is not averaged would change far more."""
    ddp_run.fit(tmp_path, name)
    assert difference(folder / name, tmp_path) < 2e-4


@pytest.mark.slow
def test_two_processes_know_one_distortion(folder):
    """Each would measure its own, 1 / its number, in either of two epochs: a paid service may answer differently."""
    reports = [json.loads((folder / "full" / f"rank_{rank}.json").read_text()) for rank in range(2)]
    assert reports[0]["distortion"] == reports[1]["distortion"] and len(reports[0]["distortion"]) == 2
