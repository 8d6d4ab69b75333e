"""Reading the run folders of a sweep: what each job was, and what it measured."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from winnow.errors import UserError
from winnow.experiments.names import METRICS, identity


@dataclass(frozen=True)
class Measured:
    """One metric of one job. value: percent for the papers' metrics, otherwise in its own unit. n: items asked, or
    None."""

    value: float
    n: int | None = None


@dataclass(frozen=True)
class Job:
    """One run folder of a sweep.

    identity: backbone, pool, method, ratio and settings, as the paper's table writes them. metrics: by paper.csv's
    names; those that it does not have under our own. error: the sentence that ended a failed job.
    """

    folder: Path
    status: str
    error: str | None
    identity: dict[str, str]
    seed: int
    metrics: dict[str, Measured]
    command: str
    commit: str
    scale: str
    changes: dict[str, list]


def read_jobs(folder: str | Path, table: Mapping[str, Any]) -> list[Job]:
    """All jobs below a sweep's folder that belong to `table`, sorted by folder. Raises UserError for a file that
    cannot be read."""
    jobs = []
    for path in run_cards(Path(folder)):
        card = read_json(path)
        own = card["config"].get("table") or {}
        if (own.get("paper"), own.get("name")) == (table["paper"], table["name"]):
            jobs.append(_job(path.parent, card, table))
    return jobs


def run_cards(folder: Path) -> list[Path]:
    """The run cards below a folder, without the copies that W&B keeps."""
    return sorted(path for path in folder.rglob("run_card.json") if "wandb" not in path.relative_to(folder).parts)


def read_json(path: Path) -> dict[str, Any]:
    """The content of a JSON file. Raises UserError for one that cannot be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); delete the folder and run it again.") from error


def _job(folder: Path, card: Mapping[str, Any], table: Mapping[str, Any]) -> Job:
    config = card["config"]
    hydra_file = folder / ".hydra" / "hydra.yaml"
    if not hydra_file.is_file():
        raise UserError(f"{hydra_file}: not there, so nothing says which options the job had; run the sweep again.")
    choices = OmegaConf.load(hydra_file).hydra.runtime.choices
    metrics = _times(card)
    if "selected" in (card.get("results") or {}):
        metrics["selected"] = Measured(card["results"]["selected"])
    results = folder / "results.json"
    if results.is_file():
        metrics |= _metrics(read_json(results), config, table)
    commit = card["git"]["commit"]
    return Job(
        folder=folder,
        status=card["status"],
        error=card["error"],
        identity=identity(config.get("row") or {}, {str(k): str(v) for k, v in choices.items()}, table["paper"]),
        seed=config["seed"],
        metrics=metrics,
        command=card["command"],
        commit=f"{commit[:12]}{'+' if card['git']['dirty'] else ''}" if commit else "none",
        scale=config["scale"]["name"],
        changes=config["scale"].get("changes") or {},
    )


def _metrics(results: Mapping[str, Any], config: Mapping[str, Any], table: Mapping[str, Any]) -> dict[str, Measured]:
    """The tuned model's metrics, the base model's where nothing was tuned."""
    models = results["models"]
    found = (models.get("tuned") or models["base"])["metrics"]
    ours = {key: name for name, key in METRICS.items()}
    if table.get("average"):
        ours[table["average"]] = "average"
    dataset = config["data"].get("dataset")
    if dataset is not None:
        ours[f"{dataset}/micro_f1"] = "micro_f1"
    metrics = {}
    for key, one in found.items():
        if key in ours:
            metrics[ours[key]] = Measured(100 * one["value"], one.get("n"))
        elif key in (results.get("headline") or []):
            metrics[key] = Measured(one["value"], one.get("n"))
    return metrics


def _times(card: Mapping[str, Any]) -> dict[str, Measured]:
    """Selection's time, where it was measured: a stage that was taken from the store tells nothing of it."""
    stages = card["stages"]
    if "tune" in stages and stages["tune"]["status"] == "computed":
        tuning = {"tuning_seconds": Measured(stages["tune"]["seconds"])}
    else:
        tuning = {}
    if not all(stages.get(stage, {}).get("status") == "computed" for stage in ("score", "select")):
        return tuning
    seconds = stages["score"]["seconds"] + stages["select"]["seconds"]
    records = (card.get("data") or {}).get("n_records")
    if not seconds or not records:
        return tuning
    timed = {
        "selection_hours": Measured(seconds / 3600, records),
        "examples_per_second": Measured(records / seconds, records),
    }
    return tuning | timed
