"""Evaluating a model with lm-evaluation-harness, and comparing two.

The harness's public `evaluate` is called on tasks that we load ourselves: its `simple_evaluate` would reseed every
random generator of the process and spend seconds on describing the machine, which the run card does already.
"""

from __future__ import annotations

import contextlib
import logging
import math
import random
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from winnow.data.templates import dated
from winnow.distributed import from_leader
from winnow.errors import UserError
from winnow.evaluation.code_execution import confinement
from winnow.evaluation.comparison import pair, ratio_stderr
from winnow.evaluation.suite import Suite, TaskSpec
from winnow.store.describe import describe
from winnow.store.files import write_lines

if TYPE_CHECKING:
    from winnow.evaluation.catalogue import StockTask

log = logging.getLogger(__name__)

_NO_FILTER = "none"
_NOT_METRICS = ("name", "alias", "sample_len", "sample_count")


def evaluate_model(model, tokenizer, suite: Suite, template, workdir: Path, description: str = "") -> dict[str, Any]:
    """Run a suite on a loaded model and its tokenizer.

    template: winnow.data.templates.Template; the embedded suite and NLU tasks read it, and stock tasks in the
    tokenizer's chat template are told its date. workdir: gets `samples.jsonl` (a row for each item: hashes, responses,
    metrics) and the generated task files; nothing is written elsewhere, except by the hub library when a suite runs
    without `mirror`.

    Returns {"metrics": {"<task>/<metric>": {"value", "stderr": float | None, "n": items, "higher_is_better"}},
    "subtasks": the same for the leaves of groups, "groups": {group: its leaves}, "skipped": {task: reason},
    "truncated_requests": requests cut to fit the model's window, "versions": {...}, "samples": path or None}; with
    code of the model also "code_execution": what kept it in, see `code_execution`.

    Raises UserError when data, a resource or a metric is missing.
    """
    workdir = Path(workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    result = {"metrics": {}, "subtasks": {}, "groups": {}, "skipped": {}, "truncated_requests": 0, "samples": None}
    result["versions"] = {name: version(name) for name in ("lm-eval", "transformers", "torch", "datasets")}
    if not suite.tasks:
        return result  # without importing the harness
    with _left_as_found(model, suite.seed), quiet_harness(), dated(template.date):
        specs, result["skipped"] = runnable(suite)
        for task, reason in result["skipped"].items():
            log.warning("Evaluation leaves out %s: %s", task, reason)
        if specs:
            log.info("Evaluating %s on %s", description or "the model", ", ".join(spec.task for spec in specs))
            if any(leaf.runs_model_code for own in specs.values() for leaf in own):
                result["code_execution"] = confinement()
                log.info("Code that the model writes is kept in by %s", result["code_execution"])
            raw, truncated = _run(model, tokenizer, specs, suite, template, workdir)
            if truncated:
                log.warning("%d evaluation prompts were cut on the left to fit the model's window", truncated)
            result["truncated_requests"] = truncated
            result["metrics"], result["subtasks"] = _metrics(raw, specs, suite)
            for found in (result["metrics"], result["subtasks"]):
                for key in [key for key, one in found.items() if not math.isfinite(one["value"])]:
                    one = found.pop(key)
                    result["skipped"][key] = f"it is {one['value']} over its {one['n']} items"
            groups = {spec.task: own for spec, own in specs.items() if spec.task not in raw["samples"]}
            result["groups"] = {name: [leaf.name for leaf in leaves] for name, leaves in groups.items()}
            result["versions"]["tasks"] = {name: str(number) for name, number in raw["versions"].items()}
            result["samples"] = str(_write_samples(raw["samples"], workdir / "samples.jsonl"))
    _add_averages(result, suite)
    return result


def help_leader(model, tokenizer, suite: Suite) -> None:
    """What the further processes of a group do while the leader is in `evaluate_model`: their share of the forward
    passes. The leader alone reads data, computes metrics, runs code of the model and writes."""
    with _left_as_found(model, suite.seed), quiet_harness():
        if runnable(suite)[0]:
            from winnow.evaluation.model import HarnessModel

            HarnessModel(model, tokenizer, suite.batch_size, prompts=from_leader(None)).follow()


def compare(models: Mapping[str, Mapping[str, Any]], suite: Suite) -> dict[str, Any]:
    """Results of `evaluate_model`, of `base` and perhaps other models, in the form of results.json; delta = tuned -
    base, for each shared metric."""
    before, after = models["base"]["metrics"], models.get("tuned", {"metrics": {}})["metrics"]
    return {
        "suite": suite.name,
        "models": models,
        "delta": {key: after[key]["value"] - before[key]["value"] for key in before if key in after},
        "headline": [key for key in suite.headline if key in before],
        "averages": {name: list(keys) for name, keys in suite.averages.items()},
        "settings": describe(suite),
    }


def runnable(suite: Suite) -> tuple[dict[TaskSpec, list[StockTask]], dict[str, str]]:
    """({task to run: its leaves, none where we write the task}, {task left out: why}). Raises UserError for a task or
    a metric that there is not."""
    from winnow.evaluation.catalogue import check_metrics, leaves

    specs: dict[TaskSpec, list[StockTask]] = {}
    skipped = {}
    for spec in suite.tasks:
        own = [] if spec.task in suite.written else leaves(spec.task)
        if own:
            check_metrics(spec.task, spec.metrics)
        if any(leaf.runs_model_code for leaf in own) and not suite.allow_code_execution:
            skipped[spec.task] = "it runs code that the model writes; set evaluation.allow_code_execution=true"
        else:
            specs[spec] = own
    return specs, skipped


def _run(model, tokenizer, specs, suite, template, workdir) -> tuple[dict[str, Any], int]:
    """(the harness's results, number of prompts that were cut)."""
    import lm_eval

    from winnow.evaluation.loading import load_tasks
    from winnow.evaluation.model import HarnessModel

    suite.check_tokenizer(tokenizer)
    folder, cache = workdir / "tasks", workdir / "datasets"
    for left in (folder, cache):  # nothing of an earlier, other run gets in
        shutil.rmtree(left, ignore_errors=True)
        left.mkdir()
    try:
        loaded, pairs, prompts = load_tasks(specs, suite, template, tokenizer, folder, cache)
        harness_model = HarnessModel(model, tokenizer, suite.batch_size, pairs, from_leader(prompts))
        logging.getLogger("lm_eval").setLevel(logging.WARNING)
        raw = lm_eval.evaluate(
            harness_model,
            loaded,
            limit=suite.limit,
            bootstrap_iters=suite.bootstrap_iters,
            apply_chat_template=suite.chat_template,
            fewshot_as_multiturn=suite.chat_template,
            confirm_run_unsafe_code=suite.allow_code_execution,
        )
        return raw, harness_model.finish()
    finally:
        shutil.rmtree(cache)


def _metrics(
    raw: Mapping[str, Any], specs: Collection[TaskSpec], suite: Suite
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The reported metrics, and all metrics of tasks that were run as part of a group."""
    conditions = suite.conditions()
    found = {name: _task_metrics(name, values, raw, conditions) for name, values in raw["results"].items()}
    metrics, subtasks = {}, {}
    for spec in specs:
        for metric in spec.metrics:
            if metric not in found[spec.task]:
                raise UserError(
                    f"Task {spec.task!r} has no metric {metric!r}: choose from "
                    f"{', '.join(sorted(found[spec.task]))} in evaluation.tasks."
                )
            metrics[f"{spec.task}/{metric}"] = found[spec.task][metric]
    for name in found.keys() - {spec.task for spec in specs}:
        subtasks |= {f"{name}/{metric}": entry for metric, entry in found[name].items()}
    subtasks = dict(sorted(subtasks.items()))
    return metrics, subtasks


def _task_metrics(
    name: str, values: Mapping[str, Any], raw: Mapping[str, Any], conditions: Collection[str]
) -> dict[str, dict[str, Any]]:
    """{metric: entry} of one task or group. `acc,none` becomes `acc`; a filter is named only where there are two."""
    keys = [key.split(",", 1) for key in values if key not in _NOT_METRICS]
    filters: dict[str, list[str]] = {}
    for metric, kind in keys:
        if not metric.endswith("_stderr"):
            filters.setdefault(metric, []).append(kind)
    entries = {}
    for metric, kinds in filters.items():
        for kind in kinds:
            stderr = values.get(f"{metric}_stderr,{kind}")
            if metric == "bits_per_byte" or (name in conditions and metric.endswith("_f1")):
                stderr = ratio_stderr([pair(metric, row[metric]) for row in raw["samples"][name]])
            label = metric if kind == _NO_FILTER or len(kinds) == 1 else f"{metric},{kind}"
            entries[label] = {
                "value": float(values[f"{metric},{kind}"]),
                "stderr": float(stderr) if isinstance(stderr, (int, float)) and math.isfinite(stderr) else None,
                "n": int(values["sample_len"]),
                "higher_is_better": bool(raw["higher_is_better"].get(name, {}).get(metric, True)),
            }
    return entries


def _add_averages(result: dict[str, Any], suite: Suite) -> None:
    """Plain means; their standard error takes the tasks as independent: sqrt(sum of squares) / number."""
    metrics, skipped = result["metrics"], result["skipped"]
    for name, keys in suite.averages.items():
        missing = [key for key in keys if key not in metrics]
        if missing:  # a mean over fewer tasks would not be comparable to a paper's
            skipped[f"average/{name}"] = f"it needs {', '.join(missing)}"
            continue
        parts = [metrics[key] for key in keys]
        errors = [part["stderr"] for part in parts]
        metrics[f"average/{name}"] = {
            "value": sum(part["value"] for part in parts) / len(parts),
            "stderr": None if None in errors else math.sqrt(sum(e * e for e in errors)) / len(parts),
            "n": sum({_asked(key): metrics[key]["n"] for key in keys}.values()),  # of each task once
            "higher_is_better": all(part["higher_is_better"] for part in parts),
        }


def _asked(key: str) -> str:
    """The task of a metric; an average is its own."""
    return key if key.startswith("average/") else key.rpartition("/")[0]


def _write_samples(samples: Mapping[str, Sequence[Mapping[str, Any]]], path: Path) -> Path:
    """One JSON row for each item and filter: task, hashes of document, prompt and target, responses, metrics."""
    kept = ("doc_id", "filter", "doc_hash", "prompt_hash", "target_hash", "filtered_resps")
    lines = (
        {"task": task} | {key: row[key] for key in kept} | {"metrics": {name: row[name] for name in row["metrics"]}}
        for task, rows in samples.items()
        for row in rows
    )
    write_lines(path, lines, default=lambda value: value.tolist())  # NumPy's numbers
    return path


@contextlib.contextmanager
def _left_as_found(model, seed: int) -> Iterator[None]:
    """Random generators and the model's mode are the caller's: an evaluation between two stages changes neither. Tasks
    that draw (GPQA's order of choices) draw by the seed."""
    training, states = model.training, (random.getstate(), np.random.get_state())
    random.seed(seed)
    np.random.seed(seed)
    if find_spec("langdetect"):  # IFEval's, which draws as well
        import langdetect

        langdetect.DetectorFactory.seed = seed
    device = next(model.parameters()).device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):  # of all GPUs torch would warn at length
        try:
            yield
        finally:
            model.train(training)
            random.setstate(states[0])
            np.random.set_state(states[1])


@contextlib.contextmanager
def quiet_harness() -> Iterator[None]:
    """The harness and the data libraries say little; progress bars of the evaluation itself stay.

    While tasks are loaded only errors show: every overlay would warn that it replaces a stock task.
    """
    import datasets
    import lm_eval.api.model
    import lm_eval.api.task

    # Two bars without a name that count the building of prompts, a matter of milliseconds.
    silent = {module: module.tqdm for module in (lm_eval.api.model, lm_eval.api.task)}
    for module in silent:
        module.tqdm = lambda items, **_: items
    levels = {name: logging.getLogger(name).level for name in ("lm_eval", "datasets", "huggingface_hub")}
    bars = datasets.are_progress_bars_disabled()
    for name in levels:
        logging.getLogger(name).setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        for module, bar in silent.items():
            module.tqdm = bar
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        if not bars:
            datasets.enable_progress_bars()
