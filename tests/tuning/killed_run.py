"""Run by test_resume.py in a process of its own: `killed_run.py FOLDER MODE KILL_AT` tunes the tiny model and
sends SIGKILL to itself at forward pass KILL_AT of this process (never, when 0)."""

from __future__ import annotations

import os
import signal
import sys
from itertools import count

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


if __name__ == "__main__":
    target, chosen_mode, at = sys.argv[1:]
    tuner(mode=chosen_mode, **SETTINGS).fit(tiny_backbone(), tiny_records(), target, killer(int(at)), trainer_args=CPU)
