"""The five stages in order: score, select, tune, evaluate, report. `run(cfg)` is an ordinary function."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from winnow.config import check, told
from winnow.console import announce, data_summary, summarise
from winnow.data.records import Record
from winnow.distributed import is_leader, join
from winnow.network import set_offline
from winnow.pages.model_card import tuned_model_card
from winnow.stages.evaluate import evaluate
from winnow.stages.parts import Parts, build_parts
from winnow.stages.report import report
from winnow.stages.score import score, scores_identity
from winnow.stages.select import score_table, select, selected_records, selection_identity
from winnow.stages.tune import Loggers, tune
from winnow.store.files import write_atomically
from winnow.store.run_folder import STAGES, folder_lock
from winnow.sweeps.scale import scaled
from winnow.tracking.job import logged, naming, track_results, track_stage
from winnow.tracking.run_card import RunCard, StageRecord
from winnow.tracking.wandb_run import Tracker

Stage = Callable[[StageRecord], dict[str, Any]]  # fills its record of the run card and returns headline numbers


def run(cfg: DictConfig) -> dict[str, Any]:
    """Run the stages that `cfg.stages` names and return the headline numbers (also in `run_card.json`).

    Finished work is taken from the store. Raises UserError, in one sentence, for whatever the user can mend.
    """
    # torch reads it at the first product on a GPU, for trainer.deterministic=true; it takes 24 MB there.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    hydra = told(cfg)
    cfg = OmegaConf.masked_copy(cfg, [key for key in cfg if key != "hydra"])
    check(cfg)
    set_offline(cfg.offline)
    cfg = scaled(cfg, hydra.get("overrides", []))
    join()
    parts = build_parts(cfg)
    if not is_leader():  # further processes help with passes, tuning and evaluation; the first one writes
        stages = stages_of(parts, lambda: _tracker(cfg, hydra, parts).lightning_loggers())
        for name in ("score", "select", "tune", "evaluate"):
            if name in parts.stages:
                stages[name](StageRecord())
        return {}
    with folder_lock(parts.folder):
        return _lead(cfg, hydra, parts)


def _lead(cfg: DictConfig, hydra: dict[str, Any], parts: Parts) -> dict[str, Any]:
    kernel = "ipykernel" in sys.modules and not HydraConfig.initialized()  # whose arguments are its own
    argv = ["winnow", *hydra.get("overrides", [])] if kernel else None
    folder, card = parts.folder, RunCard(OmegaConf.to_container(cfg, resolve=True), argv, hydra=hydra or None)
    with card.recording(folder), _tracker(cfg, hydra, parts) as tracker:
        suite = parts.suite if "evaluate" in parts.stages else None
        card.data = data_summary(parts.pool, suite)
        if parts.target is not None:
            card.data["target"] = data_summary(parts.target, suite)
        announce(parts, card.data)
        origin, keys = card.as_dict(), ("command", "git", "packages", "hardware")
        # At once: a run that fails has it too. `data` is the configuration's.
        tracker.update_config({key: origin[key] for key in keys} | {"pool": origin["data"]})
        stages = stages_of(parts, tracker.lightning_loggers)
        for name in STAGES:
            if name not in parts.stages:
                card.skip(name)
                continue
            with card.stage(name) as record:
                record.results = stages[name](record)
            if name in ("tune", "evaluate") and (folder / "model").exists():
                write_atomically(folder / "model_card.md", tuned_model_card(folder))
            track_stage(tracker, folder, parts.pool, name, record)
        track_results(tracker, folder, card)
    summarise(parts, card, tracker.place)
    return card.results


def stages_of(p: Parts, loggers: Loggers) -> dict[str, Stage]:
    """Each stage with the parts that it needs. loggers: makes those of the training."""

    def scores() -> dict[str, Any]:
        return scores_identity(p.method, p.pre_experience, p.pool, p.target, p.scorer, p.scoring_template)

    def selection() -> dict[str, Any]:
        return selection_identity(scores(), p.method, p.selection, p.pool, p.scorer, p.template)

    def subset() -> list[Record]:
        return selected_records(p.folder, p.pool, selection())

    def forget_scorer() -> None:  # no stage below needs another backbone that scored
        p.scorer.forget(whole=p.scorer is not p.runner)

    def tuned(record: StageRecord) -> dict[str, Any]:
        forget_scorer()
        return tune(record, p.folder, p.recipe, subset, loggers)

    def evaluated(record: StageRecord) -> dict[str, Any]:
        forget_scorer()
        return evaluate(record, p.folder, p.runner, p.suite, p.template, p.recipe, earlier)

    scoring = (p.folder, p.pool, p.method)
    preparation = (p.pre_experience, p.target)
    earlier = None if "tune" in p.stages else subset
    made = None if {"select", "tune"} & set(p.stages) else subset
    scored = None if {"score", "select"} & set(p.stages) else lambda: score_table(p.folder, p.pool, scores())
    asked = None if "evaluate" in p.stages else p.suite
    return {
        "score": lambda record: score(record, *scoring, p.scorer, p.scoring_template, *preparation, scores()),
        "select": lambda record: select(record, *scoring, p.selection, p.scorer, p.template, scores(), selection()),
        "tune": tuned,
        "evaluate": evaluated,
        "report": lambda record: report(p.folder, p.pool, p.recipe, scored, made, asked),
    }


def _tracker(cfg: DictConfig, hydra: dict[str, Any], parts: Parts) -> Tracker:
    config, choices = OmegaConf.to_container(cfg, resolve=True), hydra.get("choices", {})
    names = naming(config, choices, parts.method.name, parts.runner.source.name, parts.pool.source)
    distortion = parts.recipe is not None and parts.recipe.adversary.needs_distortion
    config = logged(config, choices, attacks=bool(parts.method.attacks), distortion=distortion)
    return instantiate(cfg.tracking)(folder=parts.folder, config=config, **names)
