"""Keeps the chatter of libraries off the screen; their warnings about wrong results stay."""

from __future__ import annotations

import io
import logging
import os
import sys
import warnings


def quiet() -> None:
    """Silence advertisements, device tables and advice that does not apply here. Call before heavy imports."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what a locale's letters cannot show must not end a run
            stream.reconfigure(errors="replace")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # forking after use only earns a warning
    os.environ.setdefault("WANDB_SILENT", "true")
    os.environ.setdefault("LITLOGGER_DISABLED", "1")
    # Nobody asked for these connections: counts of loaded data sets, reports of W&B's own errors.
    os.environ.setdefault("HF_UPDATE_DOWNLOAD_COUNTS", "0")
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    for name in ("pytorch_lightning.utilities.rank_zero", "pytorch_lightning.accelerators", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in ("huggingface_hub", "huggingface_hub.utils._http", "transformers", "datasets", "filelock"):
        logging.getLogger(name).setLevel(logging.ERROR)
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # a line for each product of int8
    logging.getLogger("pytorch_lightning.utilities.rank_zero").addFilter(_not_an_advertisement)
    for message in (
        r".*does not have many workers.*",  # batches are made in the main process on purpose
        r".*infer the batch indices.*",  # batches carry their record ids themselves
        r".*Total length of `(DataLoader|CombinedLoader)` across ranks is zero.*",  # every record left has a flag
        r".*`position_ids` have no functionality in BLOOM.*",
        r".*`(past_key_values|(is_)?gradient_checkpointing\w*)` is deprecated.*",  # transformers 4 knows no other name
        r".*LeafSpec.*deprecated.*",
        r".*Checkpoint directory .* exists and is not empty.*",  # that is how a run resumes
        r".*torch.utils.checkpoint.*",
    ):
        warnings.filterwarnings("ignore", message=message)


def _not_an_advertisement(record: logging.LogRecord) -> bool:
    return "Tip:" not in record.getMessage()
