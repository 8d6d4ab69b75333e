"""A run that is stopped and started again is the run that was never stopped."""

from __future__ import annotations

import copy
import json
import logging
import random
import resource
import signal
from shutil import copytree
from types import SimpleNamespace

import killed_run
import pytest
import torch
from killed_run import SETTINGS
from lightning_fabric.utilities.cloud_io import _atomic_save
from pytorch_lightning.strategies import DDPStrategy, SingleDeviceStrategy
from tiny_tuning import CPU, Recorder, difference, tiny_backbone, tiny_records, tuner
from trials import fork

from winnow.errors import UserError
from winnow.sharding import Sharded
from winnow.store.files import replacing
from winnow.tuning.adversary.base import Adversary
from winnow.tuning.adversary.none import NoAdversary
from winnow.tuning.checkpoints import StepCheckpoints, Straight, checkpoints, newest
from winnow.tuning.examples import EpochRecords


class Stopped(Exception):
    pass


def stopping(after: int | None = None, adversary: Adversary | None = None) -> Adversary:
    """A copy of the adversary, by default none, whose `calls` counts forward passes; the one after `after` of them
    raises."""
    adversary = adversary or NoAdversary()
    counted = copy.copy(adversary)
    counted.calls = 0

    def loss(loss_of, embeds, mask):
        if counted.calls == after:
            raise Stopped
        counted.calls += 1
        return adversary.loss(loss_of, embeds, mask)

    counted.loss = loss
    return counted


def tune(folder, adversary=None, loggers=(), records=22, **settings):
    return tuner(**{**SETTINGS, **settings}).fit(
        tiny_backbone(), tiny_records(records), folder, adversary, loggers, trainer_args=CPU
    )


def interrupted(folder, after, **settings):
    with pytest.raises(Stopped):
        tune(folder, stopping(after), **settings)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """(report, folder) of the run that was never stopped."""
    folder = tmp_path_factory.mktemp("whole")
    return tune(folder), folder


@pytest.fixture(scope="module")
def in_step_5(tmp_path_factory):
    folder = tmp_path_factory.mktemp("in_step_5")
    interrupted(folder, after=17)
    return folder


@pytest.fixture
def stopped(in_step_5, tmp_path):
    """Folder of a run that was stopped in step 5 of 6."""
    return copytree(in_step_5, tmp_path / "stopped")


@pytest.mark.fault("SIGKILL in a forward pass of tuning", promise="the same weights as undisturbed", trials="2 modes")
@pytest.mark.parametrize("mode", ["lora", "full"])
def test_killed_and_started_again(mode, tmp_path):
    """SIGKILL at call 10, inside step 3's accumulation (batches of 8, 8 and 6, micro-batch 2: calls 9 to 11),
    and again ten calls after the resume, inside step 5. Steps 1-2 and 3-4 come from checkpoints; weights and
    the whole loss history equal those of an uninterrupted run, dropout included.
    """
    for kill_at in (10, 10, 0):
        process = fork(killed_run.tune, tmp_path / "killed", mode, kill_at, log=tmp_path / "log")
        process.join()
        output = (tmp_path / "log").read_text()
        assert process.exitcode == (-signal.SIGKILL if kill_at else 0), output
        assert not any(chatter in output for chatter in ("GPU", "Tip", "Warning"))
    expected = tune(tmp_path / "whole", mode=mode)
    report = json.loads((tmp_path / "killed" / "tuning.json").read_text())
    assert report["resumed_from"] == 4 and expected["resumed_from"] is None
    assert report["train_loss"] == expected["train_loss"] and len(report["train_loss"]) == 6
    assert difference(tmp_path / "killed", tmp_path / "whole") < 1e-6


def test_two_epochs_are_one_and_one_more(whole, tmp_path):
    """22 records in batches of 8 are 3 steps per epoch: 4 + 4 + 3 micro-batches with a record in them.
    Stopped when the second epoch begins, resumed from step 3."""
    interrupted(tmp_path, after=11)
    assert [step for step, _ in checkpoints(tmp_path / "checkpoints")] == [2, 3]
    report, (expected, folder) = tune(tmp_path), whole
    assert report["resumed_from"] == 3
    assert report["train_loss"] == expected["train_loss"]
    assert difference(tmp_path, folder) < 1e-6


