"""A smaller scale for any run: the last change of its configuration, printed key by key.

Code applies the scale, not Hydra's composition: the values of a sweep have the highest priority there, so that no
configuration file could reduce them. Settings from the command line stay.
"""

from __future__ import annotations

import copy
import re
import textwrap
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from winnow.config import told
from winnow.store.differences import flatten

# Group -> the keys that identify a choice. A command line that sets the group or one of these keys makes the choice.
GROUPS = {
    "backbone": ("name",),
    "data": ("path", "source"),
    "tuning": ("mode",),
    "evaluation": ("tasks", "datasets", "path"),
}
COPIES = re.compile(r"^(attack\.use|method\.attacks)\.\w+\.(search|resources)$")  # they follow the keys of `attack`
FEWEST = 2  # records in the smallest share of a pool
ABSENT = "absent"
PRINTED: set[str] = set()  # changes that this process has printed for a job of the sweep


def scaled(cfg: DictConfig, words: Sequence[str] | None = None) -> DictConfig:
    """`cfg` itself at scale=paper, otherwise a resolved copy at `cfg.scale`; prints the changes, of a sweep each once.

    words: the overrides that set it, by default those that Hydra was told. The copy's `scale` holds name and changes
    (key -> [from, to]). A second call returns such a copy unchanged.
    """
    scale = cfg.get("scale")
    if scale is None or scale.name == "paper" or "changes" in scale:
        return cfg
    keep = scale.keep
    if keep is None:  # what the command line sets
        words = told(cfg).get("overrides", []) if words is None else words
        keep = [word.lstrip("+~").split("=", 1)[0] for word in words]
    plain, changes = rescaled(OmegaConf.to_container(cfg, resolve=True), keep)
    lines = []
    for key, (before, after) in changes.items():
        values = [textwrap.shorten(show_value(value), 100, placeholder="...") for value in (before, after)]
        lines.append(f"  {key}: {' -> '.join(values)}")
    if HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN:
        new = [line for line in lines if line not in PRINTED]
        PRINTED.update(lines)
        which = "further settings of this job" if len(new) < len(lines) else "settings"
    else:
        new, which = lines, "settings"
    from winnow.distributed import is_leader  # loads torch, which takes seconds

    if new and is_leader():
        print("\n".join([f"scale={scale.name} changes {len(new)} {which}:", *new]), flush=True)
    return OmegaConf.create(plain)


def rescaled(cfg: Mapping[str, Any], keep: Collection[str]) -> tuple[dict[str, Any], dict[str, list]]:
    """(configuration at its scale, {key: [from, to]}).

    cfg: plain and resolved. keep: dotted keys or groups that do not change.

    The scale's choice of a group replaces the run's where `_replaces` is true, unless the group or its identifying keys
    are in `keep`; single keys in `keep` stay. The attacks get the scale's search and resources. The scale's data
    replaces `start.pool` and `target` by the same rule. Then the suite loses its long tasks, `at_most` limits numbers,
    and the budget of the selection shrinks with the pool.
    """
    scale = cfg["scale"]
    new = copy.deepcopy({key: value for key, value in cfg.items() if key != "scale"})
    for group, naming in GROUPS.items():
        chosen = group in keep or any(f"{group}.{key}" in keep for key in naming)
        if not chosen and _replaces(group, new):
            new[group] = _in_place_of(new[group], group, scale[group], keep)
    if new.get("scorer") and not {"backbone@scorer", "scorer.name"} & set(keep):
        new["scorer"] = copy.deepcopy(scale["backbone"])
    start = new.get("start") or {}
    for place, holder, name in (("start.pool", start, "pool"), ("target", new, "target")):
        own_pool = {f"data@{place}", f"{place}.path", f"{place}.source"} & set(keep)
        if holder.get(name) and not own_pool and _is_remote(holder[name]):
            holder[name] = _in_place_of(holder[name], place, scale["data"], keep)
    nlu = all("dataset" in pool for pool in (new["data"], start.get("pool", new["data"])))
    opposite = (new.get("noising") or {}).get("_target_", "").endswith(".Opposite")
    if opposite and not nlu and "noising" not in keep:
        new["noising"] = copy.deepcopy(scale["noising"])  # only records of an NLU task have an opposite
    _substitute_attacks(new, scale.get("attack") or {}, keep)
    if _stock_tasks(new["evaluation"]) and new["evaluation"].get("mirror") and "evaluation.tasks" not in keep:
        _trim(new["evaluation"], scale["suite"])
    for key, largest in scale["at_most"].items():
        holder, last = _find(new, key), key.rsplit(".", 1)[1]
        if holder is not None and key not in keep and (holder[last] is None or holder[last] > largest):
            holder[last] = largest
    if "besides" in new["evaluation"]:
        new["evaluation"]["besides"] = copy.deepcopy(new["data"])
    _shrink_budget(new, keep)
    before = dict(flatten({key: value for key, value in cfg.items() if key != "scale"}))
    after = dict(flatten(new))
    changes = {
        key: [before.get(key, ABSENT), after.get(key, ABSENT)]
        for key in [*before, *(key for key in after if key not in before)]
        if before.get(key, ABSENT) != after.get(key, ABSENT) and not COPIES.match(key)
    }
    return new | {"scale": {"name": scale["name"], "changes": changes}}, changes


