"""From a suite to loaded harness tasks: their data and further resources.

Imported only when an evaluation runs: lm-eval takes seconds to import.
"""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lm_eval.tasks import TaskManager

from winnow.data.records import Record
from winnow.errors import UserError
from winnow.evaluation import embedded, nlu
from winnow.evaluation.catalogue import StockTask, definition_folders, leaves
from winnow.evaluation.mirror import mirrored_files, write_overlay
from winnow.evaluation.suite import Suite, TaskSpec
from winnow.store.files import read_lines, write_lines

# Keys of a task's `dataset_kwargs` that `load_dataset` has beyond the builder of a data set.
OF_LOADING = {"trust_remote_code", "streaming", "keep_in_memory", "num_proc", "verification_mode"}
Pairs = dict[tuple[str, str], tuple[list[int], list[int]]]
Prompts = dict[str, list[int]]


def load_tasks(
    specs: Mapping[TaskSpec, Sequence[StockTask]], suite: Suite, template, tokenizer, folder: Path, cache: Path
) -> tuple[Mapping[str, Any], Pairs, Prompts]:
    """(the result of `TaskManager.load`, known token ids of prompt and answer pairs, known token ids of prompts).

    specs: each task with its leaves, as `runnable` gives them. folder: empty, receives the generated task files. cache:
    the data sets library's converted copies of local files. Raises UserError when data or a resource is missing.
    """
    _check_resources(specs.values())
    pairs: Pairs = {}
    for name, records in (suite.pools or {}).items():
        items = [embedded.HeldOut(record, (), name) for record in records]
        task = replace(leaves("embedded_answers")[0], name=name)
        pairs |= _write_items(task, items, template, tokenizer, folder, cache)
    for task, shots in ((leaf, spec.num_fewshot) for spec, own in specs.items() for leaf in own):
        if task.config["dataset_path"] == embedded.HUB_NAME:
            pairs |= _write_items(task, embedded.load_heldout(), template, tokenizer, folder, cache)
        elif suite.mirror is not None:
            write_overlay(task, mirrored_files(task, Path(suite.mirror).expanduser(), shots), folder, cache)
    prompts = _write_conditions(suite, template, tokenizer, folder, cache)
    defined = definition_folders(spec.task for spec, own in specs.items() if own)
    manager = TaskManager(include_path=[*defined, folder], include_defaults=False)
    names = [spec.task for spec in specs]
    try:
        loaded = manager.load(names)
    except OSError as error:  # offline the hub library raises ConnectionError or FileNotFoundError
        if suite.mirror is not None:
            raise
        raise _not_to_be_had(names, error) from error
    for spec, own in specs.items():
        for name in [leaf.name for leaf in own] or [spec.task]:
            task = loaded["tasks"][name]
            shots = task.get_config("num_fewshot") or 0
            task.set_config("num_fewshot", shots if spec.num_fewshot is None else spec.num_fewshot)
            task.set_fewshot_seed(suite.seed)
    return loaded, pairs, prompts


def _write_items(
    task: StockTask, items: Sequence[embedded.HeldOut], template, tokenizer, folder: Path, cache: Path
) -> Pairs:
    """Write data and a task file for held-out answers, and return their token ids as the template makes them."""
    _write_task(task, embedded.documents(items, template, tokenizer), folder, cache)
    return embedded.token_pairs(items, template, tokenizer)


def _write_task(task: StockTask, rows: Sequence[Mapping[str, Any]], folder: Path, cache: Path) -> None:
    """Write the data and the file of a task of ours."""
    file = folder / task.name / "test.jsonl"
    write_lines(file, rows)
    write_overlay(task, {"test": file}, folder, cache)


def check_data(suite: Suite) -> None:
    """Read all data of the tasks that will run, so that nothing is tuned for an evaluation that cannot be: files of the
    mirror line by line, data of the hub into the library's cache. Raises UserError if something cannot be had or read.
    Prints where a data set's validation split stands for a test split without labels."""
    from winnow.evaluation.harness import runnable

    for dataset in {condition.dataset for condition in suite.conditions().values()}:
        if suite.nlu.split_of(dataset) != suite.nlu.split:
            print(f"{dataset}: the hub hides the labels of the {suite.nlu.split} split; the validation split is used.")
        suite.nlu.records(dataset)
    asked: set[tuple[str, str | None]] = set()
    specs = runnable(suite)[0]
    shared = Counter(leaf.name for own in specs.values() for leaf in own)
    twice = [name for name, number in shared.items() if number > 1]
    if twice:
        raise UserError(
            f"evaluation.tasks asks {twice[0]} more than once, by its name and by a group's: leave one out."
        )
    _check_resources(specs.values())
    for spec, task in ((spec, leaf) for spec, own in specs.items() for leaf in own):
        source = task.config.get("dataset_path")
        if source in (None, embedded.HUB_NAME):
            continue
        if suite.mirror is not None:
            file = mirrored_files(task, Path(suite.mirror).expanduser(), spec.num_fewshot)[task.evaluated_split]
            if not sum(1 for _ in read_lines(file)):
                raise UserError(f"{file} is empty: an item on each line was expected.")
        elif (source, task.config.get("dataset_name")) not in asked:
            asked.add((source, task.config.get("dataset_name")))
            import datasets

            given = task.config.get("dataset_kwargs") or {}
            options = {key: value for key, value in given.items() if key not in OF_LOADING}
            try:
                datasets.load_dataset_builder(source, task.config.get("dataset_name"), **options).download_and_prepare()
            except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
                raise _not_to_be_had([spec.task], error) from error


def _not_to_be_had(names: list[str], error: Exception) -> UserError:
    reason = str(error).strip().split("\n", 1)[0].rstrip(".")
    return UserError(
        f"The data of {', '.join(names)} cannot be fetched from the Hugging Face hub ({reason}): "
        f"connect to the network, or pass evaluation.mirror=<folder> with local copies; a gated data set needs "
        f"`hf auth login`."
    )


def _write_conditions(suite: Suite, template, tokenizer, folder: Path, cache: Path) -> Prompts:
    """Write data and a task file for each condition of the NLU tasks, and return the token ids of the prompts."""
    prompts: Prompts = {}
    clean: dict[str, list[Record]] = {}
    for name, condition in suite.conditions().items():
        if condition.dataset not in clean:
            clean[condition.dataset] = suite.nlu.records(condition.dataset)
        records = suite.nlu.noised(clean[condition.dataset], condition)
        rows = nlu.documents(condition, records, template, tokenizer)
        ids = nlu.prompt_ids(records, template, tokenizer)
        prompts |= {row["prompt"]: own for row, own in zip(rows, ids, strict=True)}
        _write_task(replace(leaves(f"nlu_{condition.dataset}")[0], name=name), rows, folder, cache)
    return prompts


def _check_resources(groups: Iterable[Sequence[StockTask]]) -> None:
    """IFEval's checkers need two packages and a sentence splitter, which the stock task would fetch by itself."""
    if not any(leaf.config.get("dataset_path") == "google/IFEval" for group in groups for leaf in group):
        return
    missing = [name for name in ("immutabledict", "langdetect", "nltk") if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"Task 'ifeval' needs {', '.join(missing)}: run `pip install {' '.join(missing)}`.")
    import nltk

    try:
        nltk.data.find("tokenizers/punkt_tab")
    except LookupError:
        raise UserError(
            "Task 'ifeval' needs NLTK's sentence splitter punkt_tab: run `python -m nltk.downloader punkt_tab` once, "
            "or point NLTK_DATA to a folder that holds tokenizers/punkt_tab."
        ) from None
