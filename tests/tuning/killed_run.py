"""What test_resume.py runs in a process of its own, and the settings of it and of its undisturbed twin."""

from __future__ import annotations

import os
import signal
from itertools import count
from pathlib import Path

from tiny_tuning import CPU, tiny_backbone, tiny_records, tuner

from winnow.tuning.adversary.none import NoAdversary

SETTINGS = {
    "epochs": 2,
    "batch_size": 8,
    "micro_batch_size": 2,
    "learning_rate": 5e-3,
    "weight_decay": 0.01,
    "lora_dropout": 0.1,
    "checkpoint_every_steps": 1,
}


def killer(kill_at: int) -> NoAdversary:
    """No adversary, whose forward pass `kill_at`, from 1, is the process's last."""
    adversary, calls = NoAdversary(), count(1)

    def loss(loss_of, embeds, mask):
        if next(calls) == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return loss_of(embeds)

    adversary.loss = loss
    return adversary


def tune(folder: Path, mode: str, kill_at: int) -> None:
    """Tunes the tiny model; the process sends SIGKILL to itself at its forward pass `kill_at`, never when it is 0."""
    tuner(mode=mode, **SETTINGS).fit(tiny_backbone(), tiny_records(), folder, killer(kill_at), trainer_args=CPU)
