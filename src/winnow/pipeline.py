"""The five stages in order: score, select, tune, evaluate, report. `run(cfg)` is an ordinary function."""

from __future__ import annotations

import json
import shutil
from functools import cached_property
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from winnow.data.records import Pool, Record
from winnow.data.templates import Template
from winnow.data.writers import write_quarantine, write_subset
from winnow.distributed import barrier, is_leader
from winnow.errors import UserError
from winnow.scoring.runner import PassRunner
from winnow.scoring.scores import Scores
from winnow.scoring.store import Artifact, Store, write_atomically
from winnow.tracking.detection import detection
from winnow.tracking.report import write_report
from winnow.tracking.run_card import RunCard, StageRecord
from winnow.tracking.wandb_run import Tracker

STAGES = ("score", "select", "tune", "evaluate", "report")
TUNED_VERSION = 1  # raised when tuning would give other weights for the same settings
EVALUATION_VERSION = 1  # likewise for results


def run(cfg: DictConfig) -> dict[str, Any]:
    """Run the stages that `cfg.stages` names and return the headline numbers (also in `run_card.json`).

    Finished work is taken from the store. Raises UserError, in one sentence, for whatever the user can mend.
    """
    run = Run(cfg)
    if not is_leader():  # further ranks help with passes and tuning; the first one writes
        for stage in ("score", "tune"):
            if stage in run.stages:
                getattr(run, stage)(StageRecord())
        return {}
    card = RunCard(OmegaConf.to_container(cfg, resolve=True))
    with card.recording(run.folder), run.tracker:
        card.data = run.data_summary()
        run.announce()
        for stage in STAGES:
            if stage not in run.stages:
                card.skip(stage)
                continue
            with card.stage(stage) as record:
                if stage == "report":
                    continue  # the report shows the finished card, so it is written after it
                card.results |= getattr(run, stage)(record)
        run.tracker.summary(card.results)
    if "report" in run.stages:
        run.report()
    run.summarise(card)
    return card.results


def run_folder(cfg: DictConfig) -> Path:
    """Where this run writes: Hydra's folder for the job, or `paths.run` when called without Hydra."""
    folder = HydraConfig.get().runtime.output_dir if HydraConfig.initialized() else cfg.paths.run
    path = Path(folder).expanduser().resolve()
    try:
        path.mkdir(parents=True, exist_ok=True)
        (path / ".writable").touch()
        (path / ".writable").unlink()
    except OSError as error:
        raise UserError(
            f"paths.run={path} cannot be written ({error.strerror}); choose another folder with paths.run=..."
        ) from None
    return path


