"""A smaller scale for any run: the last change to its configuration, printed key by key.

A scale is applied in code and not by composition, because the values of a sweep have the highest priority there is:
no configuration file could make them smaller. What the user has set on the command line stays.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from winnow.store.differences import flatten

# Group -> the keys that say which choice it is. Whoever sets one of them, or the group, has chosen.
GROUPS = {
    "backbone": ("name",),
    "data": ("path", "source"),
    "tuning": ("mode",),
    "evaluation": ("tasks", "datasets", "path"),
}
FEWEST = 2  # records that a ratio leaves of a smaller pool
ABSENT = "absent"


def scaled(cfg: DictConfig) -> DictConfig:
    """`cfg` at `cfg.scale`: itself at scale=paper, otherwise a resolved copy, whose changes are printed.

    The copy's `scale` holds name and changes (key -> [from, to]); it is returned as it is when it comes here again.
    """
    scale = cfg.get("scale")
    if scale is None or scale.name == "paper" or "changes" in scale:
        return cfg
    kept = list(scale.keep) if scale.keep is not None else _given()
    plain, changes = rescaled(OmegaConf.to_container(cfg, resolve=True), kept)
    print(f"scale={scale.name} changes {len(changes)} settings{':' if changes else '.'}")
    for key, (before, after) in changes.items():
        print(f"  {key}: {_shown(before)} -> {_shown(after)}", flush=True)
    return OmegaConf.create(plain)


def rescaled(cfg: Mapping[str, Any], kept: Collection[str]) -> tuple[dict[str, Any], dict[str, list]]:
    """(configuration at its scale, {key: [from, to]}). `cfg` is plain and resolved; `kept` are dotted keys or groups.

    A group that the scale holds replaces the run's where `_replaces` says so, unless its choice is kept; single keys
    that are kept go along. The scale's data takes the place of `start.pool` by the same rule. Then the suite is cut to
    what fits, numbers to `at_most`, and the budget of the selection to the pool's new size.
    """
    scale = cfg["scale"]
    new = copy.deepcopy({key: value for key, value in cfg.items() if key != "scale"})
    for group, naming in GROUPS.items():
        chosen = group in kept or any(f"{group}.{key}" in kept for key in naming)
        if not chosen and _replaces(group, new):
            new[group] = _in_place_of(new[group], group, scale[group], kept)
    if new.get("scorer") and not {"backbone@scorer", "scorer.name"} & set(kept):
        new["scorer"] = copy.deepcopy(scale["backbone"])
    start = new.get("start") or {}
    own_pool = {"data@start.pool", "start.pool.path", "start.pool.source"} & set(kept)
    if "pool" in start and not own_pool and _from_afar(start["pool"]):
        start["pool"] = _in_place_of(start["pool"], "start.pool", scale["data"], kept)
    nlu = all("dataset" in pool for pool in (new["data"], start.get("pool", new["data"])))
    if not nlu and _target(new, "noising").endswith(".Opposite") and "noising" not in kept:
        new["noising"] = copy.deepcopy(scale["noising"])  # only records of an NLU task have an opposite
    if _stock_tasks(new["evaluation"]) and new["evaluation"].get("mirror"):
        _trim(new["evaluation"], scale["suite"])
    for key, largest in scale["at_most"].items():
        holder, last = _find(new, key), key.rsplit(".", 1)[1]
        if holder is not None and key not in kept and (holder[last] is None or holder[last] > largest):
            holder[last] = largest
    _shrink_budget(new, kept)
    before = dict(flatten({key: value for key, value in cfg.items() if key != "scale"}))
    after = dict(flatten(new))
    changes = {
        key: [before.get(key, ABSENT), after.get(key, ABSENT)]
        for key in [*before, *(key for key in after if key not in before)]
        if before.get(key, ABSENT) != after.get(key, ABSENT)
    }
    return new | {"scale": {"name": scale["name"], "changes": changes}}, changes


def _given() -> list[str]:
    """The keys that the command line sets, when Hydra started this run."""
    if not HydraConfig.initialized():
        return []
    return [word.lstrip("+~").split("=", 1)[0] for word in HydraConfig.get().overrides.task]


def _replaces(group: str, cfg: Mapping[str, Any]) -> bool:
    """Whether the scale's choice takes the place of the run's."""
    if group == "data":
        return _from_afar(cfg["data"])
    if group == "tuning":
        return cfg["tuning"].get("mode") == "full"
    if group == "evaluation":
        if "datasets" in cfg["evaluation"]:  # NLU tasks are asked on the data that is tuned on
            return cfg["data"].get("path") is None and cfg["evaluation"].get("path") is None
        return _stock_tasks(cfg["evaluation"]) and not cfg["evaluation"].get("mirror")
    return True


def _in_place_of(own: Mapping[str, Any], name: str, choice: Mapping[str, Any], kept: Collection[str]) -> dict[str, Any]:
    """The scale's choice, with the keys of `own` that are kept."""
    return copy.deepcopy(choice) | {key: own[key] for key in own if f"{name}.{key}" in kept and key in choice}


