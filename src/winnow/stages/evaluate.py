"""The evaluate stage: the backbone, the tuned model and what tuning started from on one suite, through the store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from winnow.data.records import Record
from winnow.data.templates import Template
from winnow.scoring.runner import PassRunner
from winnow.stages.tune import Recipe, check_model
from winnow.store.describe import describe
from winnow.store.files import write_json
from winnow.store.run_folder import drop_outputs_from, earlier_output
from winnow.tracking.run_card import StageRecord
from winnow.trainer import device_of

if TYPE_CHECKING:
    from winnow.evaluation.suite import Suite

EVALUATION_VERSION = 1  # raised when the same settings would give other results; part of every evaluation's fingerprint


def evaluate(
    record: StageRecord,
    folder: Path,
    runner: PassRunner,
    suite: Suite,
    template: Template,
    recipe: Recipe | None,
    subset: Callable[[], list[Record]] | None,
) -> dict[str, Any]:
    """Write `results.json`: metrics of `base` and, where there are such models, of `tuned` and its `start`; the paired
    comparison of `tuned` with `base`.

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
        tuned, start = earlier_output(folder, "model", "tune").resolve(), (folder / "start").resolve()
        folders |= {"start": start, "tuned": tuned} if start.exists() else {"tuned": tuned}
        if subset is not None:
            check_model(recipe, tuned, folders.get("start"), subset())
    record.status = "reused"
    models = {name: _result(record, name, model, runner, suite, template) for name, model in folders.items()}
    results = compare(models["base"], models.get("tuned"), suite)
    if "tuned" in models:
        results["comparison"], results["untested"] = compare_results(models["tuned"], models["base"], suite.averages)
    drop_outputs_from(folder, "evaluate")
    write_json(folder / "results.json", results | {"models": models})
    return {
        f"{name}/{key}": metric["value"]
        for name, model in models.items()
        for key, metric in model["metrics"].items()
        if key in results["headline"]
    }


def _result(
    record: StageRecord, name: str, folder: Path | None, runner: PassRunner, suite: Suite, template: Template
) -> dict[str, Any]:
    """The metrics of one model, from the store or computed now. folder: of a tuned model, None for the backbone."""
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
    artifact = runner.store.artifact("evaluations", meta)
    record.fingerprint = " ".join(filter(None, [record.fingerprint, artifact.fingerprint]))
    if not artifact.finished:
        with artifact.claim() as must_compute:  # the leader alone evaluates
            if must_compute:
                record.status = "computed"
                _evaluate(artifact.path, name, folder, runner, suite, template)
                artifact.finish()
    result = artifact.result("result.json", "metrics", "samples")
    if result["samples"] is not None:  # where the store is now, not where it was
        result["samples"] = str(artifact.path / "samples.jsonl")
    return result


def _evaluate(
    target: Path, name: str, folder: Path | None, runner: PassRunner, suite: Suite, template: Template
) -> None:
    from winnow.evaluation.harness import evaluate_model
    from winnow.tuning.saving import load_tuned

    backbone = runner.backbone if folder is None else load_tuned(runner.backbone, folder)
    print(f"Evaluating the {name} model on the suite {suite.name}.", flush=True)
    home = next(backbone.model.parameters()).device
    model = backbone.model.to(device_of(runner.trainer))  # Lightning leaves models on the CPU
    try:
        result = evaluate_model(model, backbone.tokenizer, suite, template, target, name)
    finally:
        model.to(home)
    write_json(target / "result.json", result)
