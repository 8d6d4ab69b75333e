"""Reading the run folders of a sweep: what each job was, and what it measured."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from winnow.errors import UserError
from winnow.reproduce.names import METRICS, NOISES, identity
from winnow.reproduce.settings import free_keys, settings_of
from winnow.store.files import read_json
from winnow.sweeps.summary import FAILURE, LAST_SWEEP, failure

AGAIN = "delete the folder and run it again"
CARD_KEYS = ("status", "error", "started", "command", "stages", "git", "config")  # that every run card has


@dataclass(frozen=True)
class Measured:
    """One metric of one job. value: percent for the papers' metrics, otherwise in its own unit. n: items asked, or
    None. key: of results.json, None for what is no metric of an evaluation; scale: that of the value."""

    value: float
    n: int | None = None
    key: str | None = None
    scale: float = 1.0


@dataclass(frozen=True)
class Job:
    """One run folder of a sweep.

    identity: backbone, pool, method, ratio and settings, as the paper's table writes them. metrics: by paper.csv's
    names; those that it does not have under our own. error: the sentence that ended a failed job. started: when its
    last attempt began, in seconds since 1970. earlier: it is not finished, and no job of the folder's last sweep.
    stand_in: what stood in for the data of the table (`table.data`). settings, free, choices: of its configuration, see
    `reproduce.settings`. given: the keys of the sweep's command line. model, averages: the result that the metrics are
    of, and its suite's. A job that failed before it had a run card has
    no identity.
    """

    folder: Path
    status: str
    error: str | None
    identity: dict[str, str] = field(default_factory=dict)
    seed: int = 0
    metrics: dict[str, Measured] = field(default_factory=dict)
    command: str = ""
    commit: str = "none"
    changes: dict[str, list] = field(default_factory=dict)
    started: float = 0.0
    earlier: bool = False
    stand_in: str | None = None
    settings: dict[str, str] = field(default_factory=dict)
    free: frozenset[str] = frozenset()
    choices: dict[str, str] = field(default_factory=dict)
    given: tuple[str, ...] = ()
    model: Mapping[str, Any] = field(default_factory=dict)
    averages: Mapping[str, Any] = field(default_factory=dict)


def read_jobs(folder: str | Path, table: Mapping[str, Any], scale: str) -> list[Job]:
    """All jobs below a sweep's folder that belong to `table` at `scale`, sorted by folder; how many of another scale
    there are is printed. Raises UserError for a file that cannot be read."""
    folder = Path(folder)
    last = folder / LAST_SWEEP
    began = read_json(last, "began", cure=AGAIN)["began"] if last.is_file() else None
    jobs, others = [], Counter()
    for path in run_cards(folder):
        card = read_json(path, *CARD_KEYS, cure=AGAIN)
        if _is_of(card["config"], table):
            if _scale(card["config"]) == scale:
                jobs.append(_job(path.parent, card, table, began))
            else:
                others[_scale(card["config"])] += 1
    for path in sorted(folder.rglob(FAILURE)):  # jobs that failed before they had a run card
        file = path.parent / ".hydra" / "config.yaml"
        if (path.parent / "run_card.json").is_file() or not file.is_file():
            continue
        config = OmegaConf.load(file)
        if _is_of(config, table) and _scale(config) == scale:
            when = path.stat().st_mtime
            jobs.append(Job(path.parent, "failed", failure(path), started=when, earlier=_is_earlier(when, began)))
    for other, count in others.items():
        which = f"{count} job{'s' if count > 1 else ''} of scale={other}"
        print(f"{folder}: {which} left out; this table is scale={scale}.")
    return sorted(jobs, key=lambda job: job.folder)


def _scale(config: Mapping[str, Any]) -> str:
    return (config.get("scale") or {}).get("name") or "paper"


def _is_of(config: Mapping[str, Any], table: Mapping[str, Any]) -> bool:
    own = config.get("table") or {}
    return (own.get("paper"), own.get("name")) == (table["paper"], table["name"])


def _is_earlier(started: float, began: float | None) -> bool:
    """Whether a job began before the last sweep did; the run card tells whole seconds."""
    return began is not None and started < began - 1


def run_cards(folder: Path) -> list[Path]:
    """The run cards below a folder, without the copies that W&B keeps."""
    return sorted(path for path in folder.rglob("run_card.json") if "wandb" not in path.relative_to(folder).parts)


def _job(folder: Path, card: Mapping[str, Any], table: Mapping[str, Any], began: float | None) -> Job:
    config = card["config"]
    status, error = card["status"], card["error"]
    started = datetime.fromisoformat(card["started"]).timestamp()
    if (folder / FAILURE).is_file():  # the last attempt; it may have ended before it touched the card of the one before
        status, error, started = "failed", failure(folder / FAILURE), (folder / FAILURE).stat().st_mtime
    told = hydra_of(folder)
    if told is None:
        raise UserError(
            f"{folder / '.hydra' / 'hydra.yaml'}: not there, so nothing says which options the job had; "
            f"run the sweep again."
        )
    choices, given = told
    metrics = _times(card)
    if "selected" in (card.get("results") or {}):
        metrics["selected"] = Measured(card["results"]["selected"])
    results = (
        read_json(folder / "results.json", "models", cure=AGAIN)
        if (folder / "results.json").is_file()
        else {"models": {"base": {}}}
    )
    model = results["models"].get("tuned") or results["models"]["base"]
    if model:
        metrics |= _metrics(model["metrics"], results.get("headline") or [], config, table)
    commit = card["git"]["commit"]
    return Job(
        folder=folder,
        status=status,
        error=error,
        identity=identity(config.get("row") or {}, choices, table["paper"]),
        seed=config["seed"],
        metrics=metrics,
        command=card["command"],
        commit=f"{commit[:12]}{'+' if card['git']['dirty'] else ''}" if commit else "none",
        changes=config["scale"].get("changes") or {},
        started=started,
        earlier=status != "finished" and _is_earlier(started, began),
        stand_in=config["table"].get("data"),
        settings=settings_of(config),
        free=free_keys(config),
        choices=choices,
        given=given,
        model=model,
        averages=results.get("averages") or {},
    )


def hydra_of(folder: Path) -> tuple[dict[str, str], tuple[str, ...]] | None:
    """({group: chosen option}, keys of the sweep's command line) of a job; None if Hydra did not start it."""
    file = folder / ".hydra" / "hydra.yaml"
    if not file.is_file():
        return None
    hydra = OmegaConf.load(file).hydra
    words = OmegaConf.select(hydra, "overrides.task") or []
    kept = next((word for word in words if word.startswith("scale.keep=")), "")  # written by the sweeper for each job
    choices = {str(key): str(value) for key, value in hydra.runtime.choices.items()}
    return choices, tuple(re.findall(r"'([^']*)'", kept))


def _metrics(
    found: Mapping[str, Any], headline: Sequence[str], config: Mapping[str, Any], table: Mapping[str, Any]
) -> dict[str, Measured]:
    """The model's metrics, by the paper's names where it has them."""
    ours = {key: name for name, key in METRICS.items()}
    if table.get("average"):
        ours[table["average"]] = "average"
    dataset = config["data"].get("dataset")
    if dataset is not None:
        ours |= {f"{dataset}/micro_f1": "micro_f1", f"{dataset}/clean/micro_f1": "micro_f1"}
        ours |= {f"average/{dataset}/{noise}": f"micro_f1_{noise}" for noise in ("noisy", *NOISES)}
    metrics = {}
    for key, one in found.items():
        if key in ours:
            metrics[ours[key]] = Measured(100 * one["value"], one.get("n"), key, 100.0)
        elif key in headline:
            metrics[key] = Measured(one["value"], one.get("n"), key)
    return metrics


def whole(stage: Mapping[str, Any]) -> bool:
    """Whether a stage's seconds are those of all its work: nothing of it came from the store or from an interrupted
    run. A card that does not tell is not taken for one that says so."""
    return stage["status"] == "computed" and (stage.get("reused"), stage.get("resumed")) == (0, 0)


def _times(card: Mapping[str, Any]) -> dict[str, Measured]:
    """Times of selection and tuning, where they were measured as a whole."""
    stages = card["stages"]
    timed = {}
    if "tune" in stages and whole(stages["tune"]):
        timed["tuning_seconds"] = Measured(stages["tune"]["seconds"])
    if not all(stage in stages and whole(stages[stage]) for stage in ("score", "select")):
        return timed
    seconds = stages["score"]["seconds"] + stages["select"]["seconds"]
    records = (card.get("data") or {}).get("n_records")
    if not seconds or not records:
        return timed
    timed["selection_hours"] = Measured(seconds / 3600, records)
    timed["examples_per_second"] = Measured(records / seconds, records)
    return timed
