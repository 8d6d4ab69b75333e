"""A page that compares all runs below a folder: leaderboard, budget, overlap of subsets, agreement of scores, cost.

It reads run folders only (`run_card.json`, `results.json`, `selection.json`, `scores.parquet`), opens offline, and
has no scripts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pyarrow.parquet as pq
from markupsafe import Markup
from scipy.stats import spearmanr

from winnow.compare import plots
from winnow.errors import UserError
from winnow.pages.card import show_measure, show_number, show_seconds
from winnow.pages.plots import lower_is_better
from winnow.reproduce.collect import hydra_of, read_json, run_cards, whole
from winnow.reproduce.names import AROUND, CONTROLS, control, identity
from winnow.reproduce.settings import differences, settings_of, shown
from winnow.store.files import write_atomically
from winnow.sweeps.summary import FAILURE

STAGES = ("score", "select", "tune", "evaluate")
SHARES = ("ratio", "budget", "selection.ratio", "selection.count")  # the selected share has an axis of its own


@dataclass
class Seen:
    """What the page knows of one run. identity: what it is, in its experiment's words, but for the selected share.
    settings, choices: of its configuration, see `experiments.settings`. label: the method, with whatever tells it apart
    from other runs of the page that are no repetitions of it. metrics: of the tuned model (of the base model where none
    was tuned); base: of the base model. subset, scores: by record id. seconds: by stage, for stages that were computed
    and not taken from the store. cost: of scoring and selection in seconds, None where a part came from the store."""

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
    label: str = ""
    subset: frozenset[str] = frozenset()
    scores: dict[str, float] = field(default_factory=dict)


def write_dashboard(folder: Path, to: str | None = None) -> Path:
    """Write the page of all finished runs below `folder`, by default to `<folder>/dashboard.html`; returns its path.

    Raises UserError where there is no run."""
    runs = read_runs(folder)
    if not runs:
        raise UserError(f"{folder}: no finished run below it (no run_card.json); name the folder of a sweep.")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([Path(__file__).parent, Path(__file__).parents[1] / "pages"]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(measure=show_measure, seconds=show_seconds, number=show_number)
    path = Path(to) if to else folder / "dashboard.html"
    write_atomically(path, environment.get_template("dashboard.html.j2").render(content(runs, folder)))
    return path


def read_runs(folder: Path) -> list[Seen]:
    """The runs below a folder whose last attempt is finished, by path."""
    found = []
    for path in run_cards(folder):
        card = read_json(path)
        if card["status"] == "finished" and not (path.parent / FAILURE).is_file():
            found.append(_seen(path.parent, folder, card))
    _label(found)
    return found


def content(runs: Sequence[Seen], folder: Path) -> dict[str, Any]:
    """Everything the page shows."""
    metrics = list(dict.fromkeys(metric for run in runs for metric in run.headline))
    low = {
        metric: lower_is_better(metric, next((run.metrics[metric] for run in runs if metric in run.metrics), None))
        for metric in metrics
    }
    first = metrics[0] if metrics else None
    ranked = sorted(runs, key=lambda run: _place(run, first, low))
    selecting = [run for run in ranked if run.subset][: plots.MOST]
    scoring = _distinct_scores(ranked)[: plots.MOST]
    return {
        "folder": folder.name,
        "n_runs": len(runs),
        "metrics": metrics,
        "low": low,
        "best": {metric: _best(runs, metric, low[metric]) for metric in metrics},
        "runs": ranked,
        "total": {run.name: sum(run.seconds.values()) for run in runs},
        "n_seeds": len({run.seed for run in runs}),
        "ratio_plots": [Markup(plots.against_ratio(runs, metric, low[metric])) for metric in metrics],
        "overlap": Markup(
            plots.matrix("Overlap of the subsets (Jaccard)", [run.name for run in selecting], jaccard(selecting))
        ),
        "agreement": Markup(
            plots.matrix("Agreement of the scores (Spearman)", [run.name for run in scoring], spearman(scoring))
        ),
        "cost": Markup(plots.cost_against_gain(runs, first, low.get(first, False))) if first else None,
        "stages": Markup(plots.seconds_per_stage(ranked, STAGES)),
    }


def jaccard(runs: Sequence[Seen]) -> np.ndarray:
    """(runs, runs): |A and B| / |A or B| of the subsets' record ids; NaN where the pools differ."""
    values = np.full((len(runs), len(runs)), np.nan)
    for i, one in enumerate(runs):
        for j, other in enumerate(runs):
            if one.fingerprint == other.fingerprint:
                values[i, j] = len(one.subset & other.subset) / len(one.subset | other.subset)
    return values


def spearman(runs: Sequence[Seen]) -> np.ndarray:
    """(runs, runs): Spearman's rank correlation over the records that both have scored; each run's scores are turned so
    that high is wanted. NaN for fewer than 3 common records, and where one of the two is constant."""
    values = np.full((len(runs), len(runs)), np.nan)
    for i, one in enumerate(runs):
        for j, other in enumerate(runs[: i + 1]):
            common = sorted(one.scores.keys() & other.scores.keys())
            pair = [[run.scores[key] for key in common] for run in (one, other)]
            if len(common) >= 3 and all(len(set(side)) > 1 for side in pair):
                values[i, j] = values[j, i] = spearmanr(*pair).statistic
    return values


def _seen(folder: Path, root: Path, card: Mapping[str, Any]) -> Seen:
    config = card["config"]
    selection = _if_there(folder / "selection.json") or {}
    results = _if_there(folder / "results.json") or {"models": {}, "headline": []}
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


def _distinct_scores(runs: Sequence[Seen]) -> list[Seen]:
    """One run of each ranking: other ratios of a method have the same scores. `full` ranks nothing."""
    kept: dict[tuple, Seen] = {}
    for run in runs:
        if len(set(run.scores.values())) > 1:
            kept.setdefault((run.method, run.fingerprint, tuple(run.scores.values())), run)
    return list(kept.values())


def _place(run: Seen, metric: str | None, low: Mapping[str, bool]) -> tuple:
    if metric is None or metric not in run.metrics:
        return (1, 0.0, run.name)
    value = run.metrics[metric]["value"]
    return (0, value if low[metric] else -value, run.name)


def _best(runs: Sequence[Seen], metric: str, low: bool) -> float | None:
    values = [run.metrics[metric]["value"] for run in runs if metric in run.metrics]
    return (min(values) if low else max(values)) if values else None


def _if_there(path: Path) -> dict[str, Any] | None:
    return read_json(path) if path.is_file() else None
