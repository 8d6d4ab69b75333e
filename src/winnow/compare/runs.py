"""The runs that a page compares, and the name of each beside the others."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from winnow.pages.files import read_json, run_cards
from winnow.reproduce.collect import Run, facts, hydra_of, whole
from winnow.reproduce.settings import differences, shorten
from winnow.sweeps.summary import FAILURE
from winnow.tracking.job import share
from winnow.tracking.names import AROUND, CONTROLS, control, identity

STAGES = ("score", "select", "tune", "evaluate")
SHARES = ("ratio", "budget", "selection.ratio", "selection.count")  # the selected share has an axis of its own


@dataclass(kw_only=True)
class ComparedRun(Run):
    """One run of a page. The identity and the settings leave the selected share out.

    label: the method, and all that distinguishes the run from other runs of the page that do not repeat it. metrics: of
    the tuned model, else of the base model; base: of the base model. ratio: selected records / valid records. share:
    the budget in the configuration. seconds: by stage, for stages that were computed. cost: seconds of scoring and
    selection, None where a part came from the store. subset, scores: by record id."""

    name: str
    method: str
    pool: str
    fingerprint: str | None
    backbone: str
    ratio: float | None
    metrics: dict[str, dict[str, Any]]
    base: dict[str, float]
    headline: list[str]
    seconds: dict[str, float]
    cost: float | None
    share: str
    label: str = ""
    subset: frozenset[str] = frozenset()
    scores: dict[str, float] = field(default_factory=dict)


def read_runs(*folders: Path) -> list[ComparedRun]:
    """The runs below the folders whose last attempt is finished, by path."""
    runs = {}
    for folder in folders:
        for path in run_cards(folder):
            card = read_json(path)
            if card["status"] == "finished" and not (path.parent / FAILURE).is_file():
                runs.setdefault(path.resolve(), _read(path.parent, folder, card))
    _label(list(runs.values()))
    return list(runs.values())


def _read(folder: Path, root: Path, card: Mapping[str, Any]) -> ComparedRun:
    config, stages = card["config"], card["stages"]
    selection = read_json(folder / "selection.json") or {"decisions": [], "n_valid": 0}
    subset = frozenset(one["id"] for one in selection["decisions"] if one["selected"])
    choices, _ = hydra_of(folder) or ({}, ())
    pool, backbone = Path(str(card["data"].get("source", ""))).stem, Path(str(config["backbone"]["name"])).name
    selecting = [stages.get(stage) for stage in ("score", "select")]
    run = ComparedRun(
        **facts(folder, card),
        name=folder.relative_to(root).as_posix() if folder != root else folder.name,
        method=config["method"]["name"],
        identity=_identity(config, choices, backbone, pool),
        choices=choices,
        pool=pool,
        fingerprint=card["data"].get("fingerprint"),
        backbone=backbone,
        ratio=len(subset) / selection["n_valid"] if selection["n_valid"] else None,
        metrics={},
        base={},
        headline=[],
        seconds={name: stages[name]["seconds"] for name in STAGES if stages.get(name, {}).get("status") == "computed"},
        cost=sum(one["seconds"] for one in selecting) if all(one and whole(one) for one in selecting) else None,
        share="" if config["method"]["name"] == "full" else ", ".join(map("=".join, share(config).items())),
        subset=subset,
        scores=_scores(folder / "scores.parquet"),
    )
    run.settings = {key: value for key, value in run.settings.items() if key not in SHARES}
    if run.results:
        run.headline, run.metrics = list(run.results["headline"]), run.model.get("metrics", {})
        base = run.results["models"].get("base") or {"metrics": {}}
        run.base = {key: one["value"] for key, one in base["metrics"].items()}
    return run


def _identity(config: Mapping[str, Any], choices: Mapping[str, str], backbone: str, pool: str) -> dict[str, str]:
    """A run in the words of its experiment's table. Elsewhere: method, backbone, pool, adversary and noising, where the
    method names the selection rule unless that is the top of the ranking."""
    table = config.get("table")
    if table and choices:
        words = identity(config.get("row") or {}, choices, table["paper"])
        return {key: value for key, value in words.items() if key not in SHARES}
    method, rule = config["method"]["name"], choices.get("selection", "top")
    rule = choices.get(AROUND, "top") if rule in CONTROLS else rule
    method = control(method if rule in ("top", method) else f"{method}, {rule}", choices)
    robust = {group: choices.get(group, "none") for group in ("adversary", "noising")}
    robust = {group: option for group, option in robust.items() if option != "none"}
    return {"method": method, "backbone": backbone, "pool": pool} | robust


def _label(runs: Sequence[ComparedRun]) -> None:
    """Give each run its label. It names the method; pool and backbone where the page has several; all else in which
    runs of the method differ. Runs with the same label differ in share and seed alone."""
    alike: dict[tuple, list[ComparedRun]] = {}
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
            run.label = ", ".join([run.label, *(f"{key}={shorten(value)}" for key, value in settings.items())])


def _scores(path: Path) -> dict[str, float]:
    if not path.is_file():
        return {}
    table = pq.read_table(path, columns=["id", "score"])
    sign = 1.0 if json.loads(table.schema.metadata[b"winnow"])["higher_is_better"] else -1.0
    pairs = zip(table["id"].to_pylist(), table["score"].to_pylist(), strict=True)
    return {key: sign * value for key, value in pairs if value is not None}
