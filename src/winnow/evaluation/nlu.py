"""NLU tasks: records, conditions, and micro-F1 over the answers.

    P = TP / (TP + FP),  R = TP / (TP + FN),  micro-F1 = 2 P R / (P + R) = 2 TP / (2 TP + FP + FN)

with TP, FP and FN counted over the whole set, never a mean of F1 per sample. A sample's gold and answered items are
sets (`winnow.data.nlu.answers`), so a repeated item counts once. An item is right if its type and all of its words are
right; a wrong type or a part of the words is one FP and one FN. A sample without gold items adds FP only. For classes
every answer counts as one guess, readable or not, so that micro-F1 is the accuracy.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from winnow import draws
from winnow.data.nlu.datasets import DATASETS
from winnow.data.nlu.instructions import INSTRUCTIONS, STYLES
from winnow.data.nlu.reading import SPLITS, nlu_file, read_nlu
from winnow.data.records import Record
from winnow.errors import UserError
from winnow.perturb.noising import Noising, noising_class
from winnow.scoring.protocols import check_kind
from winnow.store.describe import Free, Identified, arguments

HUB_NAME = "winnow/nlu"  # the name of the data in the NLU tasks' YAMLs
CLEAN = "clean"

Counts = tuple[int, int, int]  # TP, FP, FN of one sample


@dataclass(frozen=True)
class Condition:
    """One data set under one noise (see `noising_class`). noise: None for the clean instruction. omega: None for a
    noise without it."""

    dataset: str
    noise: str | None = None
    omega: float | None = None

    @property
    def label(self) -> str:
        """`clean`, `opposite`, or `replacement@0.3`."""
        if self.noise is None:
            return CLEAN
        name = noising_class(self.noise).name
        return name if self.omega is None else f"{name}@{self.omega:g}"


@dataclass(frozen=True)
class NluData(Identified):
    """The data sets and conditions of the NLU tasks.

    datasets: keys of `DATASETS`. path: a folder with the files of one data set, or with a folder for each. paths,
    sources: data set -> a path, a hub name of its own. style, split, limit, seed: see `read_nlu`. noises, omegas: the
    noised conditions besides the clean one; every instruction is noised (phi = 1), by (noise_seed, record id). draws:
    None, each record has its own noised instruction; k, the records of a data set share k of them, so that the model
    reads each once for many records. Raises UserError for settings out of range.
    """

    datasets: Sequence[str]
    path: Free[str | None] = None
    paths: Free[Mapping[str, str]] = field(default_factory=dict)
    sources: Free[Mapping[str, str]] = field(default_factory=dict)
    style: str = "detailed"
    split: str = "test"
    limit: int | None = None
    seed: int = 0
    noises: Sequence[str] = ()
    omegas: Sequence[float] = ()
    noise_seed: int = 0
    draws: int | None = None

    def __post_init__(self) -> None:
        for key, found, known in (
            ("datasets", self.datasets, DATASETS),
            ("paths", self.paths, DATASETS),
            ("sources", self.sources, DATASETS),
            ("style", [self.style], STYLES),
            ("split", [self.split], SPLITS),
        ):
            for value in found:
                if value not in known:
                    raise UserError(
                        f"evaluation.{key} names {value!r}, which is unknown: choose from {', '.join(known)}."
                    )
        if not self.datasets:
            raise UserError("evaluation.datasets is empty: name at least one data set.")
        if self.draws is not None and self.draws < 1:
            raise UserError(f"evaluation.draws={self.draws} must be 1 or more, or null for one draw per record.")
        if self.noises and not self.omegas and any(noising_class(name).uses_omega for name in self.noises):
            raise UserError("evaluation.omegas is empty: name the shares of noised words, for instance [0.1,0.3,0.5].")
        for omega in self.omegas:
            self._noising("replacement", omega)  # raises for a value out of range
        named: dict[str, str] = {}
        for path in self.noises:
            noising = self._noising(path, next(iter(self.omegas), None))
            check_kind("evaluation.noises", noising, Noising, "change")
            if (other := named.setdefault(noising.name, path)) != path:
                raise UserError(
                    f"evaluation.noises: {other} and {path} are both called {noising.name}, as their metrics would be; "
                    f"give one class another `name`."
                )

    def _noising(self, path: str, omega: float | None) -> Noising:
        try:  # where omega plays no part there is none, and any will do
            return noising_class(path)(omega=1.0 if omega is None else omega, phi=1.0, seed=self.noise_seed)
        except TypeError as error:
            raise UserError(
                f"evaluation.noises: {path} is made from omega, phi and seed alone, which fails ({error}); give its "
                f"other arguments a default."
            ) from None

    def conditions(self) -> dict[str, Condition]:
        """Task name -> condition: `sst2` alone without noises; with them `sst2/clean`, `sst2/replacement@0.3`, ..."""
        ways: list[tuple[str | None, float | None]] = [(None, None)]
        for noise in self.noises:
            omegas = self.omegas if noising_class(noise).uses_omega else [None]
            ways += [(noise, omega) for omega in omegas]
        found = [Condition(dataset, *way) for dataset in self.datasets for way in ways]
        return {f"{one.dataset}/{one.label}" if self.noises else one.dataset: one for one in found}

    def records(self, dataset: str) -> list[Record]:
        """The clean test records of a data set, of `split_of` it."""
        place = self._place(dataset)
        source = self.sources.get(dataset)
        if place is None and source is None and DATASETS[dataset].hub is None:
            raise UserError(
                f"evaluation.datasets names {dataset}, but nothing says where its data is: give data.path=<folder>, "
                f"evaluation.path=<folder> or evaluation.sources.{dataset}=<hub name>."
            )
        return read_nlu(
            dataset,
            source,
            place,
            self.style,
            self.split_of(dataset),
            self.limit,
            self.seed,
            on_error="quarantine",
            duplicates="drop",
            swapped=None,
        ).records

    def split_of(self, dataset: str) -> str:
        """The split that is read: the validation split in place of a test split whose labels the hub hides (SST-2)."""
        known = DATASETS[dataset]
        hub = self._place(dataset) is None and self.sources.get(dataset) in (None, known.hub)
        return known.hub_test if hub and self.split == "test" else self.split

    def noised(self, records: Sequence[Record], condition: Condition) -> list[Record]:
        """The records under a condition. Ids stay; an instruction that the noise cannot change stays too."""
        if condition.noise is None:
            return list(records)
        noising = self._noising(condition.noise, condition.omega)
        if self.draws is None:
            return noising.apply(records)
        keyed = [replace(record, id=f"draw {draws.key(self.noise_seed, record.id) % self.draws}") for record in records]
        noised = noising.apply(keyed)
        return [replace(one, instruction=new.instruction) for one, new in zip(records, noised, strict=True)]

    @property
    def identity(self) -> dict[str, Any]:
        """Local files count by content, not by place; noises by their class."""
        return arguments(self) | {
            "data": {name: self._identity(name) for name in self.datasets},
            "noises": [noising_class(name) for name in self.noises],
            "texts": {name: _texts(name, self.style) for name in self.datasets},
        }

    def _place(self, dataset: str) -> str | None:
        if dataset not in self.paths and self.path is not None and Path(self.path).expanduser().is_file():
            raise UserError(
                f"evaluation.path={self.path} is a single file, perhaps the one that is tuned on: name a folder with "
                f"a file for each split, or the file to evaluate with evaluation.paths.{dataset}=<file>."
            )
        return self.paths.get(dataset, self.path)

    def _identity(self, dataset: str) -> str:
        place = self._place(dataset)
        if place is None:
            return f"hub: {self.sources.get(dataset) or DATASETS[dataset].hub}, {self.split_of(dataset)}"
        return hashlib.sha256(nlu_file(dataset, place, self.split).read_bytes()).hexdigest()[:16]


def _texts(dataset: str, style: str) -> str:
    """Hash of the words of a data set, 16 hex digits: its instructions, question and types."""
    known = DATASETS[dataset]
    words = (INSTRUCTIONS[dataset][style], known.question, known.form, known.entities, known.pairs, known.spelling)
    return hashlib.sha256(repr(words).encode()).hexdigest()[:16]


def documents(condition: Condition, records: Sequence[Record], template, tokenizer) -> list[dict[str, str]]:
    """The harness's documents: id, dataset, prompt (rendered by the run's template), instruction, target."""
    return [
        {
            "id": record.id,
            "dataset": condition.dataset,
            "prompt": template.render(record, tokenizer),
            "instruction": record.instruction,
            "target": record.output,
        }
        for record in records
    ]


def prompt_ids(records: Sequence[Record], template, tokenizer) -> list[list[int]]:
    """Token ids of each record's prompt by the template, without a window; the answer plays no part.

    Raises UserError for a record that the chat template or the tokenizer refuses.
    """
    whole = template.alone
    whole.max_length = 1_000_000
    encoded = whole.encode([replace(record, output="?") for record in records], tokenizer)
    refused = next((one for one in encoded if one.flag is not None), None)
    if refused is not None:
        raise UserError(f"Record {refused.id} cannot be asked ({refused.flag}); choose another template.")
    return [one.ids[: one.answer_start] for one in encoded]


def results(doc: Mapping[str, Any], responses: Sequence[str]) -> dict[str, Any]:
    """The counts of one sample: micro_f1 and, where a data set has both, entity_f1 and relation_f1, each (TP, FP, FN);
    unreadable, 1 where the answer has text but no item."""
    dataset = DATASETS[doc["dataset"]]
    gold, answer = dataset.answer(doc["target"]).items, dataset.answer(responses[0])
    found: dict[str, Any] = {"unreadable": int(answer.unreadable)}
    if dataset.kind == "classification":
        hits = len(gold & answer.items)
        return found | {"micro_f1": (hits, 1 - hits, 1 - hits)}
    found["micro_f1"] = _counts(gold, answer.items)
    if dataset.entities and dataset.pairs:
        for metric, sizes in (("entity_f1", (2,)), ("relation_f1", (3,))):
            found[metric] = _counts(*({item for item in some if len(item) in sizes} for some in (gold, answer.items)))
    return found


def _counts(gold: set | frozenset, answered: set | frozenset) -> Counts:
    return len(gold & answered), len(answered - gold), len(gold - answered)


def micro_f1(counts: Sequence[Counts]) -> float:
    """2 TP / (2 TP + FP + FN) of the sums over all samples; 0 if all counts are 0, as in the shared tasks' scorer."""
    tp, fp, fn = (sum(column) for column in zip(*counts, strict=True))
    return 2 * tp / (2 * tp + fp + fn) if tp + fp + fn else 0.0
