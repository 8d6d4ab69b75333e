"""The five stages in order: score, select, tune, evaluate, report. `run(cfg)` is an ordinary function."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from winnow.config import check
from winnow.console import announce, data_summary, summarise
from winnow.data.records import Pool, Record
from winnow.data.templates import Template, check_eos
from winnow.data.writers import write_quarantine, write_subset
from winnow.distributed import from_leader, is_leader, join
from winnow.errors import UserError
from winnow.network import set_offline
from winnow.pages.attack_page import write_attacks
from winnow.pages.report import write_report
from winnow.perturb.noising import Noising
from winnow.scoring.protocols import check_kind, check_method, check_pass
from winnow.scoring.runner import PassRunner
from winnow.scoring.scores import Scores
from winnow.selection.budget import Budget
from winnow.selection.detection import detection
from winnow.selection.diversity_report import write_diversity
from winnow.selection.vectors import dense
from winnow.stages.evaluate import EvaluateStage
from winnow.stages.tune import selected_records, show_in, tune_stage
from winnow.store.artifacts import Store
from winnow.store.differences import differences, read_selection, scored_with, selected_with, told
from winnow.store.files import write_json
from winnow.store.run_folder import STAGES, drop_outputs_from, held, needed, run_folder
from winnow.sweeps.scale import scaled
from winnow.tracking.job import naming, track_results, track_stage, track_start
from winnow.tracking.run_card import RunCard, StageRecord
from winnow.tracking.wandb_run import Tracker
from winnow.trainer import check_trainer
from winnow.tuning.adversary.base import Adversary


def run(cfg: DictConfig) -> dict[str, Any]:
    """Run the stages that `cfg.stages` names and return the headline numbers (also in `run_card.json`).

    Finished work is taken from the store. Raises UserError, in one sentence, for whatever the user can mend.
    """
    check(cfg)
    set_offline(cfg.offline)
    run = Run(scaled(cfg))
    if not is_leader():  # further processes help with passes and tuning; the first one writes
        for stage in ("score", "select", "tune"):
            if stage in run.stages:
                getattr(run, stage)(StageRecord())
        return {}
    with held(run.folder):
        return _lead(run)


def _lead(run: Run) -> dict[str, Any]:
    card = RunCard(OmegaConf.to_container(run.cfg, resolve=True))
    with card.recording(run.folder), run.tracker:
        card.data = data_summary(run.pool)
        announce(run, card.data)
        track_start(run, card)
        for stage in STAGES:
            if stage not in run.stages:
                card.skip(stage)
                continue
            with card.stage(stage) as record:
                card.results |= getattr(run, stage)(record)
            track_stage(run, stage, record)
            card.write(run.folder)
        track_results(run, card)
    if "report" in run.stages:
        run.report(StageRecord())  # once more, now that the card is complete
    summarise(run, card)
    return card.results


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
        check_method(self.method)
        self.pre_experience = instantiate(cfg.pre_experience)
        self.selection = instantiate(cfg.selection)
        check_kind("selection", self.selection, Budget)
        for name, pass_ in self.selection.passes.items():
            check_pass(f"selection.{name}", pass_)
        self.suite = instantiate(cfg.evaluation)
        self.trainer_args: dict[str, Any] = OmegaConf.to_container(cfg.trainer, resolve=True)
        check_trainer(self.trainer_args)
        self.trainer_args["callbacks"] = list(instantiate(cfg.callbacks).values())
        self.scored: pa.Table | None = None  # filled by `score`
        self.manifest: dict | None = None  # filled by `select`
        self.has_tuned = False  # set by `tune`
        self.runner = self._pass_runner(self.source)
        # Another backbone may score and select for the one that is tuned.
        scorer = cfg.get("scorer")
        self.scorer = self.runner if scorer is None else self._pass_runner(instantiate(scorer))
        adversary, noising = instantiate(cfg.adversary), instantiate(cfg.noising)
        check_kind("adversary", adversary, Adversary, "loss")
        if noising is not None:
            check_kind("noising", noising, Noising, "change")
        self.tuning = tune_stage(
            runner=self.runner,
            template=self.template,
            tuner=instantiate(cfg.tuning),
            start=instantiate(cfg.start),
            adversary=adversary,
            noising=noising,
            measure=lambda: instantiate(cfg.distortion),
            trainer_args=self.trainer_args,
        )
        if self.tuning is not None and "tune" in self.stages:
            check_eos(self.source.tokenizer)
        self._check_windows()
        if "evaluate" in self.stages:
            self.suite.check_data()
        self.pool: Pool = instantiate(cfg.data)

    def _check_windows(self) -> None:
        """Raises UserError if a text of the passes or of tuning may be longer than its backbone reads."""
        runs = [pass_ for pass_ in self.method.passes.values() if pass_.runs_model]
        if "score" in self.stages and runs:
            answers = max(pass_.max_new_tokens for pass_ in runs)
            settings = f"template.max_length={self.scoring_template.max_length}"
            settings += f" with method.max_new_tokens={answers}" if answers else ""
            self.scorer.source.check_window(self.scoring_template.max_length + answers, settings)
        if "tune" in self.stages and self.tuning is not None:
            self.source.check_window(self.template.max_length, f"template.max_length={self.template.max_length}")

    @cached_property
    def tracker(self) -> Tracker:
        config = OmegaConf.to_container(self.cfg, resolve=True)
        named = naming(config, self.method.name, self.source.name, self.pool.source)
        return instantiate(self.cfg.tracking)(folder=self.folder, config=config, **named)

    # -- stages: each returns headline numbers and fills its record of the run card -----------------------

    def score(self, record: StageRecord) -> dict[str, Any]:
        """Passes, formula, `scores.parquet`."""
        runner = self.scorer
        if self.pre_experience is not None and self.method.passes:
            tuned = self.pre_experience.prepare(runner, self.pool.records, self.scoring_template, self.trainer_args)
            runner = self._pass_runner(tuned)
            runner.used, runner.computed, runner.origin = self.scorer.used, self.scorer.computed, self.scorer.origin
        attacks = self.method.attacks
        prompts = runner.prompts(attacks, self.pool.records, self.scoring_template) if attacks else {}
        tables = {
            name: runner.compute(pass_, self.pool.records, self.scoring_template)
            for name, pass_ in self.method.passes.items()
        }
        record.status = "computed" if runner.computed or not runner.used else "reused"
        record.fingerprint = " ".join(runner.used) or None
        record.reused, record.resumed = runner.counts()
        if not is_leader():
            return {}
        scores = self.method.score(tables, self.pool.records)
        about = {"method": self.method.name, "passes": runner.used, "made_with": scored_with(self)}
        self.scored = scores.table(self.pool.records, about)
        if write_quarantine(self.pool, self.folder):
            print(f"{len(self.pool.quarantined)} bad rows are listed in {self.folder / 'quarantine.jsonl'}")
        drop_outputs_from(self.folder, "score")
        scores.write(self.scored, self.folder / "scores.parquet")
        if prompts:
            write_attacks(self.folder, prompts, self.pool.records)
        self.method.write_outputs(tables, self.pool.records, self.folder)
        pairs = zip(scores.score, scores.flag, strict=True)
        self.tracker.log_scores([None if reason else value for value, reason in pairs])
        return {"scored": sum(reason is None for reason in scores.flag), "records": len(scores.flag)}

    def select(self, record: StageRecord) -> dict[str, Any]:
        """`selection.json`, the subset in the schema it came in, its diversity, how well planted defects were found."""
        table, about = self._score_table() if is_leader() else (None, None)  # what is missing is missed at once
        vectors, lengths = self._selection_columns(record)
        if not is_leader():
            # Rounding may differ between processes, and with it who is just below a limit: there is one selection.
            self.manifest = from_leader(None)
            return {}
        chosen = self.selection.select(
            table,
            about["higher_is_better"],
            self.method.filters,
            self.method.takes_all,
            vectors,
            lengths,
            self.pool.keep_duplicates,
        )
        manifest = {"method": about["method"]} | chosen.manifest() | {"made_with": selected_with(self)}
        self.manifest = manifest = from_leader(manifest)
        drop_outputs_from(self.folder, "select")
        write_json(self.folder / "selection.json", manifest)
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
        if self.tuning is None:
            record.status = "skipped"
            return {}
        tuned = self.tuning.run(self._subset(), lambda: self.tracker.lightning_loggers())
        self.has_tuned = True
        record.fingerprint = " ".join(tuned.used)
        record.status = "computed" if tuned.computed else "reused"
        record.reused, record.resumed = tuned.reused, tuned.resumed
        if not is_leader():
            return {}
        drop_outputs_from(self.folder, "tune")
        told = show_in(self.folder, tuned)
        return {"steps": told["steps"], "final_loss": told["train_loss"][-1]["loss"]}

    def evaluate(self, record: StageRecord) -> dict[str, Any]:
        """`results.json`: metrics of the backbone and, if there is one, of the tuned model and its start."""
        if not self.suite.tasks:
            record.status = "skipped"
            return {}
        tuned = start = None
        if self.tuning is not None:
            tuned, start = needed(self.folder, "model", "tune").resolve(), (self.folder / "start").resolve()
            start = start if start.exists() else None
            if not self.has_tuned:
                self.tuning.check(tuned, start, self._subset())
        results = EvaluateStage(self.runner, self.suite, self.template, self.trainer_args).run(tuned, start, record)
        drop_outputs_from(self.folder, "evaluate")
        write_json(self.folder / "results.json", results)
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

    def _score_table(self) -> tuple[pa.Table, dict]:
        """The scores of this process, or those of an earlier run in the same folder if they are what is asked for."""
        if self.scored is not None:
            return self.scored, Scores.about(self.scored)
        path = needed(self.folder, "scores.parquet", "score")
        table = Scores.read(path)
        about = Scores.about(table)
        again = "run stages=[score,select] again with this run folder"
        found = differences(about.get("made_with", {}), scored_with(self))
        if found:
            raise UserError(
                f"{path} holds scores of method={about['method']} that were made with other settings ({told(found)}); "
                f"{again}, or set them back."
            )
        if table["id"].to_pylist() != [row.id for row in self.pool.records]:
            raise UserError(f"{path} was made from other records than data={self.pool.source}; {again}.")
        return table, about

    def _subset(self) -> list[Record]:
        """The selected records: those of this process, or of an earlier run in the same folder with these settings."""
        if self.manifest is None:
            self.manifest = read_selection(self, needed(self.folder, "selection.json", "select"))
        return selected_records(self.pool, self.manifest, self.folder / "selection.json")

    def _selection_columns(self, record: StageRecord) -> tuple[np.ndarray | None, np.ndarray | None]:
        """(records, width) vectors and (records,) answer tokens from the selection's passes, which all processes
        compute; None for a pass that it does not have."""
        passes = self.selection.passes
        tables = {name: self.scorer.compute(passes[name], self.pool.records, self.template) for name in passes}
        used = self.scorer.used[len(self.scorer.used) - len(tables) :]
        record.reused, record.resumed = self.scorer.counts(used)
        record.fingerprint = " ".join(used) or None
        vectors = dense(tables["embedding"].table["vector"]) if "embedding" in tables else None
        return vectors, tables["count"].numbers("answer_tokens") if "count" in tables else None

    def _detect(self, table, higher_is_better: bool, manifest: dict) -> dict | None:
        """Only pools that label their defects, as the embedded one does, can say how well they were found."""
        if not all("defect" in record.raw for record in self.pool.records):
            return None
        labels = {record.id: record.raw["defect"] for record in self.pool.records}
        dropped = {decision["id"] for decision in manifest["decisions"] if decision["rank"] is None}
        rows = table.select(["id", "score"]).to_pylist()
        found = detection(rows, labels, higher_is_better, dropped)
        write_json(self.folder / "detection.json", found)
        return found


def _stages(cfg: DictConfig) -> list[str]:
    named = [cfg.stages] if isinstance(cfg.stages, str) else list(cfg.stages)
    unknown = [stage for stage in named if stage not in STAGES]
    if unknown or not named:
        raise UserError(f"stages={named} must name some of {', '.join(STAGES)}.")
    return [stage for stage in STAGES if stage in named]