def _from_afar(pool: Mapping[str, Any]) -> bool:
    """A local file stays; the embedded pool is the scale's own choice."""
    return pool.get("path") is None and pool.get("source") != "embedded"


def _target(cfg: Mapping[str, Any], group: str) -> str:
    return (cfg.get(group) or {}).get("_target_", "")


def _stock_tasks(evaluation: Mapping[str, Any]) -> bool:
    return any(not task["task"].startswith("embedded") for task in evaluation.get("tasks") or [])


def _trim(evaluation: dict[str, Any], suite: Mapping[str, Any]) -> None:
    """Take long tasks out of a suite, with the averages and headlines that need them, and shorten the prompts."""
    evaluation["tasks"] = [
        task | {"num_fewshot": min(task["num_fewshot"], suite["num_fewshot"])}
        for task in evaluation["tasks"]
        if task["task"] not in suite["leave_out"]
    ]
    reported = {f"{task['task']}/{metric}" for task in evaluation["tasks"] for metric in task["metrics"]}
    averages = {}
    for name, keys in evaluation["averages"].items():
        if reported.issuperset(keys):
            averages[name] = keys
            reported.add(f"average/{name}")
    evaluation["averages"] = averages
    evaluation["headline"] = [key for key in evaluation["headline"] if key in reported]


def _shrink_budget(cfg: dict[str, Any], kept: Collection[str]) -> None:
    """A budget in records becomes the same share of the smaller pool: at least 4 records. A share of the smaller pool
    that is less than one record becomes that of 2."""
    selection, limit = cfg["selection"], cfg["data"].get("limit")
    if not limit:
        return
    records, count, ratio = (cfg.get("table") or {}).get("records"), selection.get("count"), selection.get("ratio")
    if count and records and limit < records and "selection.count" not in kept:
        selection["count"] = max(4, round(count * limit / records))
    if not count and ratio and int(limit * ratio) < 1 and "selection.ratio" not in kept:
        selection["ratio"] = min(1.0, FEWEST / limit)


def _find(cfg: dict[str, Any], key: str) -> dict[str, Any] | None:
    """The mapping that holds the last part of a dotted key, or None."""
    node: Any = cfg
    *path, last = key.split(".")
    for part in path:
        node = node.get(part) if isinstance(node, Mapping) else None
    return node if isinstance(node, dict) and last in node else None


def _shown(value: Any) -> str:
    if isinstance(value, list) and value and isinstance(value[0], Mapping) and "task" in value[0]:
        value = [f"{task['task']} {task.get('num_fewshot')}-shot" for task in value]
    text = str(value).replace("\n", "\\n")
    return text if len(text) <= 100 else f"{text[:97]}..."
