"""What each of two processes runs for test_ddp.py."""

from __future__ import annotations

import json
import os
from pathlib import Path

from killed_run import SETTINGS
from test_adversaries import ALL
from test_resume import stopping
from tiny_tuning import CPU, tiny_backbone, tiny_records, tuner


def tune(folder: Path, mode: str, stop: int | None = None, name: str | None = None) -> None:
    """Tunes the tiny model on two CPU processes, against the adversary `name`; every process raises at its forward pass
    `stop`."""
    adversary = stopping(stop) if name is None else ALL[name]
    two = CPU | {"strategy": "ddp", "devices": 2}
    result = tuner(mode=mode, **SETTINGS).fit(tiny_backbone(), tiny_records(), folder, adversary, trainer_args=two)
    Path(folder, f"rank_{os.environ['RANK']}.json").write_text(json.dumps(result))
