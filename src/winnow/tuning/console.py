"""What tuning shows on the terminal: one progress bar, and none of Lightning's small talk."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as pl
from lightning_fabric.utilities.warnings import PossibleUserWarning
from pytorch_lightning.callbacks import TQDMProgressBar


class TuningBar(TQDMProgressBar):
    """Lightning's progress bar over all micro-batches of the run, named for what it shows."""

    train_description = "Tuning"

    def on_train_start(self, trainer: pl.Trainer, *arguments: Any) -> None:
        super().on_train_start(trainer, *arguments)
        # A resumed run begins inside the epoch, where Lightning does not call the hook below.
        bar = self.train_progress_bar
        bar.total = int(trainer.num_training_batches)
        bar.initial = bar.n = trainer.global_step * trainer.accumulate_grad_batches
        bar.refresh()

    def on_train_epoch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        # Lightning would name the bar after its epoch; to it the whole run is one.
        self.train_progress_bar.total = int(trainer.num_training_batches)
        self.train_progress_bar.refresh()

    def get_metrics(self, *arguments: Any) -> dict[str, Any]:
        metrics = super().get_metrics(*arguments)
        metrics.pop("v_num", None)
        return metrics


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Hides Lightning's notes on hardware, tips and guesses about data loading; warnings and errors still
    show."""
    chatter = [logging.getLogger(name) for name in ("pytorch_lightning", "lightning_fabric")]
    levels = [logger.level for logger in chatter]
    for logger in chatter:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=PossibleUserWarning)
            # Lightning 2.6 with torch 2.13: a deprecated check of its own, nothing that a user can act on.
            warnings.filterwarnings("ignore", message=".*LeafSpec.*")
            yield
    finally:
        for logger, level in zip(chatter, levels, strict=True):
            logger.setLevel(level)
