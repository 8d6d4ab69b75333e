"""Lightning's Trainer takes what its users know; what Winnow sets itself is refused."""

from __future__ import annotations

import os
import signal

import pytest
import pytorch_lightning as pl
import torch
from composed import config
from hydra.utils import instantiate
from tiny_tuning import CPU, tiny_backbone, tiny_records, tuner

from winnow.__main__ import _interrupt
from winnow.backbone.shared import on_all_devices
from winnow.errors import UserError
from winnow.trainer import KNOWN, REFUSED, check_trainer, make_trainer

SETTINGS = {"mode": "full", "epochs": 1, "batch_size": 4, "micro_batch_size": 2, "checkpoint_every_steps": 1}


def test_every_argument_of_lightning_is_taken_or_refused_with_a_reason():
    """The defaults of Lightning itself are settings that no one needs to fear."""
    trainer = make_trainer({"accelerator": "cpu", "benchmark": False, "detect_anomaly": True}, logger=False)
    assert isinstance(trainer, pl.Trainer) and not set(KNOWN) & set(REFUSED)
    for name in REFUSED:
        with pytest.raises(UserError, match=rf"^trainer\.{name} is set by Winnow itself; leave it out and give "):
            check_trainer({name: 1})
    with pytest.raises(UserError, match=r"^trainer\.profilr is no setting; did you mean trainer\.profiler\?"):
        check_trainer({"profilr": "simple"})
    with pytest.raises(UserError, match="cannot be used on this machine: .*limit_val_batches"):
        make_trainer({"accelerator": "cpu", "limit_val_batches": -3})
    for devices in ([1], "0,2", "two"):
        with pytest.raises(UserError, match=r"trainer.devices=.* is no number: .* CUDA_VISIBLE_DEVICES"):
            check_trainer({"devices": devices})
    for strategy in (
        "deepspeed_stage_3",
        "fsdp_cpu_offload",
        "model_parallel",
        "ddp_spawn",
        "ddp_notebook_find_unused_parameters_true",
    ):
        with pytest.raises(UserError, match=rf"trainer.strategy={strategy} is not supported: take ddp \(one whole mod"):
            check_trainer({"strategy": strategy})


def test_a_notebook_does_not_fork(monkeypatch):
    """There `auto` means processes that are forked: they would share the first one's part of the data."""
    monkeypatch.setattr("pytorch_lightning.trainer.connectors.accelerator_connector._IS_INTERACTIVE", True)
    with pytest.raises(UserError, match="trainer.devices=2 needs processes that begin anew, and a notebook forks them"):
        make_trainer({"accelerator": "cpu", "devices": 2}, logger=False)
    make_trainer({"accelerator": "cpu", "devices": 1}, logger=False)


def test_a_gpu_is_one_with_cuda(monkeypatch):
    """Apple's MPS, which Lightning would take for `auto` and `gpu`, has no float64; memory is counted for the CPU."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("pytorch_lightning.accelerators.mps.MPSAccelerator.is_available", lambda: True)
    assert isinstance(make_trainer({"accelerator": "auto"}, logger=False).accelerator, pl.accelerators.CPUAccelerator)
    for name in ("gpu", "cuda", "mps"):
        with pytest.raises(
            UserError, match=f"this machine: it has no CUDA device for accelerator={name}; give trainer"
        ):
            make_trainer({"accelerator": name}, logger=False)


def test_the_configured_settings_and_callbacks_make_a_trainer():
    cfg = config("trainer=cpu", "callbacks=model_summary", "trainer.profiler=simple", "+trainer.benchmark=true")
    trainer = make_trainer({**cfg.trainer, "callbacks": list(instantiate(cfg.callbacks).values())}, logger=False)
    assert type(trainer.profiler).__name__ == "SimpleProfiler"
    assert [one._max_depth for one in trainer.callbacks if isinstance(one, pl.callbacks.ModelSummary)] == [2]


def test_signals_stay_winnows_own():
    """SIGTERM in a step is what the command line makes of it, an interrupt; Ctrl-C works after it."""
    before, seen = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)], []

    def work() -> None:
        seen.append(signal.getsignal(signal.SIGTERM))
        os.kill(os.getpid(), signal.SIGTERM)

    signal.signal(signal.SIGTERM, _interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            on_all_devices({"accelerator": "cpu"}, torch.nn.Linear(1, 1), work)
        assert seen == [_interrupt] and signal.getsignal(signal.SIGINT) is before[1]
    finally:
        signal.signal(signal.SIGTERM, before[0])


def test_a_profiler_reports(tmp_path, caplog):
    """Its report names the steps of the loop that it timed."""
    tuner(**SETTINGS).fit(tiny_backbone(), tiny_records(), tmp_path, trainer_args={**CPU, "profiler": "simple"})

    assert "run_training_batch" in caplog.text


def test_work_on_all_devices_is_done_once_and_whole():
    """Without gradients, and outside of inference mode, whose tensors no later training can use."""
    calls = []

    def work() -> None:
        calls.append((torch.is_grad_enabled(), torch.is_inference_mode_enabled()))

    on_all_devices({"accelerator": "cpu"}, torch.nn.Linear(1, 1), work)
    assert calls == [(False, False)]
