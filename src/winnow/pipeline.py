"""The five stages in order: score, select, tune, evaluate, report. `run(cfg)` is an ordinary function."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from winnow.data.records import Pool, Record
from winnow.data.templates import Template
from winnow.data.writers import write_quarantine, write_subset
from winnow.distributed import compute_once, from_leader, is_leader, join
from winnow.errors import UserError
from winnow.experiments.scale import scaled
from winnow.files import write_atomically
from winnow.scoring.runner import PassRunner
from winnow.scoring.scores import Scores
from winnow.scoring.store import Artifact, Store
from winnow.summary import announce, data_summary, summarise, track_results
from winnow.selection.diversity_report import write_diversity
from winnow.selection.vectors import dense
from winnow.tracking.attack_page import write_attacks
from winnow.tracking.detection import detection
from winnow.tracking.report import write_report
from winnow.tracking.run_card import RunCard, StageRecord
from winnow.tracking.wandb_run import Tracker
from winnow.trainer import device_of
from winnow.tuning.noised import examples_of, prepare
from winnow.tuning.tuner import TUNED_VERSION

# Stage -> what it writes into the run folder.
OUTPUTS = {
    "score": ("scores.parquet", "attacks.*", "answers.parquet"),
    "select": ("selection.json", "subset.*", "detection.json", "diversity.json"),
    "tune": ("tuning.json", "model"),
    "evaluate": ("results.json",),
    "report": ("report.html",),
}
STAGES = tuple(OUTPUTS)
EVALUATION_VERSION = 1  # likewise for results


def run(cfg: DictConfig) -> dict[str, Any]:
    """Run the stages that `cfg.stages` names and return the headline numbers (also in `run_card.json`).

    Finished work is taken from the store. Raises UserError, in one sentence, for whatever the user can mend.
    """
    cfg = scaled(cfg)
    run = Run(cfg)
    if not is_leader():  # further processes help with passes and tuning; the first one writes
        for stage in ("score", "select", "tune"):
            if stage in run.stages:
                getattr(run, stage)(StageRecord())
        return {}
    card = RunCard(OmegaConf.to_container(cfg, resolve=True))
    with card.recording(run.folder), run.tracker:
        card.data = data_summary(run.pool)
        announce(run, card.data)
        for stage in STAGES:
            if stage not in run.stages:
                card.skip(stage)
                continue
            with card.stage(stage) as record:
                card.results |= getattr(run, stage)(record)
            card.write(run.folder)
        track_results(run, card)
    if "report" in run.stages:
        run.report(StageRecord())  # once more, now that the card is complete
    summarise(run, card)
    return card.results


def run_folder(cfg: DictConfig) -> Path:
    """Where this run writes: Hydra's folder for the job, or `paths.run` when called without Hydra."""
    folder = HydraConfig.get().runtime.output_dir if HydraConfig.initialized() else cfg.paths.run
    path = Path(folder).expanduser().resolve()
    try:
        path.mkdir(parents=True, exist_ok=True)
        (path / ".writable").touch()
        (path / ".writable").unlink(missing_ok=True)  # another process may have been quicker
    except OSError as error:
        raise UserError(
            f"paths.run={path} cannot be written ({error.strerror}); choose another folder with paths.run=..."
        ) from None
    return path


