"""What the benchmarks share: the shipped configuration, a pool, and a place for results."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from pathlib import Path

from hydra.utils import instantiate

from winnow.backbone.causal_model import CausalModel
from winnow.config import compose
from winnow.quiet import quiet

quiet()

HERE = Path(__file__).resolve().parent
TRAINER = {"accelerator": "cpu", "devices": 1, "enable_progress_bar": False}


def parts(*overrides: str):
    """(configuration, backbone source, template) as `winnow <overrides>` builds them."""
    cfg = compose(*overrides)
    return cfg, instantiate(cfg.backbone), instantiate(cfg.template)


class Counter:
    """How many sequences and how many tokens, padding counted, went through the transformer body."""

    def __init__(self, model) -> None:
        self.sequences = self.tokens = 0
        CausalModel(model).body.register_forward_pre_hook(self._count, with_kwargs=True)

    def _count(self, module, args, given) -> None:
        x = given["input_ids"] if given.get("inputs_embeds") is None else given["inputs_embeds"]
        self.sequences += x.shape[0]
        self.tokens += x.shape[0] * x.shape[1]


def save(name: str, command: str, numbers: dict) -> None:
    """Write `results/<name>.json` with the command, the commit and the machine, and print it."""
    git = ["git", "-C", str(HERE), "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True).stdout.strip() or None
    about = {"command": command, "commit": commit, "machine": f"{platform.machine()}, {os.cpu_count()} cores"}
    path = HERE / "results" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(about | numbers, indent=1) + "\n", encoding="utf-8")
    print(path.read_text())
