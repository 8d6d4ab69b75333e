"""What a multirun sweep says at its end: which jobs failed, and why."""

from __future__ import annotations

import json
import traceback
from pathlib import Path

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from winnow.errors import user_sentence
from winnow.files import write_atomically

FAILED: list[str] = []  # "job folder: sentence", filled when a sweep of this process ends
_FILE = "failed.json"


def note_failure(folder: Path, error: Exception) -> None:
    """Leave the reason in the job's folder: the job may run in another process than the sweep's."""
    sentence = user_sentence(error) or "".join(traceback.format_exception(error))
    write_atomically(folder / _FILE, json.dumps({"error": sentence}))
    print(f"This job failed: {sentence}", flush=True)


class SweepSummary(Callback):
    """Hydra callback: clears old verdicts before a job, collects the new ones when the sweep ends."""

    def on_job_start(self, config: DictConfig, **kwargs) -> None:
        Path(config.hydra.runtime.output_dir, _FILE).unlink(missing_ok=True)

    def on_multirun_end(self, config: DictConfig, **kwargs) -> None:
        folder = Path(config.hydra.sweep.dir)
        for file in sorted(folder.rglob(_FILE)):
            sentence = json.loads(file.read_text(encoding="utf-8"))["error"].strip().splitlines()[-1]
            FAILED.append(f"{file.parent.relative_to(folder)}: {sentence}")
