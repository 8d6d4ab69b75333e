"""What the benchmarks share: the shipped configuration, scores of a pool, memory, and a place for results."""

from __future__ import annotations

import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from hydra.utils import instantiate
from scipy.stats import spearmanr

from winnow.config import build, compose
from winnow.quiet import quiet
from winnow.scoring.scores import Scores
from winnow.selection.detection import detection
from winnow.selection.rule import Selection
from winnow.tracking.run_card import git_state

quiet()

HERE = Path(__file__).resolve().parent
TRAINER = {"accelerator": "cpu", "devices": 1, "enable_progress_bar": False}


def parts(*overrides: str):
    """(configuration, backbone source, template) as `winnow <overrides>` builds them."""
    cfg = compose(*overrides)
    return cfg, instantiate(cfg.backbone), instantiate(cfg.template)


def scored(method, runner, records, template) -> Scores:
    """The scores of a method over passes that are computed, or found in the store."""
    tables = {name: runner.compute(pass_, records, template) for name, pass_ in method.passes.items()}
    return method.score(tables, records)


def best(method, scores: Scores, records, ratio: float) -> Selection:
    """The best share of the eligible records."""
    table = scores.table(records, {"method": method.name, "settings": {}})
    return build("selection/top", ratio=ratio).select(table, scores.higher_is_better, method.filters)


def judged(method, runner, records, template) -> tuple[Scores, Selection, dict]:
    """Scores of a method, its best tenth, and how well it finds the defects."""
    scores = scored(method, runner, records, template)
    chosen = best(method, scores, records, 0.1)
    kinds = [record.raw["defect"] for record in records]
    return scores, chosen, detection(chosen.decisions, kinds, scores.higher_is_better)


def overlap(a: Sequence[int], b: Sequence[int], digits: int = 4) -> float:
    """What both hold, as a share of the smaller one."""
    return round(len(set(a) & set(b)) / min(len(a), len(b)), digits)


def correlation(a: np.ndarray, b: np.ndarray, digits: int = 4) -> float:
    """Spearman's, over the records that have both values."""
    both = ~(np.isnan(a) | np.isnan(b))
    return round(float(spearmanr(a[both], b[both]).statistic), digits)


def apart(*words: object) -> dict:
    """What the benchmark prints last when it runs with these words, in a process of its own."""
    command = [sys.executable, sys.argv[0], *map(str, words)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])


def resident_mib(key: str) -> float:
    """VmRSS, what is resident now, or VmHWM, the most there was since the last reset. From /proc, so Linux only."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) / 1024


def reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def save(name: str, numbers: dict) -> None:
    """Write `results/<name>.json` with the command, the commit (with a + where files differ from it) and the machine,
    and print it. Of a file, and of a folder with a whole path, the command has the name."""
    words = [Path(word).name if Path(word).is_file() or Path(word).is_absolute() else word for word in sys.argv[1:]]
    threads = os.environ.get("OMP_NUM_THREADS")
    command = shlex.join(["python", f"experiments/benchmarks/{Path(sys.argv[0]).name}", *words])
    git = git_state(HERE)
    about = {
        "command": f"OMP_NUM_THREADS={threads} {command}" if threads else command,
        "commit": git["commit"] and f"{str(git['commit'])[:7]}{'+' * bool(git['dirty'])}",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
    }
    path = HERE / "results" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(about | numbers, indent=1) + "\n", encoding="utf-8")
    print(path.read_text())
