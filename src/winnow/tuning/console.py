"""What tuning shows on the terminal: one progress bar."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
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
