"""Lightning's Trainer for passes and for tuning, from the few arguments that configuration may give."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from winnow.distributed import PATIENCE
from winnow.errors import UserError

SETTINGS = ("accelerator", "devices", "strategy", "num_nodes", "enable_progress_bar")


def make_trainer(settings: Mapping[str, Any], **options: Any) -> pl.Trainer:
    """A Trainer that writes nothing but what its callbacks write and shards nothing by itself.

    settings: the `trainer` group of the configuration. options: what the caller decides.
    Raises UserError for a setting that is none and for devices that are not there.
    """
    for key in settings:
        if key not in SETTINGS:
            raise UserError(
                f"trainer.{key} is not a setting; known are {', '.join(SETTINGS)} "
                f"(the precision follows backbone.dtype and tuning.dtype)."
            )
    fixed = {
        "enable_checkpointing": False,
        "enable_model_summary": False,
        "use_distributed_sampler": False,  # batches are dealt out by us
    }
    try:
        trainer = pl.Trainer(**{"accelerator": "auto", "devices": 1, **settings, **fixed, **options})
    except MisconfigurationException as error:
        told = " ".join(str(error).split())
        raise UserError(f"The trainer settings {dict(settings)} cannot be used on this machine: {told}") from error
    if isinstance(trainer.strategy, DDPStrategy):
        # Lightning forms the process group where nobody else did, and has no argument for this beside `strategy=ddp`.
        trainer.strategy._timeout = PATIENCE
    return trainer


def device_of(settings: Mapping[str, Any]) -> str:
    """The device on which a single process with these settings computes: `cuda` or `cpu`."""
    import torch

    wants_gpu = settings.get("accelerator", "auto") in ("auto", "gpu", "cuda")
    return "cuda" if wants_gpu and torch.cuda.is_available() else "cpu"
