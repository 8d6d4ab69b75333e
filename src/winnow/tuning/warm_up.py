"""Models with adapters for passes over gradients: the backbone with fresh ones, or the epochs of a short tuning."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import pytorch_lightning as pl
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from winnow import draws
from winnow.backbone.loading import Backbone, OptimizerState
from winnow.data.records import Record
from winnow.data.templates import Template
from winnow.errors import UserError
from winnow.scoring.protocols import Preparation
from winnow.scoring.runner import PassRunner
from winnow.store.describe import Identified, describe
from winnow.store.files import replacing
from winnow.tuning.pre_experience import TunedSource, tune_once
from winnow.tuning.saving import load_tuned
from winnow.tuning.trainable import check_targets, target_names, with_adapters
from winnow.tuning.tuner import Tuner


class AdaptedSource(Identified):
    """A backbone with fresh adapters, which change none of its outputs. base: a runner over the backbone."""

    def __init__(self, base: PassRunner, adapters: Adapters) -> None:
        self.base, self.source, self.adapters = base, base.source, adapters
        self.tokenizer = base.source.tokenizer

    @cached_property
    def identity(self) -> dict[str, Any]:
        return {**describe(self.source), "adapters": describe(self.adapters)}

    def load(self) -> Backbone:
        backbone, r, targets = self.base.backbone, self.adapters.r, self.adapters.lora_target_modules
        check_targets(backbone.model, targets, "method.preparation")
        with torch.random.fork_rng(devices=[]):
            adapted = with_adapters(backbone.model, r, r, 0.0, targets, self.adapters.seed)
        model = adapted.get_base_model().eval().requires_grad_(False)
        return dataclasses.replace(backbone, model=model, identity=self.identity)


class Adapters(Preparation, Identified):
    """The backbone with fresh LoRA adapters: W x + B A x, A drawn by `seed`, B = 0. r: rank. lora_target_modules: which
    layers have one, see `target_names`."""

    version: ClassVar[int] = 1

    def __init__(self, r: int, seed: int, lora_target_modules: str | list[str]) -> None:
        if r < 1:
            raise UserError(f"method.preparation.r={r} must be at least 1.")
        self.r, self.seed = r, seed
        self.lora_target_modules = target_names(lora_target_modules, "method.preparation")

    @property
    def identity(self) -> dict[str, Any]:
        """All linear layers go without saying."""
        own = {"r": self.r, "seed": self.seed, "lora_target_modules": self.lora_target_modules}
        return {name: value for name, value in own.items() if value != "all-linear"}

    def prepare(self, runner: PassRunner, records: Sequence[Record], template: Template) -> list[AdaptedSource]:
        return [AdaptedSource(runner, self)]


class EpochSource(TunedSource):
    """A tuned backbone as it was at the end of an epoch. folder: of the tuned model; file: of the epoch."""

    def __init__(self, base: PassRunner, folder: Path, file: Path) -> None:
        super().__init__(base, folder)
        self.file = file

    @cached_property
    def identity(self) -> dict[str, Any]:
        with self.file.open("rb") as stream:
            return {**describe(self.source), "epoch": hashlib.file_digest(stream, "sha256").hexdigest()[:16]}

    def load(self) -> Backbone:
        backbone = load_tuned(self.base.backbone, self.folder)
        parts: dict[str, dict[str, torch.Tensor]] = {"weight": {}, "first": {}, "second": {}}
        with safe_open(self.file, "pt") as file:
            rate = float(file.metadata()["rate"])
            for key in file.keys():  # noqa: SIM118  (it is no mapping)
                part, _, name = key.partition("/")
                parts[part][name] = file.get_tensor(key)
        weights = dict(backbone.model.named_parameters())
        for name, value in parts["weight"].items():
            weights[name].copy_(value)
        optimizer = OptimizerState(rate, parts["first"], parts["second"])
        return dataclasses.replace(backbone, identity=self.identity, optimizer=optimizer)


class WarmUp(Preparation):
    """Adapters tuned on a random share of the pool, as they were at the end of each epoch, with Adam's moments.

    share: of the records that can be tuned on, at least one. seed: of their draw, which depends on no other record.
    """

    version: ClassVar[int] = 1

    def __init__(self, tuner: Tuner, share: float, seed: int) -> None:
        if not 0 < share <= 1:
            raise UserError(f"method.preparation.share={share} must be above 0 and at most 1.")
        if tuner.mode != "lora" or tuner.epochs is None:
            raise UserError(
                "method.preparation.tuner must have mode=lora and epochs, and max_steps=null: the gradients are those "
                "of adapters at the end of each epoch."
            )
        self.tuner, self.share, self.seed = tuner, share, seed
        self.checkpoints = tuner.epochs

    def prepare(self, runner: PassRunner, records: Sequence[Record], template: Template) -> list[EpochSource]:
        encoded = template.encode(records, runner.source.tokenizer, eos=True)
        usable = {record.id: record for record, one in zip(records, encoded, strict=True) if one.flag is None}
        if not usable:
            raise UserError("The warm-up found no record whose prompt and answer fit the window.")
        drawn = sorted(usable, key=lambda name: draws.key("warm-up", self.seed, name))
        picked = [usable[name] for name in sorted(drawn[: math.ceil(self.share * len(drawn))])]
        folder = tune_once(runner, "warm_up", self, picked, template, EpochFiles())
        return [EpochSource(runner, folder / "model", epoch_file(folder, epoch)) for epoch in range(self.checkpoints)]


def epoch_file(folder: Path, epoch: int) -> Path:
    """Where the end of an epoch is kept. epoch: 0-based."""
    return folder / f"epoch_{epoch + 1}.safetensors"


class EpochFiles(pl.Callback):
    """Writes the trained weights, Adam's moments and the mean learning rate at the end of each epoch."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self.done = trainer.global_step  # optimizer steps

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *_: object) -> None:
        epochs = [step.epoch for step in trainer.train_dataloader.steps]  # type: ignore[union-attr]
        before, self.done = self.done, trainer.global_step
        if before == self.done or (self.done < len(epochs) and epochs[self.done] == epochs[before]):
            return
        if not trainer.is_global_zero:
            return
        state = trainer.optimizers[0].state
        tensors: dict[str, Any] = {}
        for name, weight in pl_module.trained():
            name = name.removeprefix("model.")
            found = {"weight": weight, "first": state[weight]["exp_avg"], "second": state[weight]["exp_avg_sq"]}
            tensors |= {f"{part}/{name}": value.detach().cpu().contiguous() for part, value in found.items()}
        rates = [one["lr"] for one in pl_module.history if epochs[one["step"] - 1] == epochs[before]]
        file = epoch_file(Path(trainer.default_root_dir), epochs[before])
        with replacing(file) as partial:
            save_file(tensors, partial, {"rate": repr(sum(rates) / len(rates))})
