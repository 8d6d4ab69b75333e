"""The tune stage: which model is wanted, whether the store has it, where its training starts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from winnow.data.records import Pool, Record
from winnow.distributed import compute_once, is_leader
from winnow.errors import UserError
from winnow.store.artifacts import Artifact, fingerprint
from winnow.store.describe import describe
from winnow.store.differences import differences, told
from winnow.store.files import read_json, write_json
from winnow.tuning.noised import Distortion, examples_of, prepare
from winnow.tuning.saving import weights_digest
from winnow.tuning.start import ModelStart, PoolStart, check_start
from winnow.tuning.trainable import check_targets
from winnow.tuning.tuner import TUNED_VERSION

if TYPE_CHECKING:
    from pytorch_lightning.loggers import Logger
    from torch import nn

    from winnow.backbone.loading import BackboneSource
    from winnow.data.templates import Template
    from winnow.perturb.noising.base import Noising
    from winnow.scoring.runner import PassRunner
    from winnow.tuning.adversary.base import Adversary
    from winnow.tuning.tuner import Tuner

Loggers = Callable[[], Sequence["Logger"]]  # made only if there is something to log
Start = ModelStart | PoolStart


@dataclass(frozen=True)
class Tuned:
    """A tuned model. artifact: where it is. start: folder of the model that its training started from, None for the
    backbone. computed: whether it was tuned now. used: fingerprints of what was asked of the store, its own last.
    reused, resumed: how many of these the store had, and how many an interrupted run had begun."""

    artifact: Artifact
    start: Path | None
    computed: bool
    used: list[str]
    reused: int
    resumed: int


def tune_stage(tuner: Tuner | None, start: Start | None, runner: PassRunner, **parts: Any) -> TuneStage | None:
    """The stage with these parts, None without a tuner.

    Raises UserError, before anything long begins, if tuning cannot start from `start`.
    """
    if tuner is None:
        if start is not None:
            raise UserError("tuning=none tunes nothing, but start=... says where tuning starts; take start=backbone.")
        return None
    strategy = str(parts["trainer_args"].get("strategy", "auto"))
    if strategy != "auto" and not strategy.startswith("ddp"):
        raise UserError(f"trainer.strategy={strategy} is not supported: take ddp, one whole model per device, or auto.")
    if tuner.mode == "lora" and tuner.lora["target_modules"] != "all-linear":
        check_targets(_skeleton(runner.source), tuner.lora["target_modules"])
    if isinstance(start, ModelStart):
        check_start(start.path, tuner.mode, runner.source.identity)
    return TuneStage(tuner=tuner, start=start, runner=runner, **parts)


def _skeleton(source: BackboneSource) -> nn.Module:
    """The backbone's modules, without weights."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    own = {"trust_remote_code": source.trust_remote_code}
    config = AutoConfig.from_pretrained(source.folder, revision=source.revision, **own)
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config, **own)


