"""The evaluate stage: the backbone, the tuned model and what tuning started from on one suite, through the store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from winnow.store.describe import describe
from winnow.store.files import write_json
from winnow.trainer import device_of

if TYPE_CHECKING:
    from winnow.data.templates import Template
    from winnow.evaluation.suite import Suite
    from winnow.scoring.runner import PassRunner
    from winnow.store.artifacts import Artifact
    from winnow.tracking.run_card import StageRecord

EVALUATION_VERSION = 1  # raised when the same settings would give other results; part of every evaluation's fingerprint


@dataclass(frozen=True)
class EvaluateStage:
    """runner: gives backbone and store. template: of prompts that do not bring their own. trainer_args: say on which
    device."""

    runner: PassRunner
    suite: Suite
    template: Template
    trainer_args: Mapping[str, Any]

    def run(self, tuned: Path | None, start: Path | None, record: StageRecord) -> dict[str, Any]:
        """The content of `results.json`: `base`, and `tuned` and `start` where there is such a folder; the paired
        comparison of `tuned` with `base`."""
        from winnow.evaluation.comparison import compare_results
        from winnow.evaluation.harness import compare

        record.status = "reused"
        found = {
            name: self._one(name, folder, record)
            for name, folder in (("base", None), ("start", start), ("tuned", tuned))
            if folder is not None or name == "base"
        }
        results = compare(found["base"], found.get("tuned"), self.suite)
        if "tuned" in found:
            results["comparison"], results["untested"] = compare_results(
                found["tuned"], found["base"], self.suite.averages
            )
        return results | {"models": {name: dict(one) for name, one in found.items()}}

    def _one(self, name: str, folder: Path | None, record: StageRecord) -> dict[str, Any]:
        identity = describe(self.runner.source)
        if folder is not None:
            from winnow.tuning.saving import tuned_identity

            identity = tuned_identity(identity, folder)
        meta = {
            "version": EVALUATION_VERSION,
            "suite": describe(self.suite),
            "model": identity,
            # Stock tasks bring their own prompts.
            "template": describe(self.template) if self.suite.uses_template else None,
        }
        artifact = self.runner.store.artifact("evaluations", meta)
        record.fingerprint = " ".join(filter(None, [record.fingerprint, artifact.fingerprint]))
        if not artifact.finished:
            with artifact.claim() as must_compute:  # the leader alone evaluates
                if must_compute:
                    record.status = "computed"
                    self._evaluate(artifact, name, folder)
                    artifact.finish()
        result = artifact.result("result.json", "metrics", "samples")
        if result["samples"] is not None:  # where the store is now, not where it was
            result["samples"] = str(artifact.path / "samples.jsonl")
        return result

    def _evaluate(self, artifact: Artifact, name: str, folder: Path | None) -> None:
        from winnow.evaluation.harness import evaluate_model
        from winnow.tuning.saving import load_tuned

        backbone = self.runner.backbone if folder is None else load_tuned(self.runner.backbone, folder)
        print(f"Evaluating the {name} model on the suite {self.suite.name}.", flush=True)
        home = next(backbone.model.parameters()).device
        model = backbone.model.to(device_of(self.trainer_args))  # Lightning leaves models on the CPU
        try:
            result = evaluate_model(model, backbone.tokenizer, self.suite, self.template, artifact.path, name)
        finally:
            model.to(home)
        write_json(artifact.path / "result.json", result)
