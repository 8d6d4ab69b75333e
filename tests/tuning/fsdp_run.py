"""What each of two processes runs for test_fsdp.py, and the settings of it and of its one-process twin."""

from __future__ import annotations

import json
import os
from pathlib import Path

from killed_run import SETTINGS
from test_adversaries import ALL
from test_resume import Stopped, stopping
from tiny_tuning import CPU, tiny_backbone, tiny_records, tuner

# name -> (adversary, tied embeddings, settings)
CASES = {
    "full freelb": ("freelb", True, {"mode": "full"}),
    "full nrm": ("nrm", False, {"mode": "full", "gradient_checkpointing": True}),
    "full neftune": ("neftune", True, {"mode": "full", "packing": "padding_free"}),
    "full bf16": (None, True, {"mode": "full", "dtype": "bf16"}),
    "lora freelb": ("freelb", False, {"mode": "lora", "batch_size": 12, "micro_batch_size": 12}),
    "lora pgd": ("pgd", True, {"mode": "lora", "gradient_checkpointing": True}),
}


def fit(folder: Path, name: str, trainer_args: dict = CPU, **changes) -> dict:
    """The case `name` into `folder / name`."""
    adversary, tied, settings = CASES[name]
    attack = None if adversary is None else ALL[adversary]
    own = tuner(**SETTINGS | {"epochs": 1, "checkpoint_every_steps": None} | settings | changes)
    return own.fit(tiny_backbone(tied), tiny_records(14), folder / name, attack, trainer_args=trainer_args)


def resumable(folder: Path, stop: int | None = None, trainer_args: dict = CPU) -> dict:
    """A full tuning of four steps with checkpoints, which raises at its forward pass `stop`, from 0."""
    own = tuner(**SETTINGS | {"mode": "full"})
    return own.fit(tiny_backbone(), tiny_records(14), folder, stopping(stop), trainer_args=trainer_args)


def tune(folder: Path) -> None:
    """Each case into `two`; a run into `begun`, stopped in step 3; the run in `given`, which one process has begun."""
    two = CPU | {"strategy": "fsdp", "devices": 2}
    for name in CASES:
        result = fit(folder / "two", name, two)
        (folder / "two" / name / f"rank_{os.environ['RANK']}.json").write_text(json.dumps(result | {"seconds": 0}))
    try:
        resumable(folder / "begun", 4, two)
    except Stopped:
        resumable(folder / "given", None, two)