@dataclass(frozen=True)
class TuneStage:
    """All that decides a tuned model but its records.

    runner: gives backbone and store. measure: makes the distance by which an adversary's distortion is measured, if it
    needs one. trainer_args: of the Lightning Trainer.
    """

    tuner: Tuner
    start: Start | None
    runner: PassRunner
    template: Template
    adversary: Adversary
    noising: Noising | None
    measure: Callable[[], Distortion]
    trainer_args: Mapping[str, Any]

    def run(self, records: Sequence[Record], loggers: Loggers) -> Tuned:
        """The model tuned on the records. All processes take part; all get the same."""
        firsts: list[tuple[Artifact, bool]] = []

        def tune_on(others: list[Record]) -> Path:
            if is_leader():
                print(f"Tuning starts from a model of all {len(others)} records of the pool start.pool.", flush=True)
            firsts.append(self._tuned(others, None, list))  # its losses would run into those of the run itself
            return firsts[0][0].path / "model"

        folder = None if self.start is None else self.start.model(tune_on)
        steps = [*firsts, self._tuned(records, folder, loggers)]
        (last, computed), used = steps[-1], [artifact.fingerprint for artifact, _ in steps]
        fresh = [artifact for artifact, now in steps if now]
        resumed = sum(_told(artifact)["resumed_from"] is not None for artifact in fresh)
        return Tuned(last, folder, computed, used, reused=len(steps) - len(fresh), resumed=resumed)

    def check(self, model: Path, start: Path | None, records: Sequence[Record]) -> None:
        """Raises UserError unless `model`, tuned from `start` (None: the backbone), is what `run` would make."""

        def began_from(others: list[Record]) -> Path:
            if start is not None:
                self._check(start, others, None)
            return model if start is None else start  # without a start the model's own settings tell the difference

        self._check(model, records, None if self.start is None else self.start.model(began_from))

    def _check(self, model: Path, records: Sequence[Record], start: Path | None) -> None:
        prepare(self.adversary, records, self.noising, self.measure)
        again = f"delete the folder {model.parent} and run stages=[tune,evaluate] again with this run folder"
        then = read_json(model.parent / "meta.json", "version", "records", cure=again)
        found = differences(then, self._meta(records, start))
        if found:
            raise UserError(
                f"{model} was tuned with other settings ({told(found)}); run stages=[tune,evaluate] again with this "
                f"run folder, or set them back."
            )

    def _tuned(self, records: Sequence[Record], start: Path | None, loggers: Loggers) -> tuple[Artifact, bool]:
        """(the model's artifact, whether it was tuned now)."""
        # The distortion of the very records that are tuned on; it is part of the adversary's description.
        prepare(self.adversary, records, self.noising, self.measure)
        artifact = self.runner.store.artifact("models", self._meta(records, start))
        return artifact, compute_once(artifact, lambda _: self._fit(artifact, records, start, loggers))

    def _meta(self, records: Sequence[Record], start: Path | None) -> dict[str, Any]:
        meta = {
            "version": TUNED_VERSION,
            "records": sorted(record.id for record in records),
            "tuner": describe(self.tuner),
            "adversary": describe(self.adversary),
            "backbone": describe(self.runner.source),
            "template": describe(self.template),
        }
        if self.noising is not None:
            meta["noising"] = describe(self.noising)
            read = self.noising.read_besides(records)
            if read:
                meta["noising_reads"] = fingerprint({"records": read})
        if start is not None:
            meta["start"] = weights_digest(start)
        return meta

    def _fit(self, artifact: Artifact, records: Sequence[Record], start: Path | None, loggers: Loggers) -> None:
        self.tuner.fit(
            self.runner.backbone,
            examples_of(records, self.template, self.runner.source.tokenizer, self.noising),
            artifact.path,
            self.adversary,
            loggers(),
            self.trainer_args,
            None if self.noising is None else describe(self.noising),
            start,
            self.template,
        )


def _told(artifact: Artifact) -> dict[str, Any]:
    return artifact.result("tuning.json", "steps", "train_loss")


def selected_records(pool: Pool, manifest: Mapping[str, Any], file: Path) -> list[Record]:
    """The records of the pool that a selection took. Raises UserError if `file` tells of other records."""
    wanted = {decision["row"]: decision["id"] for decision in manifest["decisions"] if decision["selected"]}
    subset = [record for record in pool.records if wanted.get(record.row) == record.id]
    if len(subset) != len(wanted):
        raise UserError(
            f"{file} was made from other records than data={pool.source}; "
            f"run the stage `select` again with this run folder."
        )
    return subset


def show_in(folder: Path, tuned: Tuned) -> dict[str, Any]:
    """Puts `tuning.json` and the links `model` and, if it did not start from the backbone, `start` into a run folder.

    Returns what `tuning.json` holds.
    """
    told = tuned.artifact.result("tuning.json", "steps", "train_loss")
    write_json(folder / "tuning.json", told)
    for name, target in (("model", tuned.artifact.path / "model"), ("start", tuned.start)):
        (folder / name).unlink(missing_ok=True)  # a link whose artifact was deleted
        if target is not None:
            (folder / name).symlink_to(target, target_is_directory=True)
    return told
