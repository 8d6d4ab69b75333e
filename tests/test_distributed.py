"""Processes wait for one another as long as it takes."""

from __future__ import annotations

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


def test_a_group_of_lightning_is_patient(monkeypatch):
    """What Lightning hands to torch when it forms the group itself."""
    asked = []
    form = "pytorch_lightning.strategies.ddp._init_dist_connection"
    monkeypatch.setattr(form, lambda *_, **given: asked.append(given))
    trainer = make_trainer({"accelerator": "cpu", "strategy": "ddp", "devices": 2}, logger=False)
    trainer.strategy.setup_distributed()
    assert [given["timeout"] for given in asked] == [PATIENCE]