class Run:
    """Everything one run needs, built from its configuration before anything long begins."""

    def __init__(self, cfg: DictConfig) -> None:
        self.cfg = cfg
        self.stages = _stages(cfg)
        self.folder = run_folder(cfg)
        self.store = Store(cfg.paths.store)
        self.source = instantiate(cfg.backbone)
        self.template: Template = instantiate(cfg.template)
        own = cfg.method.get("template")  # a method may score under a template of its own
        self.scoring_template: Template = self.template if own is None else instantiate(own)
        self.method = instantiate({key: cfg.method[key] for key in cfg.method if key != "template"})
        self.pre_experience = instantiate(cfg.pre_experience)
        self.selection = instantiate(cfg.selection)
        self.tuner = instantiate(cfg.tuning)
        self.adversary = instantiate(cfg.adversary)
        self.suite = instantiate(cfg.evaluation)
        self.trainer_args: dict[str, Any] = OmegaConf.to_container(cfg.trainer, resolve=True)
        self.runner = PassRunner(self.source, self.store, self.trainer_args, **cfg.scoring)
        self.pool: Pool = instantiate(cfg.data)

    @cached_property
    def tracker(self) -> Tracker:
        config = OmegaConf.to_container(self.cfg, resolve=True)
        return instantiate(self.cfg.tracking)(folder=self.folder, config=config)

    # -- stages: each returns headline numbers and fills its record of the run card -----------------------

    def score(self, record: StageRecord) -> dict[str, Any]:
        """Passes, formula, `scores.parquet`."""
        runner = self.runner
        if self.pre_experience is not None and self.method.passes:
            tuned = self.pre_experience.prepare(runner, self.pool.records, self.template, self.trainer_args)
            runner = PassRunner(tuned, self.store, self.trainer_args, **self.cfg.scoring)
            runner.used, runner.computed = self.runner.used, self.runner.computed
        tables = {
            name: runner.compute(pass_, self.pool.records, self.scoring_template)
            for name, pass_ in self.method.passes.items()
        }
        record.status = "computed" if runner.computed or not runner.used else "reused"
        record.fingerprint = " ".join(runner.used) or None
        if not is_leader():
            return {}
        if write_quarantine(self.pool, self.folder):
            print(f"{len(self.pool.quarantined)} bad rows are listed in {self.folder / 'quarantine.jsonl'}")
        scores = self.method.score(tables, self.pool.records)
        about = {
            "method": self.method.name,
            "settings": OmegaConf.to_container(self.cfg.method, resolve=True),
            "passes": dict(zip(self.method.passes, runner.used[-len(tables) :], strict=False)),
        }
        scores.write(self.pool.records, self.folder / "scores.parquet", about)
        self.tracker.log_scores([None if reason else value for value, reason in zip(scores.score, scores.flag)])
        return {"scored": sum(reason is None for reason in scores.flag), "records": len(scores.flag)}

    def select(self, record: StageRecord) -> dict[str, Any]:
        """`selection.json`, the subset in the schema it came in, and how well planted defects were found."""
        table, about = Scores.read(self._need("scores.parquet", "score"))
        if table["id"].to_pylist() != [row.id for row in self.pool.records]:
            raise UserError(
                f"{self.folder / 'scores.parquet'} was made from other records than data={self.pool.source}; "
                f"run the stage `score` again with this run folder."
            )
        takes_all = getattr(self.method, "takes_all", False)
        chosen = self.selection.select(table, about["higher_is_better"], self.method.filters, takes_all)
        manifest = {"method": about["method"]} | chosen.manifest()
        write_atomically(self.folder / "selection.json", json.dumps(manifest, indent=1))
        write_subset(self.pool, chosen.chosen, self.folder)
        results = {"selected": len(chosen.chosen), "valid": chosen.n_valid, "cut": chosen.cut}
        found = self._detect(table, about["higher_is_better"], manifest)
        return results | ({"detection_auc": found["overall"]["auc"]} if found else {})

    def tune(self, record: StageRecord) -> dict[str, Any]:
        """An adapter or a model in the store, `model` in the run folder pointing to it, and `tuning.json`."""
        if self.tuner is None:
            record.status = "skipped"
            return {}
        artifact, subset = self._tuned_artifact()
        record.fingerprint = artifact.fingerprint
        record.status = "reused" if artifact.finished else "computed"
        if not artifact.finished:
            if is_leader():
                with artifact.claim() as must_compute:
                    if must_compute:
                        self._fit(artifact, subset)
                        artifact.finish()
            else:
                self._fit(artifact, subset)
            barrier()
        if not is_leader():
            return {}
        shutil.copyfile(artifact.path / "tuning.json", self.folder / "tuning.json")
        link = self.folder / "model"
        link.unlink(missing_ok=True)
        link.symlink_to(artifact.path / "model", target_is_directory=True)
        tuned = json.loads((self.folder / "tuning.json").read_text(encoding="utf-8"))
        return {"steps": tuned["steps"], "final_loss": tuned["train_loss"][-1]["loss"]}

    def evaluate(self, record: StageRecord) -> dict[str, Any]:
        """`results.json`: the base model and, if there is one, the tuned model on the suite."""
        from winnow.evaluation.harness import compare

        if self.suite is None:
            record.status = "skipped"
            return {}
        record.status = "reused"
        base = self._evaluate_one("base", self.source.identity, record)
        tuned = None
        if self.tuner is not None:
            from winnow.tuning.saving import tuned_identity

            folder = self._need("model", "tune").resolve()
            tuned = self._evaluate_one("tuned", tuned_identity(self.source.identity, folder), record, folder)
        results = compare(base, tuned, self.suite)
        write_atomically(self.folder / "results.json", json.dumps(results, indent=1))
        headline = {}
        for name, model in results["models"].items():
            metrics = {f"{name}/{key}": metric["value"] for key, metric in model["metrics"].items()}
            self.tracker.log_metrics(metrics)
            headline |= {key: value for key, value in metrics.items() if key.split("/", 1)[1] in results["headline"]}
        return headline

    def report(self) -> None:
        """`report.html`, from the files of the run folder."""
        write_report(self.folder, self.pool.records)

    # -- helpers -------------------------------------------------------------------------------------------

    def _need(self, file: str, stage: str) -> Path:
        path = self.folder / file
        if not path.exists():
            raise UserError(
                f"{path} is missing: the stage `{stage}` makes it; add it to stages, or name the folder of an "
                f"earlier run with paths.run=..."
            )
        return path

    def _tuned_artifact(self) -> tuple[Artifact, list[Record]]:
        manifest = json.loads(self._need("selection.json", "select").read_text(encoding="utf-8"))
        wanted = {decision["row"] for decision in manifest["decisions"] if decision["selected"]}
        subset = [record for record in self.pool.records if record.row in wanted]
        meta = {
            "version": TUNED_VERSION,
            "records": [record.id for record in subset],
            "tuner": self.tuner.settings(),
            "adversary": self.adversary.settings(),
            "backbone": self.source.identity,
            "template": self.template.settings(),
        }
        return self.store.artifact("models", meta), subset

    def _fit(self, artifact: Artifact, subset: list[Record]) -> None:
        examples = self.template.encode(subset, self.source.tokenizer, eos=True)
        self.tuner.fit(
            self.runner.backbone,
            examples,
            artifact.path,
            self.adversary,
            self.tracker.lightning_loggers(),
            self.trainer_args,
        )

    def _evaluate_one(self, name: str, identity: dict, record: StageRecord, tuned: Path | None = None) -> dict:
        meta = {
            "version": EVALUATION_VERSION,
            "suite": self.suite.settings(),
            "model": identity,
            "template": self.template.settings(),
        }
        artifact = self.store.artifact("evaluations", meta)
        record.fingerprint = " ".join(filter(None, [record.fingerprint, artifact.fingerprint]))
        if not artifact.finished:
            with artifact.claim() as must_compute:
                if must_compute:
                    record.status = "computed"
                    self._harness(artifact, name, tuned)
                    artifact.finish()
        return json.loads((artifact.path / "result.json").read_text(encoding="utf-8"))

    def _harness(self, artifact: Artifact, name: str, tuned: Path | None) -> None:
        from winnow.evaluation.harness import evaluate_model
        from winnow.tuning.saving import load_tuned

        backbone = self.runner.backbone if tuned is None else load_tuned(self.runner.backbone, tuned)
        print(f"Evaluating the {name} model on the suite {self.suite.name}.", flush=True)
        result = evaluate_model(backbone.model, backbone.tokenizer, self.suite, self.template, artifact.path, name)
        write_atomically(artifact.path / "result.json", json.dumps(result, indent=1))

    def _detect(self, table, higher_is_better: bool, manifest: dict) -> dict | None:
        """Only pools that label their defects, as the embedded one does, can say how well they were found."""
        if not all("defect" in record.raw for record in self.pool.records):
            return None
        labels = {record.id: record.raw["defect"] for record in self.pool.records}
        dropped = {d["id"] for d in manifest["decisions"] if d["reason"] not in ("selected", "beyond_budget")}
        rows = table.select(["id", "score"]).to_pylist()
        found = detection(rows, labels, higher_is_better, dropped)
        write_atomically(self.folder / "detection.json", json.dumps(found, indent=1))
        return found

    def data_summary(self) -> dict[str, Any]:
        """The pool as the run card shows it."""
        pool = self.pool
        return {
            "source": pool.source,
            "schema": pool.schema,
            "format": pool.format,
            "n_records": len(pool.records),
            "n_quarantined": len(pool.quarantined),
            "duplicates": pool.duplicates,
            "fingerprint": pool.fingerprint,
        }

    def announce(self) -> None:
        """One line that says what is about to happen."""
        data = self.data_summary()
        extra = [f"{data['duplicates']} duplicates"] if data["duplicates"] else []
        extra += [f"{data['n_quarantined']} quarantined"] if data["n_quarantined"] else []
        note = f" ({', '.join(extra)})" if extra else ""
        print(
            f"Winnow: {', '.join(self.stages)} | method {self.method.name} | pool {data['source']}, "
            f"{data['n_records']} records{note} | backbone {self.source.name}, {self.source.dtype}",
            flush=True,
        )

    def summarise(self, card: RunCard) -> None:
        """What came out and where it is."""
        print("\nDone.")
        for stage, record in card.stages.items():
            if record.status != "skipped":
                print(f"  {stage:<9} {record.seconds:8.1f} s  {record.status}")
        for name, value in card.results.items():
            print(f"  {name:<38} {value:.4f}" if isinstance(value, float) else f"  {name:<38} {value}")
        print(f"  run       {self.folder}")
        print(f"  store     {self.store.root}")
        if "report" in self.stages:
            print(f"  report    {self.folder / 'report.html'}")


def _stages(cfg: DictConfig) -> list[str]:
    named = [cfg.stages] if isinstance(cfg.stages, str) else list(cfg.stages)
    unknown = [stage for stage in named if stage not in STAGES]
    if unknown or not named:
        raise UserError(f"stages={named} must name some of {', '.join(STAGES)}.")
    return [stage for stage in STAGES if stage in named]