class Run:
    """Everything one run needs, built from its configuration before anything long begins."""

    def __init__(self, cfg: DictConfig) -> None:
        join()
        self.cfg = cfg
        self.stages = _stages(cfg)
        self.folder = run_folder(cfg)
        self.store = Store(cfg.paths.store)
        self.source = instantiate(cfg.backbone)
        self.template: Template = instantiate(cfg.template)
        own = cfg.method.get("template")  # a method may score under a template of its own
        self.scoring_template: Template = self.template if own is None else instantiate(own)
        # Resolved first: taken out of the whole, its references to other parts would lead nowhere.
        parts = OmegaConf.to_container(cfg.method, resolve=True)
        self.method = instantiate({key: parts[key] for key in parts if key != "template"})
        self.pre_experience = instantiate(cfg.pre_experience)
        self.selection = instantiate(cfg.selection)
        self.tuner = instantiate(cfg.tuning)
        self.noising = instantiate(cfg.noising)
        self.adversary = instantiate(cfg.adversary)
        self.suite = instantiate(cfg.evaluation)
        self.trainer_args: dict[str, Any] = OmegaConf.to_container(cfg.trainer, resolve=True)
        self.scored: pa.Table | None = None  # filled by `score`
        self.manifest: dict | None = None  # filled by `select`
        self.runner = self._pass_runner(self.source)
        # Another backbone may score and select for the one that is tuned.
        scorer = cfg.get("scorer")
        self.scorer = self.runner if scorer is None else self._pass_runner(instantiate(scorer))
        self.pool: Pool = instantiate(cfg.data)

    @cached_property
    def tracker(self) -> Tracker:
        config = OmegaConf.to_container(self.cfg, resolve=True)
        # W&B takes no tag of more than 64 characters, and a local path says nothing in a dashboard.
        words = [self.method.name, Path(self.source.name).name, Path(self.pool.source).stem]
        tags = [*self.cfg.tracking.get("tags", []), *(word[:64] for word in words)]
        return instantiate(self.cfg.tracking)(folder=self.folder, config=config, tags=list(dict.fromkeys(tags)))

    # -- stages: each returns headline numbers and fills its record of the run card -----------------------

    def score(self, record: StageRecord) -> dict[str, Any]:
        """Passes, formula, `scores.parquet`."""
        runner = self.scorer
        if self.pre_experience is not None and self.method.passes:
            tuned = self.pre_experience.prepare(runner, self.pool.records, self.template, self.trainer_args)
            runner = self._pass_runner(tuned)
            runner.used, runner.computed = self.scorer.used, self.scorer.computed
        attacks = getattr(self.method, "attacks", {})
        prompts = runner.prompts(attacks, self.pool.records, self.scoring_template) if attacks else {}
        tables = {
            name: runner.compute(pass_, self.pool.records, self.scoring_template)
            for name, pass_ in self.method.passes.items()
        }
        record.status = "computed" if runner.computed or not runner.used else "reused"
        record.fingerprint = " ".join(runner.used) or None
        if not is_leader():
            return {}
        scores = self.method.score(tables, self.pool.records)
        about = {"method": self.method.name, "settings": self._scoring_settings(), "passes": runner.used}
        self.scored = scores.table(self.pool.records, about)
        if write_quarantine(self.pool, self.folder):
            print(f"{len(self.pool.quarantined)} bad rows are listed in {self.folder / 'quarantine.jsonl'}")
        self._drop_outputs_from("score")
        scores.write(self.scored, self.folder / "scores.parquet")
        if prompts:
            write_attacks(self.folder, prompts, self.pool.records)
        if hasattr(self.method, "write_outputs"):  # what a method shows besides its scores
            self.method.write_outputs(tables, self.pool.records, self.folder)
        self.tracker.log_scores([None if reason else value for value, reason in zip(scores.score, scores.flag)])
        return {"scored": sum(reason is None for reason in scores.flag), "records": len(scores.flag)}

    def select(self, record: StageRecord) -> dict[str, Any]:
        """`selection.json`, the subset in the schema it came in, its diversity, how well planted defects were found."""
        table, about = self._score_table() if is_leader() else (None, None)  # what is missing is missed at once
        vectors = self._vectors(record)
        if not is_leader():
            # Rounding may differ between processes, and with it who is just below a limit: there is one selection.
            self.manifest = from_leader(None)
            return {}
        takes_all = getattr(self.method, "takes_all", False)
        chosen = self.selection.select(table, about["higher_is_better"], self.method.filters, takes_all, vectors)
        self.manifest = manifest = from_leader({"method": about["method"]} | chosen.manifest())
        self._drop_outputs_from("select")
        write_atomically(self.folder / "selection.json", json.dumps(manifest, indent=1))
        write_subset(self.pool, chosen.chosen, self.folder)
        if chosen.shortfall():
            print(chosen.shortfall(), flush=True)
        results = {"selected": len(chosen.chosen), "valid": chosen.n_valid, "cut": chosen.cut}
        covered = write_diversity(self.folder, vectors, chosen, self.selection)
        results |= {"classes_covered": covered} if covered is not None else {}
        found = self._detect(table, about["higher_is_better"], manifest)
        return results | ({"detection_auc": found["overall"]["auc"]} if found else {})

    def tune(self, record: StageRecord) -> dict[str, Any]:
        """An adapter or a model in the store, `model` in the run folder pointing to it, and `tuning.json`."""
        if self.tuner is None:
            record.status = "skipped"
            return {}
        artifact, subset = self._tuned_artifact()
        record.fingerprint = artifact.fingerprint
        record.status = "computed" if compute_once(artifact, lambda: self._fit(artifact, subset)) else "reused"
        if not is_leader():
            return {}
        told = (artifact.path / "tuning.json").read_text(encoding="utf-8")
        self._drop_outputs_from("tune")
        write_atomically(self.folder / "tuning.json", told)
        (self.folder / "model").unlink(missing_ok=True)  # a link whose artifact was deleted
        (self.folder / "model").symlink_to(artifact.path / "model", target_is_directory=True)
        tuned = json.loads(told)
        return {"steps": tuned["steps"], "final_loss": tuned["train_loss"][-1]["loss"]}

    def evaluate(self, record: StageRecord) -> dict[str, Any]:
        """`results.json`: the base model and, if there is one, the tuned model on the suite."""
        from winnow.evaluation.harness import compare

        if not self.suite.tasks:
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
        self._drop_outputs_from("evaluate")
        write_atomically(self.folder / "results.json", json.dumps(results, indent=1))
        headline = {}
        for name, model in results["models"].items():
            metrics = {f"{name}/{key}": metric["value"] for key, metric in model["metrics"].items()}
            self.tracker.log_metrics(metrics)
            headline |= {key: value for key, value in metrics.items() if key.split("/", 1)[1] in results["headline"]}
        return headline

    def report(self, record: StageRecord) -> dict[str, Any]:
        """`report.html`, from the files of the run folder."""
        write_report(self.folder, self.pool.records)
        return {}

    # -- helpers -------------------------------------------------------------------------------------------

    def _pass_runner(self, source) -> PassRunner:
        processes = self.cfg.attack.processes
        return PassRunner(source, self.store, self.trainer_args, attack_processes=processes, **self.cfg.scoring)

    def _need(self, file: str, stage: str) -> Path:
        path = self.folder / file
        if not path.exists():
            raise UserError(
                f"{path} is missing: the stage `{stage}` makes it; add it to stages, or name the folder of an "
                f"earlier run with paths.run=..."
            )
        return path

    def _scoring_settings(self) -> dict[str, Any]:
        """The method's configuration without what only changes the selection."""
        settings = OmegaConf.to_container(self.cfg.method, resolve=True)
        return {key: settings[key] for key in settings if key not in getattr(self.method, "only_filters", ())}

    def _score_table(self) -> tuple[pa.Table, dict]:
        """The scores of this process, or those of an earlier run in the same folder if they are what is asked for."""
        if self.scored is not None:
            return self.scored, Scores.about(self.scored)
        path = self._need("scores.parquet", "score")
        table = Scores.read(path)
        about = Scores.about(table)
        again = "run the stage `score` again with this run folder."
        if about["method"] != self.method.name or about["settings"] != self._scoring_settings():
            raise UserError(f"{path} holds scores of method={about['method']} with other settings; {again}")
        if table["id"].to_pylist() != [row.id for row in self.pool.records]:
            raise UserError(f"{path} was made from other records than data={self.pool.source}; {again}")
        return table, about

    def _vectors(self, record: StageRecord) -> np.ndarray | None:
        """(records, width) from the selection's embedding pass, which all processes compute; None if it has none."""
        passes = self.selection.passes
        tables = {name: self.scorer.compute(passes[name], self.pool.records, self.template) for name in passes}
        if not tables:
            return None
        record.fingerprint = " ".join(self.scorer.used[-len(tables) :])
        return dense(tables["embedding"].table["vector"])

    def _drop_outputs_from(self, stage: str) -> None:
        """Files of this and later stages in this folder told of something else; their artifacts stay in the store."""
        for later in STAGES[STAGES.index(stage) :]:
            for pattern in OUTPUTS[later]:
                for path in self.folder.glob(pattern):
                    path.unlink()

    def _tuned_artifact(self) -> tuple[Artifact, list[Record]]:
        if self.manifest is None:
            self.manifest = json.loads(self._need("selection.json", "select").read_text(encoding="utf-8"))
        wanted = {decision["row"]: decision["id"] for decision in self.manifest["decisions"] if decision["selected"]}
        subset = [record for record in self.pool.records if wanted.get(record.row) == record.id]
        if len(subset) != len(wanted):
            raise UserError(
                f"{self.folder / 'selection.json'} was made from other records than data={self.pool.source}; "
                f"run the stage `select` again with this run folder."
            )
        prepare(self.adversary, subset, self.noising, lambda: instantiate(self.cfg.distortion))
        meta = {
            "version": TUNED_VERSION,
            "records": sorted(record.id for record in subset),
            "tuner": self.tuner.settings(),
            "adversary": self.adversary.settings(),
            "backbone": self.source.identity,
            "template": self.template.settings(),
        }
        if self.noising is not None:
            meta["noising"] = self.noising.settings()
        return self.store.artifact("models", meta), subset

    def _fit(self, artifact: Artifact, subset: list[Record]) -> None:
        self.tuner.fit(
            self.runner.backbone,
            examples_of(subset, self.template, self.source.tokenizer, self.noising),
            artifact.path,
            self.adversary,
            self.tracker.lightning_loggers(),
            self.trainer_args,
            None if self.noising is None else self.noising.settings(),
        )

    def _evaluate_one(self, name: str, identity: dict, record: StageRecord, tuned: Path | None = None) -> dict:
        suite = self.suite.settings()
        meta = {
            "version": EVALUATION_VERSION,
            "suite": {key: suite[key] for key in suite if key not in ("batch_size", "headline")},
            "model": identity,
            # Stock tasks bring their own prompts.
            "template": self.template.settings() if self.suite.uses_template else None,
        }
        artifact = self.store.artifact("evaluations", meta)
        record.fingerprint = " ".join(filter(None, [record.fingerprint, artifact.fingerprint]))
        if not artifact.finished:
            with artifact.claim() as must_compute:  # the leader alone evaluates
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
        home = next(backbone.model.parameters()).device
        model = backbone.model.to(device_of(self.trainer_args))  # Lightning leaves models on the CPU
        try:
            result = evaluate_model(model, backbone.tokenizer, self.suite, self.template, artifact.path, name)
        finally:
            model.to(home)
        write_atomically(artifact.path / "result.json", json.dumps(result, indent=1))

    def _detect(self, table, higher_is_better: bool, manifest: dict) -> dict | None:
        """Only pools that label their defects, as the embedded one does, can say how well they were found."""
        if not all("defect" in record.raw for record in self.pool.records):
            return None
        labels = {record.id: record.raw["defect"] for record in self.pool.records}
        dropped = {decision["id"] for decision in manifest["decisions"] if decision["rank"] is None}
        rows = table.select(["id", "score"]).to_pylist()
        found = detection(rows, labels, higher_is_better, dropped)
        write_atomically(self.folder / "detection.json", json.dumps(found, indent=1))
        return found


def _stages(cfg: DictConfig) -> list[str]:
    named = [cfg.stages] if isinstance(cfg.stages, str) else list(cfg.stages)
    unknown = [stage for stage in named if stage not in STAGES]
    if unknown or not named:
        raise UserError(f"stages={named} must name some of {', '.join(STAGES)}.")
    return [stage for stage in STAGES if stage in named]