def _replaces(group: str, cfg: Mapping[str, Any]) -> bool:
    """Whether the scale's choice replaces the run's."""
    if group == "data":
        return _is_remote(cfg["data"])
    if group == "tuning":
        return cfg["tuning"].get("mode") == "full"
    if group == "evaluation":
        if "datasets" in cfg["evaluation"]:  # an NLU suite evaluates on the data set of the tuning
            return cfg["data"].get("path") is None and cfg["evaluation"].get("path") is None
        if any(_is_remote(pool) for pool in cfg["evaluation"].get("pools", {}).values()):
            return True
        return _stock_tasks(cfg["evaluation"]) and not cfg["evaluation"].get("mirror")
    return True


def _in_place_of(own: Mapping[str, Any], name: str, choice: Mapping[str, Any], keep: Collection[str]) -> dict[str, Any]:
    """The scale's choice, with the keys of `own` that are in `keep`."""
    return copy.deepcopy(choice) | {key: own[key] for key in own if f"{name}.{key}" in keep and key in choice}


def _is_remote(pool: Mapping[str, Any]) -> bool:
    """Whether a pool is neither a local file nor the embedded pool."""
    return pool.get("path") is None and pool.get("source") != "embedded"


def _stock_tasks(evaluation: Mapping[str, Any]) -> bool:
    return any(not task["task"].startswith("embedded") for task in evaluation.get("tasks") or [])


def _substitute_attacks(cfg: dict[str, Any], choice: Mapping[str, Any], keep: Collection[str]) -> None:
    """Set `attack.search` and `attack.resources`, and their copies in the attacks in use."""
    attack = cfg.get("attack") or {}
    holders = [attack, *(attack.get("use") or {}).values(), *(cfg["method"].get("attacks") or {}).values()]
    for key, value in choice.items():
        for holder in holders if f"attack.{key}" not in keep else ():
            if key in holder:
                holder[key] = value


def _trim(evaluation: dict[str, Any], suite: Mapping[str, Any]) -> None:
    """Remove long tasks from a suite, with their averages and headlines, and use fewer examples per prompt."""
    few = suite["num_fewshot"]
    evaluation["tasks"] = [
        task | {"num_fewshot": min(task.get("num_fewshot") or 0, few)}
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


def _shrink_budget(cfg: dict[str, Any], keep: Collection[str]) -> None:
    """Scale a budget in records with the pool, to at least 4 records. A share of less than one record becomes the share
    of FEWEST records."""
    selection, limit = cfg["selection"], cfg["data"].get("limit")
    if not limit:
        return
    records, count, ratio = (cfg.get("table") or {}).get("records"), selection.get("count"), selection.get("ratio")
    if count and records and limit < records and "selection.count" not in keep:
        selection["count"] = max(4, round(count * limit / records))
    if not count and ratio and int(limit * ratio) < 1 and "selection.ratio" not in keep:
        selection["ratio"] = min(1.0, FEWEST / limit)


def _find(cfg: dict[str, Any], key: str) -> dict[str, Any] | None:
    """The mapping that holds the last part of a dotted key; None without one."""
    node: Any = cfg
    *path, last = key.split(".")
    for part in path:
        node = node.get(part) if isinstance(node, Mapping) else None
    return node if isinstance(node, dict) and last in node else None


def show_value(value: Any) -> str:
    """A value of a setting as text; a task of an evaluation by its name and number of examples, where that is set."""
    if isinstance(value, list) and value and isinstance(value[0], Mapping) and "task" in value[0]:
        return ", ".join(
            task["task"] + ("" if (few := task.get("num_fewshot")) is None else f" {few}-shot") for task in value
        )
    return f"{value:g}" if isinstance(value, float) else str(value)