def test_what_was_told_of_earlier_epochs_is_kept(tmp_path):
    """Distortion and fallbacks of the epoch before the interruption: see above."""

    def fit(folder, adversary=None):
        records = tiny_records()
        examples = EpochRecords(records, lambda epoch: records, {"name": "none"}, lambda epoch: 0.1 + epoch)
        return tuner(**SETTINGS).fit(tiny_backbone(), examples, folder, adversary, trainer_args=CPU)

    with pytest.raises(Stopped):
        fit(tmp_path / "parts", stopping(17))
    resumed, told = stopping(), []
    resumed.prepare = told.append
    report, expected = fit(tmp_path / "parts", resumed), fit(tmp_path / "whole")
    assert report["resumed_from"] == 4 and report["distortion"].keys() == {"0", "1"}
    assert told == [1.1]  # of the second epoch, in whose midst it goes on
    for key in ("distortion", "noise_fallbacks", "train_loss"):
        assert report[key] == expected[key]


def test_checkpoints_of_a_given_up_past_go_first(tmp_path):
    """Two that cannot be read have the highest numbers; those that are made now stay."""
    (tmp_path / "checkpoints").mkdir()
    for step in (8, 9):
        (tmp_path / "checkpoints" / f"step_{step}.ckpt").write_bytes(b"rubbish")
    interrupted(tmp_path, after=15)
    assert [step for step, _ in checkpoints(tmp_path / "checkpoints")] == [3, 4]


def test_only_the_rest_is_trained_on(tmp_path):
    """Stopped in step 5 with checkpoints every 2 steps: steps 5 and 6 (4 + 3 micro-batches) remain. The time is that of
    the whole run: the first four steps took 1000 s."""
    interrupted(tmp_path, after=17, checkpoint_every_steps=2)
    (step, path), rest = newest(tmp_path / "checkpoints"), stopping()
    checkpoint = torch.load(path, weights_only=True)
    assert step == 4 and 0 < checkpoint["winnow"]["seconds"] < 1000
    checkpoint["winnow"]["seconds"] = 1000.0
    torch.save(checkpoint, path)
    report = tune(tmp_path, rest, checkpoint_every_steps=2)
    assert report["resumed_from"] == 4 and 1000 < report["seconds"] < 2000
    assert rest.calls == 7


def test_the_newest_checkpoint_is_the_one_with_the_highest_number(tmp_path):
    """Step 10 comes after step 9, which it does not as a string."""
    interrupted(tmp_path, after=40, epochs=4)
    assert [step for step, _ in checkpoints(tmp_path / "checkpoints")] == [9, 10]
    assert newest(tmp_path / "checkpoints") == (10, tmp_path / "checkpoints" / "step_10.ckpt")


