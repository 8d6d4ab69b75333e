"""The tune stage: from a backbone and encoded records to a saved adapter or model."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import Logger
from pytorch_lightning.loggers.logger import DummyLogger

from winnow.backbone.causal_model import CausalModel
from winnow.backbone.loading import Backbone
from winnow.backbone.memory import shapes
from winnow.backbone.quantized import count, dtype_name
from winnow.distributed import read_by_leader
from winnow.errors import UserError, check_choice, out_of_memory
from winnow.sharding import Sharded, gather
from winnow.store.describe import Free, arguments, describe
from winnow.store.files import CHECKPOINTS, remove_partials, write_json
from winnow.trainer import interruptible, make_trainer
from winnow.tuning.adversary.base import Adversary
from winnow.tuning.adversary.none import NoAdversary
from winnow.tuning.checkpoints import StepCheckpoints, newest
from winnow.tuning.console import TuningBar
from winnow.tuning.data import MicroBatches, check_sizes, digest, plan_steps
from winnow.tuning.dropout import again, check_attention
from winnow.tuning.examples import EpochRecords, supervised_tokens
from winnow.tuning.memory import check_tuning
from winnow.tuning.module import SCHEDULES, InstructionTuner
from winnow.tuning.saving import Prompt, prompt_of, save_tuned, weights_digest
from winnow.tuning.start import trainable_model
from winnow.tuning.trainable import check_finite, check_trainable, target_names

if TYPE_CHECKING:
    from winnow.data.templates import Encoded, Template

log = logging.getLogger(__name__)

TUNED_VERSION = 3  # raised when the same settings would give other weights; part of every tuned model's fingerprint
MODES = ("lora", "full")
DTYPES = ("auto", "fp32", "bf16")
PACKINGS = ("none", "padding_free")
PRECISION = {"fp32": "32-true", "bf16": "bf16-mixed"}


class Tuner:
    """Settings of instruction tuning; `fit` does it.

    mode: `lora` (adapters) or `full` (all weights). lora_r, lora_alpha, lora_dropout, lora_target_modules:
    rank, scale alpha / r, dropout on the adapter's input, module names or `all-linear`; for `lora` only.
    epochs: passes over the records; max_steps: optimizer steps, in place of epochs when given.
    batch_size: records per optimizer step over all processes; micro_batch_size: most records in memory at once.
    packing: `none` (micro-batches are padded), or `padding_free`: the records of a micro-batch run as one row.
    learning_rate: peak. warmup_ratio: share of the steps with a rising rate. schedule: cosine, linear,
    constant.
    gradient_clip: largest norm of the gradient, None for no clipping.
    gradient_checkpointing: compute activations again in the backward pass: less memory, about a third more
    time.
    dtype: `bf16` (forward and backward under autocast; trained weights stay fp32), `fp32` (no autocast; the frozen
    layers of a bf16 backbone still compute in bf16), `auto` (the backbone's).
    checkpoint_every_steps: optimizer steps between checkpoints, None for none.
    Raises UserError for a setting outside its range.
    """

    setting = "tuning"  # the key of the configuration in messages of lacking memory; a preparation's tuner has another

    def __init__(
        self,
        mode: str,
        lora_r: int,
        lora_alpha: float,
        lora_dropout: float,
        lora_target_modules: str | Sequence[str],
        epochs: int,
        max_steps: int | None,
        batch_size: int,
        micro_batch_size: Free[int],
        packing: Free[str],
        learning_rate: float,
        warmup_ratio: float,
        schedule: str,
        weight_decay: float,
        gradient_clip: float | None,
        gradient_checkpointing: Free[bool],
        dtype: str,
        checkpoint_every_steps: Free[int | None],
        seed: int,
    ) -> None:
        for key, value, known in (
            ("mode", mode, MODES),
            ("schedule", schedule, SCHEDULES),
            ("dtype", dtype, DTYPES),
            ("packing", packing, PACKINGS),
        ):
            check_choice(f"tuning.{key}", value, known)
        for key, number in (("epochs", epochs), ("max_steps", max_steps), ("lora_r", lora_r)):
            if number is not None and (number != int(number) or number < 1):
                raise UserError(f"tuning.{key}={number} must be a whole number of 1 or more.")
        for key, given, fits, told in (
            # A step of AdamW moves a weight by about the learning rate.
            ("learning_rate", learning_rate, 0 < learning_rate <= 1, "above 0 and at most 1"),
            ("warmup_ratio", warmup_ratio, 0 <= warmup_ratio <= 1, "between 0 and 1"),
            ("weight_decay", weight_decay, 0 <= weight_decay < float("inf"), "0 or more"),
            ("lora_dropout", lora_dropout, 0 <= lora_dropout < 1, "0 or more and below 1"),
            ("gradient_clip", gradient_clip, gradient_clip is None or gradient_clip > 0, "above 0, or null for none"),
        ):
            if not fits:
                raise UserError(f"tuning.{key}={given} must be {told}.")
        check_sizes(batch_size, micro_batch_size)
        self.mode = mode
        targets = target_names(lora_target_modules) if mode == "lora" else None
        own: tuple[Any, ...] = (lora_r, lora_alpha, lora_dropout, targets) if mode == "lora" else (None,) * 4
        self.lora_r, self.lora_alpha, self.lora_dropout, self.lora_target_modules = own
        self.lora = dict(zip(("r", "alpha", "dropout", "target_modules"), own, strict=True))
        self.epochs, self.max_steps = (epochs if max_steps is None else None), max_steps
        self.batch_size, self.micro_batch_size = batch_size, micro_batch_size
        self.padding_free = packing == "padding_free"
        self.learning_rate, self.warmup_ratio = learning_rate, warmup_ratio
        self.schedule, self.weight_decay = schedule, weight_decay
        self.gradient_clip, self.gradient_checkpointing = gradient_clip, gradient_checkpointing
        self.dtype, self.checkpoint_every_steps, self.seed = dtype, checkpoint_every_steps, seed

    def at_once(self, processes: int) -> int:
        """Most records of a micro-batch: so few that each process has some of a whole global batch."""
        return min(self.micro_batch_size, math.ceil(self.batch_size / processes))

    def fit(
        self,
        backbone: Backbone,
        examples: Sequence[Encoded] | EpochRecords,
        folder: str | Path,
        adversary: Adversary | None = None,
        loggers: Sequence[Logger] = (),
        trainer_args: Mapping[str, Any] | None = None,
        start: Path | None = None,
        template: Template | None = None,
    ) -> dict[str, Any]:
        """Tunes on the records and saves the result to `folder/model`; continues from `folder/checkpoints`,
        which stay until the folder is sealed (`Artifact.finish`).

        examples: encoded with EOS, or `EpochRecords` of them. Flagged ones are left out and counted. Their order does
        not matter.
        trainer_args: accelerator, devices, strategy, num_nodes, enable_progress_bar of the Lightning Trainer.
        start: folder of a model that was tuned before from the same backbone, in the same mode; training goes on from
        its weights. template: of the examples, for the model card.
        Adapters do not alter the backbone; full tuning trains its own weights, so that there is no second copy of them,
        and the caller has to load it again for anything else. torch's random state on the CPU is not altered.

        Returns what is also written to `folder/tuning.json`: steps, epochs, train_loss (per step: step, loss
        in nats per answer token, lr), seconds (of a resumed run with those up to its checkpoint),
        resumed_from, trainable_parameters, total_parameters, records, dropped (by reason), answer_tokens (of
        the first epoch), rows and tokens (through the model in all steps, padding counted, by the lengths of the first
        epoch), dtype, adversary and noising (their settings), noise_fallbacks (by epoch, how many
        records kept their raw form), distortion (beta by epoch), start (hash of the weights it started
        from, None for the backbone), path. Under several processes the first one writes; all return the same.
        Raises UserError if nothing is left to train on, the loss is not finite, the start does not fit, the folder
        holds checkpoints of another run, or memory cannot hold the training.
        """
        started = time.monotonic()
        folder, adversary = Path(folder), adversary or NoAdversary()
        records_of = examples if isinstance(examples, EpochRecords) else EpochRecords(examples)
        records, dropped, noising = records_of.first, records_of.dropped, records_of.noising
        reasons = "; ".join(f"{reason} ({count})" for reason, count in dropped.items())
        if dropped:
            log.warning("%d of %d records cannot be tuned on: %s.", sum(dropped.values()), records_of.total, reasons)
        if not records:
            raise UserError(
                f"There is nothing to tune on: none of the {records_of.total} selected records has an answer "
                f"behind a prompt ({reasons or 'the selection is empty'}); select others or more, raise "
                f"template.max_length, or take another template."
            )
        own = next(backbone.model.parameters()).dtype  # in which the backbone is evaluated
        kind = dtype_name(backbone.model)
        arithmetic = "fp32" if kind == "fp32" else "bf16"
        dtype = arithmetic if self.dtype == "auto" else self.dtype
        began = None if start is None else weights_digest(start)
        with torch.random.fork_rng(devices=[]):
            trainer = self._trainer(dtype, folder, loggers, trainer_args or {})
            steps = plan_steps(
                [len(record.ids) for record in records],
                self.batch_size,
                self.at_once(trainer.world_size),
                self.seed,
                self.epochs,
                self.max_steps,
            )
            sizes = [[len(records[i].ids) for i in micro] for step in steps for micro in step.micro_batches]
            tokens = [sum(size) if self.padding_free else len(size) * max(size) for size in sizes]
            check_tuning(backbone.name, shapes(backbone.model), self, kind, trainer_args or {}, max(tokens))
            sharded = isinstance(trainer.strategy, Sharded)
            place = (trainer.world_size, trainer.global_rank, sharded)
            data = MicroBatches(records_of, steps, *place)
            trainer.accumulate_grad_batches = data.per_step
            saved, causal = self._trainable(backbone, start)
            module = InstructionTuner(
                causal,
                adversary,
                self.learning_rate,
                len(steps),
                self.warmup_ratio,
                self.weight_decay,
                self.schedule,
                self.seed,
                run={
                    "settings": describe(self) | {"dtype": dtype},
                    "adversary": describe(adversary),
                    "noising": noising,
                    "records": digest(records),
                    "start": began,
                },
                distortion=records_of.distortion,
                padding_free=self.padding_free,
            )
            module.began, module.fallbacks = started, records_of.fallbacks
            resume = self._checkpointing(trainer, folder / CHECKPOINTS, len(steps))
            with self._enough_memory(), interruptible(trainer):
                trainer.fit(module, data, ckpt_path=resume and resume[1], weights_only=True)
        check_finite(causal, self.learning_rate, trainer.strategy.reduce_boolean_decision)
        result = {
            "steps": len(steps),
            "epochs": round(sum(len(m) for s in steps for m in s.micro_batches) / len(records), 4),
            "train_loss": module.history,
            "seconds": round(time.monotonic() - module.began, 3),
            "resumed_from": resume and resume[0],
            "trainable_parameters": sum(p.numel() for _, p in module.trained()),
            "total_parameters": sum(count(p) for p in backbone.model.parameters()),
            "records": len(records),
            "dropped": dropped,
            "answer_tokens": sum(supervised_tokens(record) for record in records),
            "rows": sum(map(len, sizes)),
            "tokens": sum(tokens),
            "dtype": dtype,
            "adversary": describe(adversary),
            "noising": noising,
            "noise_fallbacks": {str(epoch): n for epoch, n in sorted(module.fallbacks.items())},
            "distortion": {str(epoch): beta for epoch, beta in module.distortions.items()},
            "start": began,
            "path": str(folder / "model"),
        }
        if sharded:
            gather(saved, torch.float32 if self.mode == "lora" else own)
        if trainer.is_global_zero:
            facts = {"records": len(records), **arguments(self), "adversary": type(adversary).__name__}
            facts |= {key: told for key, told in (("noising", noising), ("start", began)) if told is not None}
            kept = saved if self.mode == "lora" or sharded else saved.to(own)
            prompt = prompt_of(template, backbone.tokenizer) if template else Prompt("{instruction}", True)
            facts |= {} if template is None else {"template": template.name}
            save_tuned(kept, backbone, folder / "model", facts, prompt)
            write_json(folder / "tuning.json", result)
        trainer.strategy.barrier("saved")
        return result

    @contextmanager
    def _enough_memory(self) -> Iterator[None]:
        try:
            yield
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            raise UserError(
                f"Tuning ran out of memory: lower {self.setting}.micro_batch_size (now {self.micro_batch_size}; it "
                f"changes no result), set {self.setting}.gradient_checkpointing=true, or lower template.max_length."
            ) from error

    def _trainable(self, backbone: Backbone, start: Path | None) -> tuple[Any, Any]:
        """(what is saved, the causal language model that is trained)."""
        check_trainable(backbone.model, backbone.name, self.gradient_checkpointing)
        if self.padding_free:  # found out before full tuning makes the weights fp32, which flash attention refuses
            CausalModel(backbone.model).packing  # noqa: B018
        saved = trainable_model(backbone, self.mode, self.lora, self.seed, start)
        causal = saved.get_base_model() if self.mode == "lora" else saved
        causal.train()
        check_attention(causal.config.to_dict(), causal.config._attn_implementation, self.padding_free)
        if self.padding_free and not CausalModel(causal).packing:
            raise UserError(
                f"tuning.packing=padding_free: backbone.name={backbone.name} with attention "
                f"{causal.config._attn_implementation} does not keep records in one row apart (a trial gave other "
                f"numbers); set tuning.packing=none."
            )
        if self.gradient_checkpointing:
            # The non-reentrant kind works with frozen input embeddings and with torch.autograd.grad, which
            # adversaries call; the reentrant kind does neither.
            causal.gradient_checkpointing_enable({"use_reentrant": False, "context_fn": again})
        return saved, causal

    def _trainer(
        self, dtype: str, folder: Path, loggers: Sequence[Logger], trainer_args: Mapping[str, Any]
    ) -> pl.Trainer:
        arguments = {"accelerator": "auto", "devices": 1, "enable_progress_bar": True, **trainer_args}
        callbacks = [TuningBar()] if arguments["enable_progress_bar"] else []
        # Some callbacks only log, and refuse to run where nothing logs.
        nobody = DummyLogger() if arguments.get("callbacks") else False
        return make_trainer(
            arguments,
            # To Lightning the whole run is one epoch: the plan holds the micro-batches of all epochs in
            # order, so that stopping and resuming is the same thing wherever it happens.
            max_epochs=1,
            precision=PRECISION[dtype],
            gradient_clip_val=self.gradient_clip,
            callbacks=callbacks,  # StepCheckpoints is added when the number of steps is known
            logger=list(loggers) or nobody,
            default_root_dir=folder,
            num_sanity_val_steps=0,
        )

    def _checkpointing(self, trainer: Any, folder: Path, total_steps: int) -> tuple[int, Path] | None:
        """Adds the checkpoint callback; returns (step, path) of the checkpoint to go on from, if any."""
        if trainer.is_global_zero:
            remove_partials(folder / "*")
        if self.checkpoint_every_steps:
            trainer.callbacks.append(StepCheckpoints(folder, self.checkpoint_every_steps, total_steps))
        resume = read_by_leader(lambda: newest(folder))
        if resume is not None and trainer.is_global_zero:
            print(f"Tuning goes on from step {resume[0]} of {total_steps}.", flush=True)
        return resume
