"""What the pages that compare runs read of each run folder, and what a run is called beside others."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from winnow.reproduce.collect import AGAIN, CARD_KEYS, hydra_of, run_cards, whole
from winnow.reproduce.names import AROUND, CONTROLS, control, identity
from winnow.reproduce.settings import differences, settings_of, shown
from winnow.store.files import read_json
from winnow.sweeps.summary import FAILURE
from winnow.tracking.job import share

STAGES = ("score", "select", "tune", "evaluate")
SHARES = ("ratio", "budget", "selection.ratio", "selection.count")  # the selected share has an axis of its own


@dataclass
class Seen:
    """What the page knows of one run. identity: what it is, in its experiment's words, but for the selected share.
    settings, choices: of its configuration, see `reproduce.settings`. label: the method, with whatever tells it apart
    from other runs of the page that are no repetitions of it. metrics: of the tuned model (of the base model where none
    was tuned); base: of the base model. subset, scores: by record id. seconds: by stage, for stages that were computed
    and not taken from the store. share: the budget as asked for. models, averages: of `results.json`, and of its suite.
    cost: of scoring and selection in seconds, None where a part came from the store."""

    name: str
    folder: Path
    method: str
    identity: dict[str, str]
    settings: dict[str, str]
    choices: dict[str, str]
    pool: str
    fingerprint: str | None
    backbone: str
    ratio: float | None
    selected: int | None
    seed: int
    metrics: dict[str, dict[str, Any]]
    base: dict[str, float]
    headline: list[str]
    seconds: dict[str, float]
    cost: float | None = None
    share: str = ""
    started: str = ""
    models: dict[str, Any] = field(default_factory=dict)
    averages: dict[str, list[str]] = field(default_factory=dict)
    label: str = ""
    subset: frozenset[str] = frozenset()
    scores: dict[str, float] = field(default_factory=dict)


def read_runs(*folders: Path) -> list[Seen]:
    """The runs below the folders whose last attempt is finished, by path."""
    found = {}
    for folder in folders:
        for path in run_cards(folder):
            card = read_json(path, *CARD_KEYS, cure=AGAIN)
            if card["status"] == "finished" and not (path.parent / FAILURE).is_file():
                found.setdefault(path.resolve(), _seen(path.parent, folder, card))
    runs = list(found.values())
    _label(runs)
    return runs


def _seen(folder: Path, root: Path, card: Mapping[str, Any]) -> Seen:
    config = card["config"]
    selection = _if_there(folder / "selection.json", "decisions") or {}
    results = _if_there(folder / "results.json", "models", "headline") or {"models": {}, "headline": []}
    models = results["models"]
    decisions = selection.get("decisions") or []
    chosen = frozenset(one["id"] for one in decisions if one["selected"])
    n_valid = selection.get("n_valid")
    choices, _ = hydra_of(folder) or ({}, ())
    pool, backbone = Path(str(card["data"].get("source", ""))).stem, Path(str(config["backbone"]["name"])).name
    selecting = [card["stages"].get(stage) for stage in ("score", "select")]
    return Seen(
        name=folder.relative_to(root).as_posix() if folder != root else folder.name,
        folder=folder,
        method=config["method"]["name"],
        identity=_identity(config, choices, backbone, pool),
        settings={key: value for key, value in settings_of(config).items() if key not in SHARES},
        choices=choices,
        pool=pool,
        fingerprint=card["data"].get("fingerprint"),
        backbone=backbone,
        ratio=len(chosen) / n_valid if n_valid else None,
        selected=len(chosen) or None,
        seed=config["seed"],
        metrics=(models.get("tuned") or models.get("base") or {"metrics": {}})["metrics"],
        base={key: one["value"] for key, one in (models.get("base") or {"metrics": {}})["metrics"].items()},
        headline=list(results["headline"]),
        seconds={
            stage: card["stages"][stage]["seconds"]
            for stage in STAGES
            if card["stages"].get(stage, {}).get("status") == "computed"
        },
        cost=sum(one["seconds"] for one in selecting) if all(one and whole(one) for one in selecting) else None,
        share="" if config["method"]["name"] == "full" else ", ".join(map("=".join, share(config).items())),
        started=card["started"],
        models=models,
        averages=results.get("averages") or {},
        subset=chosen,
        scores=_scores(folder / "scores.parquet"),
    )


def _identity(config: Mapping[str, Any], choices: Mapping[str, str], backbone: str, pool: str) -> dict[str, str]:
    """A run in the words of its experiment's table; elsewhere its method with the selection rule where that is not the
    plain top of the ranking, adversary and noising."""
    table = config.get("table")
    if table and choices:
        found = identity(config.get("row") or {}, choices, table["paper"])
        return {key: value for key, value in found.items() if key not in SHARES}
    method, rule = config["method"]["name"], choices.get("selection", "top")
    rule = choices.get(AROUND, "top") if rule in CONTROLS else rule
    named = control(method if rule in ("top", method) else f"{method}, {rule}", choices)
    found = {"method": named, "backbone": backbone, "pool": pool}
    also = {group: choices.get(group, "none") for group in ("adversary", "noising")}
    return found | {group: option for group, option in also.items() if option != "none"}


def _label(runs: Sequence[Seen]) -> None:
    """Give each run its label: the method; pool and backbone where the page has several; what else runs of the method
    differ in; and settings in which runs of one identity differ. Runs with one label differ in share and seed alone."""
    alike: dict[tuple, list[Seen]] = {}
    for run in runs:
        kin = [one for one in runs if one.identity["method"] == run.identity["method"]]
        words = [run.identity["method"]]
        for key, value in run.identity.items():
            among = runs if key in ("backbone", "pool") else kin
            if key != "method" and len({one.identity.get(key) for one in among}) > 1:
                words.append(value if key in ("backbone", "pool") else f"{key}={value}")
        run.label = ", ".join(words)
        alike.setdefault(tuple(sorted(run.identity.items())), []).append(run)
    for group in alike.values():
        for run, settings in zip(group, differences(group), strict=True):
            run.label = ", ".join([run.label, *(f"{key}={shown(value)}" for key, value in settings.items())])


def _scores(path: Path) -> dict[str, float]:
    if not path.is_file():
        return {}
    table = pq.read_table(path, columns=["id", "score"])
    sign = 1.0 if json.loads(table.schema.metadata[b"winnow"])["higher_is_better"] else -1.0
    pairs = zip(table["id"].to_pylist(), table["score"].to_pylist(), strict=True)
    return {key: sign * value for key, value in pairs if value is not None}


def _if_there(path: Path, *keys: str) -> dict[str, Any] | None:
    return read_json(path, *keys, cure=AGAIN) if path.is_file() else None
