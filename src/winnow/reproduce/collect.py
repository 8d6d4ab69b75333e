"""Reading the run folders of a sweep: what each job was, and what it measured."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from winnow.errors import UserError
from winnow.pages.files import read_json, run_cards
from winnow.reproduce.settings import free_keys, settings_of
from winnow.sweeps.summary import CARD, FAILURE, LAST_SWEEP, failure, table_name
from winnow.tracking.names import METRICS, NOISES, identity

UNTOLD = "its run card does not say which options were chosen; run it again"


class Run:
    """What tables and comparing pages read of every run folder.

    started: when the last attempt began, in seconds since 1970. identity: what the run is, in the words of its table.
    settings, choices: of its configuration, see `reproduce.settings`. overrides: of its command line, or of its job of
    a sweep. results: results.json, {} without an evaluation."""

    identity: dict[str, str]

    def __init__(self, folder: Path, card: Mapping[str, Any]) -> None:
        if "hydra" not in card:  # as earlier versions wrote it
            raise UserError(f"{folder}: {UNTOLD}.")
        config, told = card["config"], card["hydra"] or {"choices": {}, "overrides": ()}
        self.folder, self.command, self.seed = folder, card["command"], config["seed"]
        self.choices, self.overrides = told["choices"], tuple(told["overrides"])
        self.started = datetime.fromisoformat(card["started"]).timestamp()
        self.settings, self.results = settings_of(config), _results(folder)

    @property
    def model(self) -> Mapping[str, Any]:
        """The results of the tuned model, else of the base model; {} without an evaluation."""
        models = self.results.get("models", {})
        return models.get("tuned") or models.get("base") or {}

    @property
    def averages(self) -> Mapping[str, list[str]]:
        """The averages of the suite: name -> the metrics that it is the mean of."""
        return self.results.get("averages") or {}

    @cached_property
    def measured(self) -> tuple[dict[str, Any], dict[str, str]]:
        """The items of its model's metrics, and why others have none: see `evaluation.comparison.measurements`."""
        from winnow.evaluation.comparison import measurements  # loads scipy

        return measurements(self.model, self.averages)


@dataclass(frozen=True)
class Measured:
    """One metric of one job. value: in percent for a paper's metric, otherwise in the metric's own unit. n: number of
    items, or None. key: the metric's key in results.json, None where no evaluation measured it. scale: of the value."""

    value: float
    n: int | None = None
    key: str | None = None
    scale: float = 1.0


class Job(Run):
    """One job of a sweep.

    error: the sentence that ended a failed job. metrics: by the names of paper.csv, or by our own where paper.csv has
    none. changes: of the scale. earlier: an unfinished job that the folder's last sweep did not have. stand_in: the
    data that replaced the table's (`table.data`). free: keys of the configuration that change no number. command_line:
    the keys that the sweep's command line sets. budget: (what was asked for, what was taken), None for all data."""

    def __init__(self, folder: Path, card: Mapping[str, Any], table: Mapping[str, Any], began: float | None) -> None:
        if not card.get("hydra"):
            raise UserError(f"{folder}: {UNTOLD}.")
        super().__init__(folder, card)
        config, git, note = card["config"], card["git"], folder / FAILURE
        self.status, self.error = card["status"], card["error"]
        if note.is_file():  # of the last attempt, which may have ended before it changed the card
            self.status, self.error, self.started = "failed", failure(note), note.stat().st_mtime
        self.earlier = self.status != "finished" and _is_earlier(self.started, began)
        self.identity = identity(config.get("row") or {}, self.choices, table["paper"])
        self.commit = f"{git['commit'][:12]}{'+' if git['dirty'] else ''}" if git["commit"] else "none"
        self.changes: dict[str, list] = config["scale"].get("changes") or {}
        self.stand_in: str | None = config["table"].get("data")
        self.free = free_keys(config)
        # The sweeper writes this override for each job.
        keys = next((word for word in self.overrides if word.startswith("scale.keep=")), "")
        self.command_line = tuple(re.findall(r"'([^']*)'", keys))
        self.budget = _budget(card, self.choices)
        self.metrics = _times(card)
        if "selected" in (card.get("results") or {}):
            self.metrics["selected"] = Measured(card["results"]["selected"])
        if self.model:
            self.metrics |= _metrics(self.model["metrics"], self.results.get("headline") or [], config, table)


