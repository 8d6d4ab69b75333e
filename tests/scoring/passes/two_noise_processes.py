"""Run by test_noise_pass.py under torchrun: `two_noise_processes.py FOLDER` computes the noise pass of the tiny model
on two CPU processes; the first one writes `kl.npy`."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from composed import template
from test_noise_divergence import SMALL
from tiny import tiny_model, tiny_tokenizer
from tiny_passes import TRAINER, Loaded, column, make_records, sharper

from winnow.backbone.loading import Backbone
from winnow.distributed import is_leader
from winnow.scoring.runner import PassRunner
from winnow.store.artifacts import Store

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    tiny = sharper(Backbone(tiny_model(), tiny_tokenizer(), {"name": "tiny", "tokenizer": "bytes"}, "tiny"))
    two = TRAINER | {"strategy": "ddp", "devices": 2}
    runner = PassRunner(Loaded(tiny), Store(folder / "store"), two, tokens_per_batch=256)
    table = runner.compute(SMALL, make_records(), template("alpaca"))
    if is_leader():
        np.save(folder / "kl.npy", column(table, "kl_beta_1"))
