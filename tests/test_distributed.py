"""Processes wait for one another as long as it takes."""

from __future__ import annotations

import os
import time

import torch.distributed as dist

from winnow.distributed import PATIENCE, join
from winnow.trainer import make_trainer


def test_a_group_of_torchrun_is_patient(monkeypatch):
    """The leader may evaluate for hours while the others stand in a broadcast."""
    asked = []
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(dist, "init_process_group", lambda **given: asked.append(given))
    join()
    assert asked == [{"timeout": PATIENCE}] and PATIENCE.days >= 7


def test_a_child_of_lightnings_launcher_ends_with_its_parent(monkeypatch):
    """It has the parent's environment; the parent is killed while the child stands in a broadcast. A pipe ends when no
    process has it any more."""
    for variable in ("TORCHELASTIC_RUN_ID", "SLURM_STEP_NUM_TASKS", "LOCAL_RANK"):
        monkeypatch.delenv(variable, raising=False)
    read, write = os.pipe()
    parent = os.fork()
    if not parent:
        try:
            join()
            if not os.fork():
                os.environ["LOCAL_RANK"] = "1"
                join()
                time.sleep(20)
        finally:
            os._exit(0)
    os.close(write)
    os.waitpid(parent, 0)
    began = time.monotonic()
    assert os.read(read, 1) == b"" and time.monotonic() - began < 10


def test_a_group_of_lightning_is_patient(monkeypatch):
    """What Lightning hands to torch when it forms the group itself."""
    asked = []
    form = "pytorch_lightning.strategies.ddp._init_dist_connection"
    monkeypatch.setattr(form, lambda *_, **given: asked.append(given))
    trainer = make_trainer({"accelerator": "cpu", "strategy": "ddp", "devices": 2}, logger=False)
    trainer.strategy.setup_distributed()
    assert [given["timeout"] for given in asked] == [PATIENCE]
