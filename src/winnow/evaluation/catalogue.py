"""Which harness tasks there are: the stock ones, and our own, which take precedence.

Imported only when an evaluation runs: lm-eval takes seconds to import and 8 s to index its 14,000 task files.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from lm_eval.tasks import TaskManager

from winnow.errors import UserError
from winnow.evaluation.suite import OWN_TASKS


@dataclass(frozen=True)
class StockTask:
    """One leaf task of the harness: its name, the YAML that defines it, and that YAML's settings."""

    name: str
    path: Path
    config: Mapping[str, Any]

    @property
    def runs_model_code(self) -> bool:
        return bool(self.config.get("unsafe_code"))

    @property
    def evaluated_split(self) -> str:
        return self.config.get("test_split") or self.config["validation_split"]


@lru_cache(maxsize=1)
def _own_index() -> Mapping[str, Any]:
    return TaskManager(include_path=str(OWN_TASKS), include_defaults=False).task_index


@lru_cache(maxsize=1)
def _full_index() -> Mapping[str, Any]:
    return {**TaskManager().task_index, **_own_index()}


def _index(names: Iterable[str]) -> Mapping[str, Any]:
    # The stock index costs seconds, so it is built only where a name asks for it.
    return _own_index() if all(name in _own_index() for name in names) else _full_index()


def leaves(name: str) -> list[StockTask]:
    """The leaf tasks of a task, group or tag, in the harness's order. Raises UserError for an unknown name."""
    index = _index([name])
    if name not in index:
        near = difflib.get_close_matches(name, index, n=3)
        hint = f"; near names: {', '.join(near)}" if near else ""
        raise UserError(f"Evaluation task {name!r} is not known to lm-eval or Winnow{hint}: correct evaluation.tasks.")
    found = [StockTask(leaf, index[leaf].yaml_path, index[leaf].cfg) for leaf in _expand(name, index)[0]]
    coded = [leaf.name for leaf in found if "class" in (leaf.config or {})]
    if coded:
        raise UserError(
            f"Evaluation task {coded[0]!r} is a Python class of lm-eval, whose data nobody can check beforehand: leave "
            f"it out of evaluation.tasks."
        )
    return found


def check_metrics(name: str, metrics: Iterable[str]) -> None:
    """Raises UserError for a tag or group for which the harness reports no metric, and for a metric that a task or
    group does not have. Where code of the task names its metrics, only a run tells."""
    index = _index([name])
    config, kind = index[name].cfg or {}, index[name].kind.name
    listed = config.get("metric_list" if kind == "TASK" else "aggregate_metric_list") or []
    if kind in ("TAG", "GROUP") and not listed:
        raise UserError(
            f"Evaluation task {name!r} stands for tasks of which lm-eval reports no common metric: name them one by "
            f"one in evaluation.tasks: {', '.join(_expand(name, index)[0])}."
        )
    listed = [listed] if isinstance(listed, Mapping) else listed
    known = sorted(str(one["metric"]) for one in listed)
    coded = "process_results" in config and index[name].yaml_path.parents[1] != OWN_TASKS
    coded |= not listed or any("/" in one["metric"] or "hf_evaluate" in one for one in listed)
    for metric in metrics:
        if not coded and metric.partition(",")[0] not in known:
            raise UserError(
                f"Task {name!r} has no metric {metric!r}: choose from {', '.join(known)} in evaluation.tasks."
            )


def definition_folders(names: Iterable[str]) -> list[Path]:
    """Folders whose YAMLs together define every task and group that `names` need."""
    names = list(names)
    index = _index(names)
    folders = dict.fromkeys(path.parent for name in names for path in _expand(name, index)[1])
    # A folder inside another one of the list would define its tasks twice.
    return [folder for folder in folders if not any(other in folder.parents for other in folders)]


def _expand(name: str, index: Mapping[str, Any]) -> tuple[list[str], list[Path]]:
    """(leaf names, paths of all YAMLs met on the way) below one name of the index."""
    entry = index[name]
    paths = [entry.yaml_path] if entry.yaml_path else []
    members = (entry.cfg or {}).get("task")
    if entry.kind.name == "TAG":
        members = sorted(entry.tags)
    if isinstance(members, str):
        return [name], paths
    found: list[str] = []
    for member in members:
        if isinstance(member, Mapping):
            member = member.get("task") or member["group"]
        inner = [member] if isinstance(member, str) else member
        for one in inner:
            below, via = _expand(one, index)
            found += below
            paths += via
    return list(dict.fromkeys(found)), paths
