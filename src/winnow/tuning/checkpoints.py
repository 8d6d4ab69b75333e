"""Checkpoints of a tuning run: written atomically, the last two kept, resumed from the newest that is
whole."""

from __future__ import annotations

import logging
import re
import zipfile
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins import TorchCheckpointIO
from pytorch_lightning.callbacks import Checkpoint

from winnow.errors import out_of_memory
from winnow.store.files import replacing

log = logging.getLogger(__name__)

KEEP = 2  # the newest, and the one before in case the newest was damaged


def checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """(optimizer step, path) of each checkpoint in the folder, by step number, oldest first."""
    found = [(re.fullmatch(r"step_(\d+)\.ckpt", path.name), path) for path in folder.glob("step_*.ckpt")]
    return sorted((int(match.group(1)), path) for match, path in found if match)


def newest(folder: Path) -> tuple[int, Path] | None:
    """The checkpoint with the highest step that can be read; None if there is none. Damaged ones are
    reported."""
    for step, path in reversed(checkpoints(folder)):
        fault = _fault(path)
        if fault is None:
            return step, path
        log.warning("The checkpoint %s cannot be read (%s); trying the one before it.", path, fault)
    return None


def _fault(path: Path) -> str | None:
    """Why the file is no whole checkpoint. torch writes a zip archive with a checksum for each tensor."""
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged is None:
            torch.load(path, "cpu", weights_only=True, mmap=True)  # the archive's own tables, of no checksum
    except Exception as error:  # a flipped bit may ask for a password, another method, an impossible place
        if out_of_memory(error):
            raise
        return f"{type(error).__name__}: {error}"
    return None if damaged is None else f"checksum of {damaged} is wrong"


class Straight(TorchCheckpointIO):
    """Writes a checkpoint straight into its file; Lightning's own collects it in memory, and again in $TMPDIR."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        with open(path, "wb") as file:
            try:
                torch.save(checkpoint, file)
            except RuntimeError as error:  # torch's, when it ends an archive that could not be written
                if isinstance(error.__context__, OSError):
                    raise error.__context__ from None
                raise


class StepCheckpoints(Checkpoint):
    """Saves the trained parameters, optimizer, schedule, position in the data and loss history every few
    steps."""

    def __init__(self, folder: Path, every_steps: int, total_steps: int) -> None:
        self.folder, self.every_steps, self.total_steps = folder, every_steps, total_steps
        self._saved = 0

    def setup(self, trainer: pl.Trainer, *_: object, **__: object) -> None:
        trainer.strategy.checkpoint_io = Straight()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._saved = trainer.global_step

    def on_train_batch_end(self, trainer: pl.Trainer, *_: object) -> None:
        step = trainer.global_step
        # Gradients that are still being accumulated are not part of a checkpoint: save only after a step.
        # After the last step the model itself is saved.
        if step == self._saved or step % self.every_steps or step == self.total_steps:
            return
        self._saved = step
        path = self.folder / f"step_{step}.ckpt"
        with replacing(path) if trainer.is_global_zero else nullcontext(path) as partial:
            trainer.save_checkpoint(partial)  # all take part, the first one writes
        if trainer.is_global_zero:
            later = [old for number, old in checkpoints(self.folder) if number > step]  # could not be read
            for old in (*later, *(old for _, old in checkpoints(self.folder)[: -KEEP - len(later)])):
                old.unlink()
        trainer.strategy.barrier("checkpoint")
