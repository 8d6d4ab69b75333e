"""Two processes that share one model train it as one process does."""

from __future__ import annotations

import json

import fsdp_run
import pytest
import torch
from test_resume import Stopped
from tiny_tuning import difference, tiny_records, weights
from transformers import AutoModelForCausalLM
from trials import two

from winnow.tuning.data import MicroBatches, Step


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where two processes have run all cases: their start is what takes time."""
    folder = tmp_path_factory.mktemp("fsdp")
    with pytest.raises(Stopped):
        fsdp_run.resumable(folder / "given", 7)
    codes, output = two(fsdp_run.tune, folder, log=folder / "log")
    assert codes == [0, 0], output
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in fsdp_run.CASES if "bf16" not in name])
def test_two_processes_that_share_a_model_equal_one(name, folder):
    """Batches of 8 and 6 records in micro-batches of 2: in step 2 a process repeats its neighbour's micro-batch, which
    counts nothing; `lora freelb` has batches of 12 and 2 records, so that in step 2 a process does nothing else. Only
    the order of additions differs; it is amplified where a gradient is brought to unit length and by Adam's division:
    differences of 3e-5 were seen. Adam takes steps of up to 5e-3 here, so that a gradient that is lost, counted twice
    or not averaged would change far more."""
    expected = fsdp_run.fit(folder / "one", name)
    one, both = folder / "one" / name, folder / "two" / name
    reports = [json.loads((both / f"rank_{rank}.json").read_text()) for rank in range(2)]
    assert reports[0] == reports[1]
    for ours, single in zip(reports[0]["train_loss"], expected["train_loss"], strict=True):
        assert ours["loss"] == pytest.approx(single["loss"], abs=1e-4)
    assert difference(both, one) < 2e-4
    for key in ("trainable_parameters", "total_parameters", "records", "answer_tokens"):
        assert reports[0][key] == expected[key]


@pytest.mark.slow
def test_sharded_bf16_is_bf16(folder):
    """Blocks are collected in bf16, where one process casts them layer by layer, and what is trained stays fp32. So the
    two differ by less than bf16 differs from fp32: a tenth was seen, a third is asked for."""
    fsdp_run.fit(folder / "one", "full bf16")
    fsdp_run.fit(folder / "exact", "full bf16", dtype="fp32")
    both, one, exact = (weights(folder / place / "full bf16" / "model") for place in ("two", "one", "exact"))

    def apart(other):
        return torch.cat([(value - one[name]).flatten() for name, value in other.items()]).abs().mean()

    assert 0 < apart(both) < apart(exact) / 3


@pytest.mark.slow
def test_a_run_goes_on_with_another_number_of_processes(folder):
    """Two processes stopped in step 3 (2 + 2 forward passes each), and one goes on; one stopped there (4 + 3), and two
    went on. Both are the run that was never stopped, with its dropout and the optimizer's moments."""
    fsdp_run.resumable(folder / "whole")
    assert fsdp_run.resumable(folder / "begun")["resumed_from"] == 2
    assert json.loads((folder / "given" / "tuning.json").read_text())["resumed_from"] == 2
    for name in ("begun", "given"):
        assert difference(folder / name, folder / "whole") < 1e-4


@pytest.mark.slow
def test_the_saved_model_is_an_ordinary_one(folder):
    saved = folder / "two" / "full freelb" / "model"
    model, info = AutoModelForCausalLM.from_pretrained(saved, output_loading_info=True)
    assert not any(info.values()) and model.dtype == torch.float32
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_a_spare_micro_batch_repeats_the_last_of_its_step():
    """Three micro-batches on two processes: the second's second is a repetition of the third, which counts nothing."""
    data = MicroBatches(tiny_records(6), [Step(0, [[0, 1], [2, 3], [4, 5]])], 2, 1, spare=True)
    assert [data[k].spare for k in range(2)] == [False, True]
    assert data[1].records == tuple(record.id for record in tiny_records(6)[4:])
    empty = MicroBatches(tiny_records(6), [Step(0, [[0, 1], [2, 3], [4, 5]])], 2, 1)[1]
    assert not empty.spare and empty.records == ()
