"""The tune stage: the model of a recipe and the selected records, taken from the store or trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from winnow.data.records import Record
from winnow.distributed import compute_once, is_leader
from winnow.errors import UserError
from winnow.store.artifacts import Artifact, fingerprint
from winnow.store.describe import describe
from winnow.store.differences import difference_summary, differences
from winnow.store.files import read_json, write_json, write_sum
from winnow.store.run_folder import drop_outputs_from, earlier_output
from winnow.tracking.run_card import StageRecord
from winnow.tuning.examples import Distortion, EpochRecords, distortion_of
from winnow.tuning.saving import weights_digest
from winnow.tuning.start import ModelStart, PoolStart, check_start
from winnow.tuning.trainable import check_targets, check_trainable
from winnow.tuning.tuner import TUNED_VERSION

if TYPE_CHECKING:
    from pytorch_lightning.loggers import Logger

    from winnow.backbone.loading import BackboneSource
    from winnow.data.templates import Encoded, Template
    from winnow.perturb.noising.base import Noising
    from winnow.scoring.runner import PassRunner
    from winnow.tuning.adversary.base import Adversary
    from winnow.tuning.tuner import Tuner

Loggers = Callable[[], Sequence["Logger"]]  # made only if there is something to log
Start = ModelStart | PoolStart


@dataclass(frozen=True)
class Recipe:
    """All that decides a tuned model but its records.

    start: None for the backbone. runner: gives backbone, store and the settings of Lightning's Trainer. measure: makes
    the distance by which an adversary's distortion is measured, if it needs one.
    """

    tuner: Tuner
    start: Start | None
    runner: PassRunner
    template: Template
    adversary: Adversary
    noising: Noising | None
    measure: Callable[[], Distortion]

    def identity(self, records: Sequence[Record], start: Path | None) -> dict[str, Any]:
        """Of the model tuned on the records from the model in the folder `start`."""
        identity = {
            "version": TUNED_VERSION,
            "records": sorted(record.id for record in records),
            "tuner": describe(self.tuner),
            "adversary": describe(self.adversary),
            "backbone": describe(self.runner.source),
            "template": describe(self.template),
        }
        if self.noising is not None:
            if self.adversary.needs_distortion:
                identity["distortion"] = describe(self.measure())
            identity["noising"] = describe(self.noising)
            read = self.noising.read_besides(records)
            if read:
                identity["noising_reads"] = fingerprint({"records": read})
        if start is not None:
            identity["start"] = weights_digest(start)
        return identity


def recipe_of(tuner: Tuner | None, start: Start | None, runner: PassRunner, *parts: Any) -> Recipe | None:
    """The recipe of these parts, in the order of its fields; None without a tuner.

    Raises UserError, before anything long begins, for parts that do not fit the backbone.
    """
    if tuner is None:
        if start is not None:
            raise UserError("tuning=none tunes nothing, but start=... says where tuning starts; take start=backbone.")
        return None
    check_lora(tuner, runner.source, "tuning")
    if isinstance(start, ModelStart):
        check_start(start.path, tuner.mode, runner.source.identity)
    elif start is not None and not isinstance(start, PoolStart):
        raise UserError(f"start: {type(start).__qualname__} is neither ModelStart nor PoolStart; derive it from one.")
    recipe = Recipe(tuner, start, runner, *parts)
    if recipe.adversary.layers:
        _check_layers(recipe.adversary.layers, runner.source)
    return recipe


def check_lora(tuner: Tuner, source: BackboneSource, setting: str) -> None:
    """Raises UserError if the backbone cannot be tuned, or if adapters are to sit on modules that it does not have.
    setting: of the tuner."""
    check_trainable(source.skeleton, source.name, tuner.gradient_checkpointing)
    if tuner.mode == "full" and tuner.dtype == "fp32" and source.lacks_fp32:
        raise UserError(
            f"{setting}.dtype=fp32: full tuning would compute in fp32, which backbone.attn_implementation="
            f"{source.attn_implementation} lacks: give {setting}.dtype=bf16, whose trained weights stay fp32, or "
            f"backbone.attn_implementation=sdpa."
        )
    if tuner.mode == "lora" and tuner.lora["target_modules"] != "all-linear":
        check_targets(source.skeleton, tuner.lora["target_modules"], setting)


def _check_layers(layers: Sequence[int], source: BackboneSource) -> None:
    """Raises UserError if an adversary cannot move what these blocks put out."""
    config = source.skeleton.config.get_text_config()
    for layer in (one for one in layers if not 1 <= one <= config.num_hidden_layers):
        raise UserError(
            f"adversary.layer={layer} does not exist: backbone.name={source.name} has the blocks 1 to "
            f"{config.num_hidden_layers}."
        )
    if (width := source.skeleton.get_input_embeddings().weight.shape[1]) != config.hidden_size:
        raise UserError(
            f"adversary.layer moves states of the width of the embeddings, which backbone.name={source.name} has in "
            f"{width} dimensions and its blocks in {config.hidden_size}: choose another adversary."
        )


def tune(
    record: StageRecord, folder: Path, recipe: Recipe | None, subset: Callable[[], list[Record]], loggers: Loggers
) -> dict[str, Any]:
    """Tune on the selected records: a model in the store, the link `model` to it, and `tuning.json`; the link `start`
    if it did not start from the backbone. All processes take part. subset: gives the records."""
    if recipe is None:
        record.status = "skipped"
        return {}
    records = subset()
    models: list[tuple[Artifact, bool]] = []  # the start, if it is tuned too, and the model; whether computed now

    def tune_on(others: list[Record]) -> Path:
        if is_leader():
            print(f"Tuning starts from a model of all {len(others)} records of the pool start.pool.", flush=True)
        models.append(_model(recipe, others, None, list))  # its losses would run into those of the run itself
        return models[0][0].path / "model"

    start = None if recipe.start is None else recipe.start.model(tune_on)
    models.append(_model(recipe, records, start, loggers))
    model, computed = models[-1]
    fresh = [artifact for artifact, now in models if now]
    record.status = "computed" if computed else "reused"
    record.fingerprint = " ".join(artifact.fingerprint for artifact, _ in models)
    record.reused = len(models) - len(fresh)
    record.resumed = sum(
        artifact.result("tuning.json", "resumed_from")["resumed_from"] is not None for artifact in fresh
    )
    if not is_leader():
        return {}
    drop_outputs_from(folder, "tune")
    summary = model.result("tuning.json", "steps", "train_loss")
    summary["path"] = str(model.path / "model")  # where the store is now
    write_json(folder / "tuning.json", summary)
    write_sum(folder / "tuning.json")
    for name, target in (("model", model.path / "model"), ("start", start)):
        (folder / name).unlink(missing_ok=True)  # a link whose artifact was deleted
        if target is not None:
            (folder / name).symlink_to(target, target_is_directory=True)
    return {"steps": summary["steps"], "final_loss": summary["train_loss"][-1]["loss"]}


def _model(recipe: Recipe, records: Sequence[Record], start: Path | None, loggers: Loggers) -> tuple[Artifact, bool]:
    """(the artifact of a tuned model, whether it was tuned now)."""
    runner = recipe.runner
    artifact = runner.store.artifact("models", recipe.identity(records, start))

    def fit(_: bool) -> None:
        recipe.tuner.fit(
            runner.release() if recipe.tuner.mode == "full" else runner.backbone,
            _examples(recipe, records),
            artifact.path,
            recipe.adversary,
            loggers(),
            runner.trainer,
            start,
            recipe.template,
        )

    return artifact, compute_once(artifact, fit)


def _examples(recipe: Recipe, records: Sequence[Record]) -> EpochRecords:
    def encoded(own: Sequence[Record]) -> list[Encoded]:
        return recipe.template.encode(own, recipe.runner.source.tokenizer, eos=True)

    noising = recipe.noising
    if noising is None:
        return EpochRecords(encoded(records))
    distortion = distortion_of(records, noising, recipe.measure()) if recipe.adversary.needs_distortion else None
    return EpochRecords(
        encoded(records), lambda epoch: encoded(noising.apply(records, epoch)), describe(noising), distortion
    )


def tuned_models(folder: Path) -> dict[str, Path]:
    """Where the run's tuned model is, after that which tuning started from, if that is a tuned one too."""
    tuned, start = earlier_output(folder, "model", "tune").resolve(), (folder / "start").resolve()
    return {"start": start, "tuned": tuned} if start.exists() else {"tuned": tuned}


def check_model(recipe: Recipe, model: Path, start: Path | None, records: Sequence[Record]) -> None:
    """Raises UserError unless `model`, tuned from `start` (None: the backbone), is what `tune` would make."""

    def began_from(others: list[Record]) -> Path:
        if start is not None:
            _check_identity(recipe, start, others, None)
        return model if start is None else start  # without a start the model's own settings tell the difference

    _check_identity(recipe, model, records, None if recipe.start is None else recipe.start.model(began_from))


def _check_identity(recipe: Recipe, model: Path, records: Sequence[Record], start: Path | None) -> None:
    identity, file = recipe.identity(records, start), model.parent / "meta.json"
    cure = f"delete the folder {model.parent} and run stages=[tune,evaluate] again with this run folder"
    changes = differences(read_json(file, "version", "records", cure=cure), identity)
    if changes:
        raise UserError(
            f"{model} was tuned with other settings ({difference_summary(changes)}); run stages=[tune,evaluate] again "
            f"with this run folder, or set them back."
        )
