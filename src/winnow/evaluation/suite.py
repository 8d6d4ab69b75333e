"""What to evaluate: plain settings, built from `conf/evaluation/*.yaml`."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from winnow.errors import UserError
from winnow.evaluation.embedded import HELDOUT, HeldOut, load_heldout, token_pairs
from winnow.store.describe import Free, Identified, arguments

OWN_TASKS = Path(__file__).parent / "tasks"
_DEFINED = re.compile(rb"^(?:task|group): *([\w-]+) *$", re.MULTILINE)

if TYPE_CHECKING:
    from winnow.data.records import Record
    from winnow.data.templates import Template
    from winnow.evaluation.nlu import Condition, NluData


@dataclass(frozen=True)
class TaskSpec:
    """One task of a suite.

    task: name of a harness task or group. num_fewshot: examples in the prompt; None keeps the task's own number.
    metrics: reported ones, as the harness names them (`acc_norm`); where a task filters its answers in more than
    one way, with the filter (`exact_match,strict-match`).
    """

    task: str
    metrics: tuple[str, ...]
    num_fewshot: int | None = None


@dataclass(frozen=True)
class Suite(Identified):
    """Tasks that are evaluated together.

    tasks: TaskSpec, or mappings with its fields. headline: `<task>/<metric>` shown first. averages: name ->
    `<task>/<metric>` keys (also `average/<name>` of an earlier one); reported as `average/<name>`, the plain mean.
    limit: items of each leaf task (MMLU has 57, BBH 27); None for all. batch_size: sequences a forward pass.
    mirror: folder of local data instead of the hub. allow_code_execution: run tasks that execute model-written
    code; otherwise they are left out and listed. chat_template: wrap prompts in the tokenizer's own template.
    seed: draws the few-shot examples. bootstrap_iters: resamples for errors without a closed form. nlu: the data of
    the NLU tasks; with it, `tasks` are its conditions.
    pools: name of one of the `tasks` -> records whose answers it asks, in the order of their draw.

    Raises UserError on settings that cannot be run.
    """

    name: str
    tasks: Sequence[TaskSpec | Mapping[str, Any]]
    headline: Free[Sequence[str]]
    averages: Mapping[str, Sequence[str]]
    limit: int | None
    batch_size: Free[int]
    mirror: Free[str | None]
    allow_code_execution: bool
    chat_template: bool
    seed: int
    bootstrap_iters: int
    nlu: NluData | None = None
    pools: Mapping[str, Sequence[Record]] | None = None

    def __post_init__(self) -> None:
        tasks = tuple(task if isinstance(task, TaskSpec) else _task_spec(task) for task in self.tasks)
        averages = {name: tuple(keys) for name, keys in self.averages.items()}
        for key, value in {"tasks": tasks, "headline": tuple(self.headline), "averages": averages}.items():
            object.__setattr__(self, key, value)
        if self.limit is not None and (self.limit != int(self.limit) or self.limit < 1):
            raise UserError(f"evaluation.limit={self.limit} is not a whole number of items: give 1 or more, or null.")
        if self.batch_size < 1:
            raise UserError(f"evaluation.batch_size={self.batch_size} is too small: give 1 or more.")
        if self.bootstrap_iters < 1:  # 0 leaves out all standard errors, in closed form too
            raise UserError(f"evaluation.bootstrap_iters={self.bootstrap_iters} is too small: give 1 or more.")
        twice = sorted(name for name, number in Counter(task.task for task in tasks).items() if number > 1)
        if twice:
            raise UserError(f"evaluation.tasks names {', '.join(twice)} more than once: ask a task one way in a suite.")
        for own in [task for task in tasks if self._is_own(task.task)]:
            if self.chat_template or own.num_fewshot:
                setting = "chat_template=true" if self.chat_template else f"num_fewshot={own.num_fewshot}"
                raise UserError(
                    f"evaluation: {setting} does not fit the task {own.task}, whose prompts are those of the run's "
                    f"template: leave the setting or the task out."
                )
        reported = {f"{task.task}/{metric}" for task in tasks for metric in task.metrics}
        for name, keys in averages.items():
            self._known(keys, reported, f"averages.{name}")
            reported.add(f"average/{name}")
        self._known(self.headline, reported, "headline")

    @staticmethod
    def _known(keys: Sequence[str], reported: set[str], where: str) -> None:
        for key in keys:
            if key not in reported:
                raise UserError(
                    f"evaluation.{where} names {key!r}, which the suite does not report: "
                    f"choose from {', '.join(sorted(reported)) or 'nothing (it has no tasks)'}."
                )

    def conditions(self) -> Mapping[str, Condition]:
        """Task name -> the data set and noise that it asks; empty for a suite without NLU tasks."""
        return self.nlu.conditions() if self.nlu is not None else {}

    def check_data(self) -> None:
        """Raises UserError if the data of the tasks cannot be had. The embedded tasks bring theirs."""
        if not all(task.task.startswith("embedded") for task in self.tasks):
            from winnow.evaluation.loading import check_data  # lm-eval takes seconds to import

            check_data(self)

    def check_tokenizer(self, tokenizer) -> None:
        """Raises UserError if prompts are to be wrapped in a chat template that the tokenizer does not have."""
        if self.chat_template and not tokenizer.chat_template:
            raise UserError("evaluation.chat_template=true, but the tokenizer has no chat template: set it to false.")

    def check_prompts(self, template: Template, tokenizer) -> None:
        """Raises UserError if a prompt cannot be written, or a held-out answer has no token."""
        self.check_tokenizer(tokenizer)
        items = [HeldOut(record, (), task) for task, records in (self.pools or {}).items() for record in records]
        items += load_heldout() if any(task.task.startswith("embedded") for task in self.tasks) else []
        if items:
            token_pairs(items, template, tokenizer)

    def generates(self) -> dict[str, int]:
        """{task: tokens that its answers may have} of the stock tasks that generate."""
        if all(self._is_own(task.task) for task in self.tasks):
            return {}
        from winnow.evaluation.harness import runnable

        return {
            leaf.name: (leaf.config.get("generation_kwargs") or {}).get("max_gen_toks", 256)  # the harness's default
            for own in runnable(self)[0].values()
            for leaf in own
            if leaf.config.get("output_type") == "generate_until"
        }

    @property
    def written(self) -> set[str]:
        """Tasks whose data is written when the suite runs, and which no catalogue knows."""
        return set(self.conditions()) | set(self.pools or ())

    @property
    def uses_template(self) -> bool:
        """Whether prompts come from the run's own template; stock tasks bring their own."""
        return any(self._is_own(task.task) for task in self.tasks)

    def _is_own(self, task: str) -> bool:
        return task in self.written or task.startswith("embedded")

    @property
    def identity(self) -> dict[str, Any]:
        """Data count by content, not by place: the files of the mirror in use, and the held-out records."""
        # The name is that under which stored evaluations have them; `limit` takes the first of the ids.
        pools = {"class": "winnow.evaluation.heldout.HeldOutPools"}
        for task, records in (self.pools or {}).items():
            pools[task] = hashlib.sha256("\n".join(record.id for record in records).encode()).hexdigest()[:16]
        return arguments(self) | {
            "pools": None if self.pools is None else pools,
            "lm_eval": version("lm-eval"),
            "heldout": hashlib.sha256(HELDOUT.read_bytes()).hexdigest()[:16],
            "mirror": None if self.mirror is None else self._mirror_digest,
            "definitions": self._definitions,
        }

    @cached_property
    def _definitions(self) -> str | None:
        """Hash of the folders of our own tasks that define one of the suite's, 16 hex digits; None without one."""
        names = {task.task for task in self.tasks if task.task not in self.written}
        names |= {f"nlu_{condition.dataset}" for condition in self.conditions().values()}
        names |= {"embedded_answers"} if self.pools else set()
        total, found = hashlib.sha256(), False
        for folder in sorted(path for path in OWN_TASKS.iterdir() if path.is_dir()):
            files = sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc")
            texts = {path.relative_to(OWN_TASKS).as_posix(): path.read_bytes() for path in files}
            defined = {name.decode() for text in texts.values() for name in _DEFINED.findall(text)}
            if names & defined:
                found = True
                total.update(repr(texts).encode())
        return total.hexdigest()[:16] if found else None

    @cached_property
    def _mirror_digest(self) -> str | None:
        # Which folders a task reads is known from its definition; imported here because lm-eval takes seconds.
        from winnow.evaluation.mirror import mirror_digest

        names = [task.task for task in self.tasks if task.task not in self.written]
        return mirror_digest(Path(self.mirror).expanduser(), names)


def _task_spec(raw: Mapping[str, Any]) -> TaskSpec:
    unknown = set(raw) - {"task", "metrics", "num_fewshot"}
    if unknown or not {"task", "metrics"} <= set(raw):
        raise UserError(
            f"evaluation.tasks: an entry has the keys {sorted(raw)}; expected task, metrics and perhaps num_fewshot."
        )
    if isinstance(raw["metrics"], str):
        raise UserError(f"evaluation.tasks: the metrics of {raw['task']} are a list: [{raw['metrics']}].")
    return TaskSpec(str(raw["task"]), tuple(raw["metrics"]), raw.get("num_fewshot"))
