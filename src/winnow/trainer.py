"""Lightning's Trainer for passes and for tuning, from the arguments that configuration gives."""

from __future__ import annotations

import inspect
import logging
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from lightning_fabric.plugins.environments import SLURMEnvironment
from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from winnow.distributed import PATIENCE
from winnow.errors import UserError
from winnow.sharding import Sharded

# Arguments of the Trainer that Winnow sets itself, because numbers or the store hang on them -> what to give instead.
REFUSED = {
    "precision": "backbone.dtype and tuning.dtype",
    "max_epochs": "tuning.epochs",
    "min_epochs": "tuning.epochs",
    "max_steps": "tuning.max_steps",
    "min_steps": "tuning.max_steps",
    "max_time": "tuning.max_steps",
    "limit_train_batches": "tuning.max_steps",
    "limit_predict_batches": "scale=smoke",
    "fast_dev_run": "scale=smoke",
    "overfit_batches": "data.limit and tuning.epochs",
    "accumulate_grad_batches": "tuning.batch_size and tuning.micro_batch_size",
    "gradient_clip_val": "tuning.gradient_clip",
    "gradient_clip_algorithm": "tuning.gradient_clip",
    "reload_dataloaders_every_n_epochs": "nothing, the batches are planned once",
    "use_distributed_sampler": "nothing, the batches are dealt out already",
    "enable_checkpointing": "tuning.checkpoint_every_steps",
    "default_root_dir": "paths.run",
    "logger": "tracking",
    "callbacks": "the group callbacks",
}
KNOWN = [name for name in inspect.signature(pl.Trainer).parameters if name not in REFUSED]


def check_trainer(settings: Mapping[str, Any]) -> None:
    """Raises UserError for a setting that the Trainer does not have or that Winnow sets itself, for a strategy that is
    not supported, and for another number of processes than were started."""
    for key in settings:
        if key in REFUSED:
            raise UserError(f"trainer.{key} is set by Winnow itself; leave it out and give {REFUSED[key]}.")
        if key not in KNOWN:
            close = [f"did you mean trainer.{one}? " for one in get_close_matches(key, KNOWN, 1)]
            raise UserError(f"trainer.{key} is no setting; {''.join(close)}Known are {', '.join(KNOWN)}.")
    strategy = str(settings.get("strategy", "auto"))
    devices = str(settings.get("devices", 1))
    if not devices.isdigit() and devices not in ("auto", "-1"):
        raise UserError(
            f"trainer.devices={devices} is no number: say how many (trainer.devices=1, or auto), and which ones by the "
            f"variable CUDA_VISIBLE_DEVICES."
        )
    forked = any(word in strategy for word in ("fork", "spawn", "notebook"))
    if forked or (strategy not in ("auto", "fsdp") and not strategy.startswith("ddp")):
        raise UserError(
            f"trainer.strategy={strategy} is not supported: take ddp (one whole model per device), fsdp (one model "
            f"over all devices) or auto."
        )
    asked, started = processes_of(settings), dist.get_world_size() if dist.is_initialized() else None
    if started is None and str(settings.get("num_nodes", 1)) != "1" and "MASTER_ADDR" not in os.environ:
        raise UserError(
            f"trainer.num_nodes={settings['num_nodes']}: nothing starts the processes of the other machines; write "
            f"srun before the command, or torchrun with its addresses on each machine."
        )
    if started not in (None, asked):
        raise UserError(
            f"The trainer asks for {asked} processes (trainer.devices times trainer.num_nodes), but {started} were "
            f"started: give trainer=ddp or fsdp, trainer.devices=PROCESSES OF A MACHINE and "
            f"trainer.num_nodes=MACHINES, or start {asked}."
        )


def make_trainer(settings: Mapping[str, Any], **options: Any) -> pl.Trainer:
    """A Trainer that writes nothing but what its callbacks write.

    settings: the `trainer` group of the configuration, and under `callbacks` the objects of that group. options: what
    the caller decides. Raises UserError for a setting that is none and for devices that are not there.
    """
    settings = dict(settings)
    callbacks = [*options.pop("callbacks", ()), *settings.pop("callbacks", ())]
    check_trainer(settings)
    accelerator = settings.get("accelerator", "auto")
    if accelerator not in ("auto", "cpu") and device_of(settings) == "cpu":
        raise UserError(
            f"The trainer settings {settings} cannot be used on this machine: it has no CUDA device for "
            f"accelerator={accelerator}; give trainer.accelerator=auto or cpu."
        )
    if accelerator == "auto":  # Lightning would take Apple's MPS, which has no float64
        settings["accelerator"] = device_of(settings)
    if settings.get("strategy") == "fsdp":
        settings["strategy"] = Sharded()
    defaults = {"devices": 1, "enable_model_summary": False, "log_every_n_steps": 1}
    fixed = {"enable_checkpointing": False, "use_distributed_sampler": False}  # batches are dealt out by us
    try:
        trainer = pl.Trainer(**{**defaults, **settings, **fixed, **options, "callbacks": callbacks})
        environment = getattr(trainer.strategy, "cluster_environment", None)
        asked = max(trainer.world_size, trainer.num_devices * trainer.num_nodes)  # world_size: Slurm's number of tasks
        if isinstance(environment, SLURMEnvironment) and asked > int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")):
            raise UserError(
                f"The trainer waits for {asked} processes, which srun did not start: write srun before the command, "
                f"and ask for --ntasks-per-node={trainer.num_devices}."
            )
        if environment is not None:
            environment.validate_settings(trainer.num_devices, trainer.num_nodes)
    except (MisconfigurationException, RuntimeError, TypeError, ValueError) as error:
        message = " ".join(str(error).split())
        raise UserError(f"The trainer settings {settings} cannot be used on this machine: {message}") from error
    if getattr(trainer.strategy.launcher, "is_interactive_compatible", False):  # `auto` forks in a notebook
        raise UserError(
            f"trainer.devices={trainer.num_devices} needs processes that begin anew, and a notebook forks them: run "
            f"`winnow` in a shell, or give trainer.devices=1."
        )
    if settings.get("profiler"):  # its report is a log message, which is hidden otherwise
        logging.getLogger("pytorch_lightning.profilers").setLevel(logging.INFO)
    if isinstance(trainer.strategy, DDPStrategy):
        # Lightning forms the process group where nobody else did, and has no argument for this beside `strategy=ddp`.
        trainer.strategy._timeout = PATIENCE
    trainer._signal_connector.register_signal_handlers = _keep_handlers
    return trainer


def _keep_handlers() -> None:
    """In the place of Lightning's own, whose handler of SIGTERM waits for the other processes, which may be gone."""


@contextmanager
def interruptible(trainer: pl.Trainer) -> Iterator[None]:
    """Around `fit` or `predict`: Ctrl-C stays what it is. Lightning ends the process in its place, in silence."""
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit:
        if trainer.interrupted:
            raise KeyboardInterrupt from None
        raise
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, before)  # which Lightning leaves ignored


def processes_of(settings: Mapping[str, Any]) -> int:
    """That these settings start: one for each device of each node."""
    devices = settings.get("devices", 1)
    if devices in ("auto", -1, "-1"):
        devices = torch.cuda.device_count() if device_of(settings) == "cuda" else 1
    return int(devices) * settings.get("num_nodes", 1)


def device_of(settings: Mapping[str, Any]) -> str:
    """The device on which a single process with these settings computes: `cuda` or `cpu`."""
    wants_gpu = settings.get("accelerator", "auto") in ("auto", "gpu", "cuda")
    return "cuda" if wants_gpu and torch.cuda.is_available() else "cpu"
