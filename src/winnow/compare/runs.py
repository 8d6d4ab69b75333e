"""The runs that a page compares, and the name of each beside the others."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from winnow.errors import UserError
from winnow.pages.files import read_json, run_cards, sound
from winnow.reproduce.collect import Run, whole
from winnow.reproduce.settings import differences, shorten
from winnow.sweeps.summary import FAILURE
from winnow.tracking.names import AROUND, CONTROLS, control, identity, pool_name, share

STAGES = ("score", "select", "tune", "evaluate")
ROBUST = ("adversary", "noising")  # groups that the identity of a run leaves out where it has none
SHARES = (  # the selected share has an axis of its own
    *("ratio", "budget", "selection.ratio", "selection.count"),
    *("selection.around.ratio", "selection.around.count"),
)


class ComparedRun(Run):
    """One run of a page. The identity and the settings leave the selected share out.

    label: the method, and all that distinguishes the run from other runs of the page that do not repeat it. metrics: of
    the tuned model, else of the base model; base: of the base model. ratio: selected records / records. share:
    the budget in the configuration. seconds: by stage, of the work of whichever run did it: of passes and tuning that
    came from the store as well, without an evaluation that did. cost: seconds of scoring and selection, None where they
    are unknown. subset, scores: by record id."""

    label: str

    def __init__(self, folder: Path, root: Path, card: Mapping[str, Any]) -> None:
        super().__init__(folder, card)
        config, selection = card["config"], read_json(folder / "selection.json")
        decisions = selection["decisions"] if selection else []
        self.name = folder.relative_to(root).as_posix() if folder != root else folder.name
        self.method, self.share = config["method"]["name"], _share(config)
        self.pool, self.fingerprint = pool_name(str(card["data"].get("source", ""))), card["data"].get("fingerprint")
        self.backbone = Path(str(config["backbone"]["name"])).name
        self.identity = _identity(config, self.choices, self.backbone, self.pool)
        self.settings = {key: value for key, value in self.settings.items() if key not in SHARES}
        self.subset = frozenset(one["id"] for one in decisions if one["selected"])
        self.ratio = len(self.subset) / len(decisions) if decisions else None
        self.scores = _scores(folder / "scores.parquet")
        self.seconds = _seconds(folder, card)
        known = {"score", "select"} <= self.seconds.keys()
        self.cost = self.seconds["score"] + self.seconds["select"] if known else None
        self.headline: list[str] = list(self.results["headline"]) if self.results else []
        self.metrics: dict[str, dict[str, Any]] = self.model.get("metrics", {})
        base = self.results.get("models", {}).get("base") or {"metrics": {}}
        self.base: dict[str, float] = {key: one["value"] for key, one in base["metrics"].items()}

    @property
    def suite(self) -> str:
        """What its evaluation asked: the suite, and its limit; empty without an evaluation."""
        limit = (self.results.get("settings") or {}).get("limit")
        return f"{self.results['suite']}, {limit:g} items a task" if limit else str(self.results.get("suite", ""))


def read_runs(*folders: Path, tell: bool = False) -> list[ComparedRun]:
    """The runs below the folders whose last attempt is finished, by path. tell: print how many others there are.
    Raises UserError for a folder that is not there."""
    runs, others = {}, set()
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder}: there is no such folder; name runs or the folder of a sweep.")
        for path in run_cards(folder):
            card = read_json(path)
            if card["status"] == "finished" and not (path.parent / FAILURE).is_file():
                runs.setdefault(path.resolve(), ComparedRun(path.parent, folder, card))
            else:
                others.add(path.resolve())
    if others and tell:
        print(f"{len(others)} run{'s' * (len(others) > 1)} left out: failed, or not finished.")
    label(list(runs.values()))
    return list(runs.values())


def same_share(one: ComparedRun, other: ComparedRun) -> bool:
    """Whether two runs select the same share: 200 of 2,000 records are as 180 of 1,800, and as a tenth."""
    told = one.share.startswith("ratio=") and other.share.startswith("ratio=")
    return one.share == other.share or (not told and math.isclose(one.ratio or 0, other.ratio or -1, rel_tol=1e-4))


def _share(config: Mapping[str, Any]) -> str:
    """`ratio=0.1`, `count=500` or `count=20000 answer tokens`; empty for all data."""
    if config["method"]["name"] == "full":
        return ""
    unit = " answer tokens" if (config.get("selection") or {}).get("budget") == "answer_tokens" else ""
    return "".join(f"{key}={value}{unit}" for key, value in share(config).items())


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
    robust = {group: choices[group] for group in ROBUST if choices.get(group, "none") != "none"}
    return {"method": method, "backbone": backbone, "pool": pool} | robust


def label(runs: Sequence[ComparedRun]) -> None:
    """Give each run its label. It names the method; pool and backbone where the runs have several; all else in which
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


def _seconds(folder: Path, card: Mapping[str, Any]) -> dict[str, float]:
    """Seconds by stage. Passes cost what their ledgers say, a tuning what tuning.json says, also where another run made
    them; the rest counts where this run did all of it."""
    stages, price, tuning = card["stages"], card.get("price"), read_json(folder / "tuning.json")
    seconds = {name: stages[name]["seconds"] for name in STAGES if name in stages and whole(stages[name])}
    if stages.get("evaluate", {}).get("status") == "computed":  # nothing is counted there
        seconds["evaluate"] = stages["evaluate"]["seconds"]
    if price:
        seconds |= {"score": price["seconds"], "select": 0.0}
    if tuning and "tune" in stages:
        seconds["tune"] = tuning["seconds"]
    return {name: seconds[name] for name in STAGES if name in seconds}


def _scores(path: Path) -> dict[str, float]:
    if not path.is_file():
        return {}
    table = pq.read_table(sound(path), columns=["id", "score"])
    sign = 1.0 if json.loads(table.schema.metadata[b"winnow"])["higher_is_better"] else -1.0
    pairs = zip(table["id"].to_pylist(), table["score"].to_pylist(), strict=True)
    return {key: sign * value for key, value in pairs if value is not None}
