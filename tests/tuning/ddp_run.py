"""What each of two processes runs for test_ddp.py."""

from __future__ import annotations

import json
import os
from pathlib import Path

from killed_run import SETTINGS
from test_adversaries import ALL
from test_module import experts_backbone
from test_resume import Stopped, stopping
from tiny_tuning import CPU, tiny_backbone, tiny_records, tuner

from winnow.tuning.examples import EpochRecords

# name -> (mode, adversary)
CASES = {"lora": ("lora", None), "full": ("full", None), "lora nrm": ("lora", "nrm"), "full freelb": ("full", "freelb")}
CASES["full experts"] = ("full", None)
WIDE = {"batch_size": 20, "micro_batch_size": 20}  # steps of 20 and 2 records


def fit(folder: Path, name: str, stop: int | None = None, trainer_args: dict = CPU) -> dict:
    """The case `name`; without an adversary it raises at its forward pass `stop`."""
    mode, adversary = CASES[name]
    attack = stopping(stop) if adversary is None else ALL[adversary]
    backbone = experts_backbone() if "experts" in name else tiny_backbone()
    own = tuner(mode=mode, **SETTINGS | (WIDE if adversary == "freelb" else {}))
    # A distortion that differs between processes.
    records = EpochRecords(tiny_records(), distortion=None if adversary else lambda _: 1 / os.getpid())
    return own.fit(backbone, records, folder, attack, trainer_args=trainer_args)


def tune(folder: Path, name: str, stop: int | None = None) -> None:
    """The case on two CPU processes."""
    result = fit(folder, name, stop, CPU | {"strategy": "ddp", "devices": 2})
    Path(folder, f"rank_{os.environ['RANK']}.json").write_text(json.dumps(result))


def tune_all(folder: Path) -> None:
    """Each case into a folder of its name; one into `resumed`, stopped in step 4, and once more."""
    for name in CASES:
        tune(folder / name, name)
    try:
        tune(folder / "resumed", "lora", 6 - int(os.environ["RANK"]))  # of step 3 the second process has one pass
    except Stopped:
        tune(folder / "resumed", "lora")
