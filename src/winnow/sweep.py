"""What a multirun sweep says at its end: which jobs failed, and why; and the table that it was for."""

from __future__ import annotations

import json
import time
import traceback
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from winnow.errors import user_sentence
from winnow.files import write_atomically

FAILED: list[str] = []  # "job folder: sentence", filled when a sweep of this process ends
FINISHED: list[
    dict[str, Any]
] = []  # of a sweep that ended: folder, and what its table needs; None outside of experiments
FAILURE = "failed.json"  # in a job's folder: why its last attempt failed
LAST_SWEEP = "sweep.json"  # in an experiment's folder: when its last sweep began, in seconds since 1970


def note_failure(folder: Path, error: Exception) -> None:
    """Leave the reason in the job's folder: the job may run in another process than the sweep's."""
    sentence = user_sentence(error) or "".join(traceback.format_exception(error))
    write_atomically(folder / FAILURE, json.dumps({"error": sentence}))
    print(f"This job failed: {sentence}", flush=True)


def failure(file: Path) -> str:
    """The sentence that `note_failure` left; of a traceback the last line."""
    return json.loads(file.read_text(encoding="utf-8"))["error"].strip().splitlines()[-1]


class SweepSummary(Callback):
    """Hydra callback: clears old verdicts before a job, collects the new ones when the sweep ends.

    The folder of an experiment may hold jobs of earlier sweeps: a verdict counts if it is not older than this one.
    """

    def __init__(self) -> None:
        self.began = 0.0

    def on_multirun_start(self, config: DictConfig, **kwargs) -> None:
        self.began = time.time()

    def on_job_start(self, config: DictConfig, **kwargs) -> None:
        Path(config.hydra.runtime.output_dir, FAILURE).unlink(missing_ok=True)

    def on_multirun_end(self, config: DictConfig, **kwargs) -> None:
        folder = Path(config.hydra.sweep.dir)
        for file in sorted(folder.rglob(FAILURE)):
            # A second of grace: the file system's clock may be coarser than ours.
            if file.stat().st_mtime >= self.began - 1:
                FAILED.append(f"{file.parent.relative_to(folder)}: {failure(file)}")
        table = config.get("table")
        if table is not None:
            table = OmegaConf.to_container(table, resolve=True)
            write_atomically(folder / LAST_SWEEP, json.dumps({"began": self.began}))
        FINISHED.append({"folder": folder, "table": table, "scale": OmegaConf.select(config, "scale.name")})