@dataclass
class Early:
    """A job that failed before it wrote a run card: what `Job` says of its failure."""

    folder: Path
    started: float
    error: str
    earlier: bool
    status: str = "failed"


def read_jobs(folder: str | Path, table: Mapping[str, Any], scale: str) -> list[Job | Early]:
    """All jobs below a sweep's folder that belong to `table` at `scale`, sorted by folder. Prints how many jobs have
    another scale. Raises UserError for a file that cannot be read."""
    folder = Path(folder)
    began = (read_json(folder / LAST_SWEEP) or {}).get("began")
    jobs, others = [], Counter()
    for path, card, config in jobs_below(folder):
        if table_name(config.get("table")) != table_name(table):
            continue
        if scale_of(config) != scale:
            others[scale_of(config)] += 1
        elif card is not None:
            jobs.append(Job(path, card, table, began))
        else:
            when = (path / FAILURE).stat().st_mtime
            jobs.append(Early(path, when, failure(path / FAILURE), _is_earlier(when, began)))
    for other, count in others.items():
        print(f"{folder}: {count} job{'s' * (count > 1)} of scale={other} left out; this table is scale={scale}.")
    return sorted(jobs, key=lambda job: job.folder)


def jobs_below(folder: Path) -> Iterator[tuple[Path, dict[str, Any] | None, Mapping[str, Any]]]:
    """(folder, run card, configuration) of every job below a folder; the card is None for a job that failed early."""
    for path in run_cards(folder):
        card = read_json(path)
        yield path.parent, card, card["config"]
    for path in sorted(folder.rglob(FAILURE)):
        config = path.parent / ".hydra" / "config.yaml"
        if not (path.parent / CARD).is_file() and config.is_file():
            yield path.parent, None, OmegaConf.load(config)


def scale_of(config: Mapping[str, Any]) -> str:
    """The name of a job's scale."""
    return (config.get("scale") or {}).get("name") or "paper"


def _results(folder: Path) -> dict[str, Any]:
    """results.json with the paths of its samples: beside it, or, of an older version, in the store."""
    results = read_json(folder / "results.json") or {}
    for model in results.get("models", {}).values():
        if model.get("samples"):
            model["samples"] = str(folder / model["samples"])
    return results


def _is_earlier(started: float, began: float | None) -> bool:
    """Whether a job began before the last sweep did, by a minute at least (ours): clocks of two hosts differ, and to
    correct a sweep and start it again takes as long."""
    return began is not None and started < began - 60


def _budget(card: Mapping[str, Any], choices: Mapping[str, str]) -> tuple[str, str] | None:
    """What a comparison must have in common: records taken, or the share of the answer tokens that was asked for, which
    is met as nearly as whole records can. None for all data, and for the control whose point is the tokens."""
    taken = (card.get("results") or {}).get("selected")
    if taken is None or choices["method"] == "full" or choices["selection"] == "equal_tokens":
        return None
    selection = card["config"]["selection"]
    asked = str(selection.get("count") or selection.get("ratio"))
    return asked, f"{asked} answer tokens" if selection.get("budget") == "answer_tokens" else f"{taken} records"


def _metrics(
    values: Mapping[str, Any], headline: Sequence[str], config: Mapping[str, Any], table: Mapping[str, Any]
) -> dict[str, Measured]:
    """The model's metrics, by the paper's names where it has them."""
    ours = {key: name for name, key in METRICS.items()}
    if table.get("average"):
        ours[table["average"]] = "average"
    dataset = config["data"].get("dataset")
    if isinstance(dataset, str):  # several tasks have their own keys
        ours |= {f"{dataset}/micro_f1": "micro_f1", f"{dataset}/clean/micro_f1": "micro_f1"}
        ours |= {f"average/{dataset}/{noise}": f"micro_f1_{noise}" for noise in ("noisy", *NOISES)}
    metrics = {}
    for key, one in values.items():
        if key in ours:
            metrics[ours[key]] = Measured(100 * one["value"], one.get("n"), key, 100.0)
        elif key in headline:
            metrics[key] = Measured(one["value"], one.get("n"), key)
    return metrics


def whole(stage: Mapping[str, Any]) -> bool:
    """Whether a stage's seconds measure all of its work: nothing came from the store or from an interrupted run. False
    where the card does not count that."""
    return stage["status"] == "computed" and (stage.get("reused"), stage.get("resumed")) == (0, 0)


def _times(card: Mapping[str, Any]) -> dict[str, Measured]:
    """Times of selection and tuning, where the run did the whole work."""
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