@pytest.mark.fault(
    "the newest checkpoint is damaged", promise="tuning goes on from the one before", trials="each damage"
)
@pytest.mark.parametrize("damage", ["cut", "flipped", "empty"])
def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(damage, stopped, whole, caplog):
    (_, path) = checkpoints(stopped / "checkpoints")[-1]
    content = bytearray(path.read_bytes())
    if damage == "flipped":
        content[len(content) // 2] ^= 0xFF
    path.write_bytes({"cut": content[: len(content) // 2], "flipped": content, "empty": b""}[damage])
    with caplog.at_level(logging.WARNING):
        report, (expected, folder) = tune(stopped), whole
    assert "step_4.ckpt cannot be read" in caplog.text
    assert report["resumed_from"] == 3
    assert report["train_loss"] == expected["train_loss"]
    assert difference(stopped, folder) < 1e-6


@pytest.mark.fault(
    "a flipped bit in a checkpoint", promise="tuning goes on from one that holds what was written", trials="300"
)
def test_no_flipped_bit_of_a_checkpoint_is_used(tmp_path, record_property):
    """300 flips, of which many are in the archive's own tables: the checkpoint before is taken in place of one that has
    other values than those written."""
    record_property("trials", 300)
    before, path, draws = tmp_path / "step_1.ckpt", tmp_path / "step_2.ckpt", random.Random(0)
    torch.save({"a": -torch.arange(9.0)}, before)
    torch.save({"a": torch.arange(9.0)}, path)
    sound, taken = path.read_bytes(), []
    assert newest(tmp_path) == (2, path)
    for at in draws.sample(range(8 * len(sound)), 300):
        damaged = bytearray(sound)
        damaged[at // 8] ^= 1 << at % 8
        path.write_bytes(damaged)
        step, found = newest(tmp_path)
        taken.append(step)
        values = torch.load(found, weights_only=True)["a"].tolist()
        assert values == [(-1 if step == 1 else 1) * number for number in range(9)]
    assert set(taken) == {1, 2}  # a flip in what nobody reads does no harm


def test_all_checkpoints_damaged_means_from_the_beginning(stopped, caplog):
    for _, path in checkpoints(stopped / "checkpoints"):
        path.write_bytes(b"no archive")
    report = tune(stopped)
    assert report["resumed_from"] is None and len(report["train_loss"]) == 6
    assert "step_4.ckpt" in caplog.text and "step_3.ckpt" in caplog.text


def test_a_checkpoint_of_another_run_is_refused(stopped):
    with pytest.raises(UserError, match="made by another run .*'learning_rate': 0.005.* then"):
        tune(stopped, learning_rate=1e-3)
    with pytest.raises(UserError, match="made by another run .*records: "):
        tune(stopped, records=21)
    half = tiny_backbone()
    half.model.bfloat16()
    with pytest.raises(UserError, match="made by another run .*'dtype': 'fp32'.* then, .*'dtype': 'bf16'.* now"):
        tuner(**SETTINGS).fit(half, tiny_records(), stopped, trainer_args=CPU)
    assert [step for step, _ in checkpoints(stopped / "checkpoints")] == [3, 4]


@pytest.mark.parametrize("mode", ["lora", "full"])
def test_a_checkpoint_holds_what_is_trained(mode, tmp_path):
    """Adapters only under LoRA; every weight once in full training (the tied head is the embedding)."""
    interrupted(tmp_path, after=8, mode=mode)
    (_, path) = checkpoints(tmp_path / "checkpoints")[-1]
    names = set(torch.load(path, weights_only=True)["state_dict"])
    if mode == "lora":
        assert len(names) == 2 * 7 * 2 and all("lora_" in name for name in names)  # A and B, 7 matrices, 2 layers
    else:
        assert names == {f"model.{name}" for name, _ in tiny_backbone().model.named_parameters()}


STRATEGIES = [SingleDeviceStrategy, DDPStrategy, Sharded]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_checkpoint_is_written_straight_into_its_file(strategy, tmp_path, monkeypatch):
    """With the bytes that Lightning would write, which needs their number in memory and again in $TMPDIR."""
    _atomic_save({"a": torch.arange(9.0)}, tmp_path / "theirs")
    monkeypatch.setattr("lightning_fabric.plugins.io.torch_io._atomic_save", None)
    own = strategy()
    StepCheckpoints(tmp_path, 1, 2).setup(SimpleNamespace(strategy=own), None, "fit")
    own.save_checkpoint({"a": torch.arange(9.0)}, tmp_path / "ours")
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()


def test_a_full_disk_is_told_with_the_checkpoint(tmp_path):
    """A limit on the size of files stands for it. torch reports its own error, not the system's."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limits[1]))
        with pytest.raises(UserError, match="step_1.ckpt cannot be written: File too large"):  # noqa: SIM117
            with replacing(tmp_path / "step_1.ckpt") as partial:
                Straight().save_checkpoint({"a": torch.ones(1 << 19)}, partial)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.iterdir())


def test_checkpoints_stay_when_the_model_is_saved(tmp_path):
    """The store removes them when the model is sealed. What a kill has left half-written goes at once."""
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / ".step_1.ckpt.7.tmp").write_text("")
    tune(tmp_path, epochs=1)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["step_1.ckpt", "step_2.ckpt"]


def test_loggers_count_on(stopped):
    """0-based steps 4 and 5 are left after a resume from 4 finished ones."""
    recorder = Recorder()
    tune(stopped, loggers=[recorder])
    assert [step for step, _ in recorder.rows] == [4, 5]


SIZES = [({"micro_batch_size": first}, {"micro_batch_size": then}) for first, then in ((2, 8), (8, 1))]


@pytest.mark.parametrize(("first", "then"), [*SIZES, ({"packing": "none"}, {"packing": "padding_free"})])
def test_micro_batches_of_another_size_go_on(first, then, tmp_path):
    """As after a lack of memory: stopped in step 5 of 6, with 4, 4, 3 micro-batches of 2 or one of 8 for a step. Losses
    and weights are those of an uninterrupted run but for rounding, also without padding."""
    interrupted(tmp_path / "parts", after={2: 15, 8: 4}[first.get("micro_batch_size", 2)], **first)
    rest = stopping()
    report = tune(tmp_path / "parts", rest, **then)
    expected = tune(tmp_path / "whole", **then)
    size = then.get("micro_batch_size", 2)  # steps 5 and 6 hold 8 and 6 records
    assert report["resumed_from"] == 4 and rest.calls == {8: 2, 2: 7, 1: 14}[size]
    for ours, whole in zip(report["train_loss"], expected["train_loss"], strict=True):
        assert ours["loss"] == pytest.approx(whole["loss"], abs=5e-6)
    assert difference(tmp_path / "parts", tmp_path / "whole") < 1e-4
