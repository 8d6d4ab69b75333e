"""Run by test_ddp.py under torchrun: `ddp_run.py FOLDER MODE STOP [ADVERSARY]` tunes the tiny model on two CPU
processes; when STOP is not 0 every process raises at that forward pass."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from killed_run import SETTINGS
from test_adversaries import ALL
from test_resume import stopping
from tiny_tuning import CPU, tiny_backbone, tiny_records, tuner

if __name__ == "__main__":
    folder, mode, stop, *named = sys.argv[1:]
    two = CPU | {"strategy": "ddp", "devices": 2}
    adversary = ALL[named[0]] if named else stopping(int(stop) or None)
    result = tuner(mode=mode, **SETTINGS).fit(tiny_backbone(), tiny_records(), folder, adversary, trainer_args=two)
    Path(folder, f"rank_{os.environ['RANK']}.json").write_text(json.dumps(result))
