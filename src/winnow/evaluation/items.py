"""The items of evaluation tasks: those that are not asked, as records (`data@target=suite`), and the texts of the
others."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from winnow import draws
from winnow.data.nlu.datasets import DATASETS
from winnow.data.overlap import texts_in
from winnow.data.readers import check_size
from winnow.data.records import Pool, Quarantined, Record, record_id
from winnow.errors import UserError
from winnow.evaluation.embedded import HUB_NAME, load_heldout
from winnow.evaluation.harness import quiet_harness, runnable
from winnow.evaluation.suite import Suite
from winnow.store.files import read_lines

log = logging.getLogger(__name__)


def read_items(task: str, split: str | None, path: str | Path | None, limit: int | None, seed: int) -> Pool:
    """The items of a task, or of each task of a group. The instruction of a record is the prompt that the task writes
    (`doc_to_text`), its output the right answer (`doc_to_target`, the first of several).

    split: a split that the task names and does not ask; None for its validation split, else its training split, else
    that of its few-shot examples. path: folder of local copies, `<data set>/<split>.jsonl`; None for the hub. limit: at
    most so many records, drawn by seed, a smaller number a part of a larger one; None for all.

    An item whose prompt the evaluation asks too, whatever case and punctuation, is quarantined; so is an item without a
    prompt or an answer. `Record.raw` holds instruction, input, output, task and split.

    Raises UserError for a split that is asked or not there, for a task that has no other split, and for missing data.
    """
    from winnow.evaluation.catalogue import leaves  # these two import lm-eval, which takes seconds
    from winnow.evaluation.loading import load_tasks

    check_size("limit", limit)
    if path is not None and not Path(path).expanduser().is_dir():
        raise UserError(f"{path} is no folder; name one of <data set>/<split>.jsonl, or null for the hub.")
    found = leaves(task)
    for leaf in found:
        if leaf.config["dataset_path"] == HUB_NAME:
            raise _no_split(leaf.name, leaf.evaluated_split)
    mirror = None if path is None else str(path)
    settings: dict[str, Any] = {"limit": None, "batch_size": 1, "allow_code_execution": False, "chat_template": False}
    settings |= {"averages": {}, "mirror": mirror, "seed": 0, "bootstrap_iters": 1}
    suite = Suite(task, [{"task": task, "metrics": (), "num_fewshot": 0}], (), **settings)
    records: list[Record] = []
    quarantined: list[Quarantined] = []
    with TemporaryDirectory() as folder, quiet_harness():
        loaded, _, _ = load_tasks({suite.tasks[0]: found}, suite, None, None, Path(folder), Path(folder) / "cache")
        items: list[tuple[Any, str, Mapping[str, Any]]] = []
        asked: set[str] = set()
        for own in (loaded["tasks"][leaf.name] for leaf in found):
            name, docs = _split(own, split)
            items += [(own, name, doc) for doc in docs]
            asked |= {_words(_prompt(own, doc)) for doc in own.eval_docs}
        rows = range(len(items))
        for row in rows if limit is None else sorted(rows, key=lambda row: draws.key("item", seed, task, row)):
            own, name, doc = items[row]
            prompt, answer = _prompt(own, doc), _answer(own, doc)
            raw = {"instruction": prompt, "input": "", "output": answer, "task": own.task_name, "split": name}
            reason = "the evaluation asks it" if _words(prompt) in asked else None
            if not prompt or not answer:
                reason = f"it has no {'answer' if prompt else 'prompt'}"
            if reason is not None:
                quarantined.append(Quarantined(f"{own.task_name}/{name}", None, row, reason, raw))
                continue
            records.append(Record(record_id(prompt, "", answer), row, prompt, "", answer, (), task, raw))
            if len(records) == limit:
                break
    if not records:
        why = f"of the first one, {quarantined[0].reason}" if quarantined else "the split is empty"
        raise UserError(f"Task {task!r} has no item to give: {why}.")
    records.sort(key=lambda record: record.row)
    return Pool(records, "alpaca", "jsonl", task, quarantined)


def asked_texts(suite: Suite) -> Iterator[str]:
    """The texts of the items that a suite asks, as the data sets hold them, without what a task writes around them."""
    specs = [spec for spec in suite.tasks if spec.task not in suite.written]
    if any(spec.task.startswith("embedded") for spec in specs):
        yield from texts_in([item.record.raw for item in load_heldout()])
    for records in (suite.pools or {}).values():
        yield from texts_in([record.raw for record in records])
    for dataset in {condition.dataset for condition in suite.conditions().values()}:
        yield from (DATASETS[dataset].read(record.raw["original"])[0] for record in suite.nlu.records(dataset))
    if not all(spec.task.startswith("embedded") for spec in specs):
        yield from texts_in(_asked_rows(suite))


def _asked_rows(suite: Suite) -> Iterator[Mapping[str, Any]]:
    """The rows of the evaluated splits of the stock tasks, of the mirror or the hub."""
    import datasets  # these two take seconds to import

    from winnow.evaluation.mirror import mirrored_files

    for leaf in (leaf for own in runnable(suite)[0].values() for leaf in own):
        source, split = leaf.config["dataset_path"], leaf.evaluated_split
        if source == HUB_NAME:
            continue
        if suite.mirror is None:
            options = leaf.config.get("dataset_kwargs") or {}
            try:
                yield from datasets.load_dataset(source, leaf.config.get("dataset_name"), split=split, **options)
            except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
                # The evaluation may lie in the store; if not, it says itself what it lacks.
                log.warning("Overlap with %s is not counted, because its data cannot be read: %s", leaf.name, error)
        else:
            file = mirrored_files(leaf, Path(suite.mirror).expanduser())[split]
            yield from (row for _, row in read_lines(file))


def _split(task: Any, wanted: str | None) -> tuple[str, Iterable[Mapping[str, Any]]]:
    """Name and items of the split that is wanted, of a loaded task."""
    asked = task.config.test_split or task.config.validation_split
    readers = {
        task.config.validation_split: task.validation_docs,
        task.config.training_split: task.training_docs,
        task.config.fewshot_split: task.fewshot_docs,
    }
    offered = {name: docs for name, docs in readers.items() if name not in (None, asked)}
    if not offered:
        raise _no_split(task.task_name, asked)
    name = next(iter(offered)) if wanted is None else wanted
    if name not in offered:
        state = "is what the evaluation asks" if name == asked else "is not there"
        raise UserError(f"The split {name} of task {task.task_name!r} {state}; choose {' or '.join(offered)}.")
    return name, offered[name]()


def _no_split(name: str, asked: str) -> UserError:
    return UserError(
        f"Task {name!r} has the split {asked} alone, which the evaluation asks; name another task, add the file of "
        f"another split to its folder, or take records of your own (data=file in place of data=suite)."
    )


def _prompt(task: Any, doc: Mapping[str, Any]) -> str:
    prompt = task.doc_to_text(doc)
    # A number, as in Winogrande: the choices are beginnings of a sentence, and the answer ends each of them.
    return (task.doc_to_choice(doc)[prompt] if isinstance(prompt, int) else prompt).strip()


def _answer(task: Any, doc: Mapping[str, Any]) -> str:
    """The right answer, the first of several; "" where there is none."""
    answer = task.doc_to_target(doc)
    if isinstance(answer, list):
        answer = answer[0] if answer else None
    if isinstance(answer, int) and task.config.doc_to_choice is not None:
        answer = task.doc_to_choice(doc)[answer]
    return "" if answer is None else str(answer).strip()


def _words(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))
