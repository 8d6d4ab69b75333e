"""The number of a run that a sweeper optimises: `objective=tuned/embedded_answers/bits_per_byte`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig

from winnow.errors import UserError

MODELS = ("base", "start", "tuned")


def objective(results: Mapping[str, Any], name: str) -> float:
    """The value of a result. Raises UserError if the results have no number of this name."""
    if not isinstance(results.get(name), (int, float)):
        raise UserError(f"objective={name} is not a number in the results of this run: {', '.join(results)}.")
    return float(results[name])


def check_objective(cfg: DictConfig) -> None:
    """Raises UserError if a run of `cfg`, already at its scale, cannot report `cfg.objective`."""
    names = results_of(cfg)
    if cfg.objective not in names:
        raise UserError(
            f"objective={cfg.objective}: a run with these settings does not report it; choose "
            f"{', '.join(names) or 'other stages, because these report no number'}."
        )


def results_of(cfg: DictConfig) -> list[str]:
    """The names of the results that a run can report. They include `detection_auc` and `classes_covered` for every run
    that selects, although these depend on pool and selection."""
    stages = [cfg.stages] if isinstance(cfg.stages, str) else list(cfg.stages)
    tuned, started = (cfg[key]["_target_"] != "winnow.config.nothing" for key in ("tuning", "start"))
    names = ["scored", "records"] if "score" in stages else []
    if "select" in stages:
        names += ["selected", "valid", "cut", "classes_covered", "detection_auc"]
    if "tune" in stages and tuned:
        names += ["steps", "final_loss"]
    if "evaluate" in stages:
        present = {"base": True, "start": started, "tuned": tuned}
        headline = _headline(cfg)
        names += [f"{model}/{key}" for model in MODELS if present[model] for key in headline]
    return names


def _headline(cfg: DictConfig) -> list[str]:
    """The suite's headline without the tasks that it skips because they run the model's code, and their averages."""
    suite = instantiate(cfg.evaluation)
    if suite.allow_code_execution or not suite.tasks or suite.nlu is not None:
        return list(suite.headline)
    from winnow.evaluation.harness import runnable

    reported = {f"{task.task}/{metric}" for task in runnable(suite)[0] for metric in task.metrics}
    for name, keys in suite.averages.items():
        if reported.issuperset(keys):
            reported.add(f"average/{name}")
    return [key for key in suite.headline if key in reported]
