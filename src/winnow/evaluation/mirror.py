"""Running harness tasks on local files instead of the hub.

A mirror is a folder of JSON Lines files in the hub's format, `<mirror>/<data set>/<split>.jsonl`. For every task
a YAML is written that includes the stock one and only names other data, so that prompts and metrics stay stock.
"""

from __future__ import annotations

import glob
import hashlib
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path

import yaml

from winnow.errors import UserError
from winnow.evaluation.catalogue import StockTask, leaves
from winnow.evaluation.embedded import HUB_NAME

log = logging.getLogger(__name__)

# (hub name, configuration) -> folder below the mirror. Elsewhere: the last part of the hub name in lower case,
# followed by the configuration where there is one (`cais/mmlu` + `anatomy` -> `mmlu/anatomy`).
FOLDERS: Mapping[tuple[str, str | None], str] = {
    ("allenai/ai2_arc", "ARC-Challenge"): "arc_challenge",
    ("allenai/ai2_arc", "ARC-Easy"): "arc_easy",
    ("truthfulqa/truthful_qa", "multiple_choice"): "truthfulqa_mc",
    ("truthfulqa/truthful_qa", "generation"): "truthfulqa_gen",
    ("openai/gsm8k", "main"): "gsm8k",
    ("openai/openai_humaneval", None): "humaneval",
    ("google-research-datasets/mbpp", "full"): "mbpp",
    ("allenai/openbookqa", "main"): "openbookqa",
    ("allenai/winogrande", "winogrande_xl"): "winogrande",
    ("allenai/social_i_qa", None): "social_iqa",
}
_SPLIT_KEYS = ("training_split", "validation_split", "test_split", "fewshot_split")


def data_folder(task: StockTask) -> str:
    """Folder of a task's data below the mirror, e.g. `arc_challenge` or `mmlu/anatomy`."""
    hub, configuration = task.config["dataset_path"], task.config.get("dataset_name")
    known = FOLDERS.get((hub, configuration))
    if known is not None:
        return known
    return "/".join(part for part in (hub.rsplit("/", 1)[-1].lower(), configuration) if part)


def mirror_digest(mirror: Path, names: Iterable[str]) -> str | None:
    """Hash of the names and contents of all that these tasks, groups and tags read of a mirror, 16 hex digits; None if
    they read nothing of it.

    Our own tasks read nothing of it. Raises UserError if the mirror is no folder, or a name is unknown.
    """
    _check_folder(mirror)
    stock = (leaf for name in names for leaf in leaves(name) if leaf.config["dataset_path"] != HUB_NAME)
    folders = {data_folder(leaf) for leaf in stock}
    if not folders:
        return None
    total = hashlib.sha256()
    for path in sorted(path for folder in folders for path in (mirror / folder).glob("*.jsonl")):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        total.update(f"{path.relative_to(mirror).as_posix()} {content}\n".encode())
    return total.hexdigest()[:16]


def _check_folder(mirror: Path) -> None:
    if not mirror.is_dir():
        raise UserError(f"evaluation.mirror={mirror} is not a folder: name one that holds <data set>/<split>.jsonl.")


def mirrored_files(task: StockTask, mirror: Path, shots: int | None = 0) -> dict[str, Path]:
    """{split: file} of a task's data in the mirror.

    shots: examples in a prompt; None for the task's own number. Raises UserError when the evaluated split is not there,
    and when the task names a split of examples, but only the evaluated one is there.
    """
    _check_folder(mirror)
    folder = mirror.resolve() / data_folder(task)
    files = {path.stem: path for path in sorted(folder.glob("*.jsonl"))}
    if task.evaluated_split not in files:
        raise UserError(
            f"Task {task.name!r} has no data in the mirror: expected the file "
            f"{folder / (task.evaluated_split + '.jsonl')}; add it, or leave the task "
            f"or its group out of evaluation.tasks, evaluation.averages and evaluation.headline."
        )
    others = {task.config.get(key) for key in _SPLIT_KEYS} - {None, task.evaluated_split}
    named = task.config.get("fewshot_split")
    shots = task.config.get("num_fewshot") if shots is None else shots
    fixed = named is None and (task.config.get("fewshot_config") or {}).get("samples")
    if shots and not fixed and others and not others & files.keys():
        if named in others:
            raise UserError(
                f"Task {task.name!r} has no examples in the mirror: expected the file {folder / (named + '.jsonl')}; "
                f"add it, or set num_fewshot to 0 for the task in evaluation.tasks."
            )
        log.warning("The examples of %s are evaluated items: %s holds no other split", task.name, folder)
    return files


def write_overlay(task: StockTask, files: Mapping[str, Path], folder: Path, cache: Path) -> Path:
    """Write the YAML that runs `task` on `files` ({split: JSON Lines file}) and return its path.

    cache: where the data sets library may keep its converted copy. Splits without a file are set to null: the
    harness reads the training split when it builds a task, used or not, and without it takes examples from the
    evaluated split, never showing an item its own answer.
    """
    absent = {key: None for key in _SPLIT_KEYS if task.config.get(key) and task.config[key] not in files}
    overlay = {
        "include": str(task.path.resolve()),
        "task": task.name,
        "dataset_path": "json",
        "dataset_name": None,  # would be inherited
        "dataset_kwargs": {
            "data_files": {split: glob.escape(str(path)) for split, path in files.items()},
            "cache_dir": str(cache),
        },
        **absent,
    }
    own = task.config.get("test_split")
    named = task.config.get("fewshot_split") or (task.config.get("fewshot_config") or {}).get("samples")
    if own in files and not named and not {task.config.get(key) for key in _SPLIT_KEYS} - {own} & files.keys():
        overlay["fewshot_split"] = own  # the harness leaves an item out of its own examples where it knows their split
    path = folder / f"{task.name.replace('/', '-')}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(overlay, sort_keys=False), encoding="utf-8")
    return path
