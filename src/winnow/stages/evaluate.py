"""The evaluate stage: the backbone, the tuned model and what tuning started from on one suite, through the store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from winnow.backbone.shared import on_all_devices
from winnow.data.records import Record
from winnow.data.templates import Template
from winnow.distributed import compute_once, is_leader, read_by_leader
from winnow.scoring.runner import PassRunner
from winnow.stages.tune import Recipe, check_model, tuned_models
from winnow.store.artifacts import Artifact
from winnow.store.describe import describe
from winnow.store.files import write_atomically, write_json, write_sum
from winnow.store.run_folder import drop_outputs_from
from winnow.tracking.run_card import StageRecord

if TYPE_CHECKING:
    from winnow.evaluation.suite import Suite

EVALUATION_VERSION = 2  # raised when the same settings would give other results; part of every evaluation's fingerprint


def evaluate(
    record: StageRecord,
    folder: Path,
    runner: PassRunner,
    suite: Suite,
    template: Template,
    recipe: Recipe | None,
    subset: Callable[[], list[Record]] | None,
) -> dict[str, Any]:
    """Write `samples-*.jsonl`, the items of each model, and `results.json`: metrics of `base` and, where there are such
    models, of `tuned` and its `start`; the paired comparison of `tuned` with `base`. All processes take part.

    template: of prompts that do not bring their own. subset: gives the records that the tuned model must be made
    from; None if this very run has tuned it.
    """
    if not suite.tasks:
        record.status = "skipped"
        return {}
    from winnow.evaluation.comparison import compare_results
    from winnow.evaluation.harness import compare

    folders: dict[str, Path | None] = {"base": None}
    if recipe is not None:
        made = read_by_leader(lambda: tuned_models(folder))
        folders |= made
        if subset is not None:
            check_model(recipe, made["tuned"], made.get("start"), subset())
    record.status = "reused"
    artifacts = {name: _evaluated(record, name, model, runner, suite, template) for name, model in folders.items()}
    if not is_leader():
        return {}
    models = {name: _result(artifact) for name, artifact in artifacts.items()}
    results = compare(models, suite)
    if "tuned" in models:
        results["comparison"], results["untested"] = compare_results(models["tuned"], models["base"], suite.averages)
    drop_outputs_from(folder, "evaluate")
    for name, model in models.items():
        if model["samples"] is not None:  # the folder is compared where it has no store: elsewhere, or after --free
            copy = folder / f"samples-{name}.jsonl"
            write_atomically(copy, Path(model["samples"]).read_text(encoding="utf-8"))
            write_sum(copy)
            model["samples"] = copy.name
    write_json(folder / "results.json", results)
    write_sum(folder / "results.json")
    return {
        f"{name}/{key}": metric["value"]
        for name, model in models.items()
        for key, metric in model["metrics"].items()
        if key in results["headline"]
    }


def _evaluated(
    record: StageRecord, name: str, folder: Path | None, runner: PassRunner, suite: Suite, template: Template
) -> Artifact:
    """The evaluation of one model, from the store or computed now. folder: of a tuned model, None for the backbone."""
    identity = describe(runner.source)
    if folder is not None:
        from winnow.tuning.saving import tuned_identity

        identity = tuned_identity(identity, folder)
    meta = {
        "version": EVALUATION_VERSION,
        "suite": describe(suite),
        "model": identity,
        "template": describe(template) if suite.uses_template else None,  # stock tasks bring their own prompts
    }
    if suite.chat_template and "strftime_now" in str(runner.source.tokenizer.chat_template):
        meta["date"] = template.date
    artifact = runner.store.artifact("evaluations", meta)
    record.fingerprint = " ".join(filter(None, [record.fingerprint, artifact.fingerprint]))

    if compute_once(artifact, lambda _: _evaluate(artifact.path, name, folder, runner, suite, template)):
        record.status = "computed"
    return artifact


def _result(artifact: Artifact) -> dict[str, Any]:
    result = artifact.result("result.json", "metrics", "samples")
    if result["samples"] is not None:  # where the store is now, not where it was
        result["samples"] = str(artifact.path / "samples.jsonl")
    return result


def _evaluate(
    target: Path, name: str, folder: Path | None, runner: PassRunner, suite: Suite, template: Template
) -> None:
    from winnow.evaluation.harness import evaluate_model, help_leader
    from winnow.tuning.saving import is_adapter, load_tuned

    if folder is None:
        backbone = runner.loaded
    else:  # adapters need the backbone whole
        backbone = load_tuned(runner.backbone if is_adapter(folder) else runner.loaded, folder)
    if is_leader():
        print(f"Evaluating the {name} model on the suite {suite.name}.", flush=True)

    def work() -> None:
        if is_leader():
            result = evaluate_model(backbone.model, backbone.tokenizer, suite, template, target, name)
            write_json(target / "result.json", result)
        else:
            help_leader(backbone.model, backbone.tokenizer, suite)

    on_all_devices(runner.trainer, backbone.model, work)
