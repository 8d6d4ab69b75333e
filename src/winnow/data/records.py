"""The record, the pool that holds records, and the rows that could not become one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from winnow.store.describe import Identified


@dataclass(frozen=True)
class Record:
    """One instruction with its answer.

    id: `record_id` of the texts. row: 0-based position in the source, counting rows that were refused (with
    data.turns=every in the source cut into one row an answer).
    turns: earlier (role, text) pairs, oldest first, role one of system, user, assistant; empty when
    single-turn. source: the file or hub name. raw: the original row, untouched (with data.turns=every cut after the
    answer).
    """

    id: str
    row: int
    instruction: str
    input: str
    output: str
    turns: tuple[tuple[str, str], ...]
    source: str
    raw: Mapping[str, Any]


@dataclass(frozen=True)
class Quarantined:
    """A row that is no record. line: 1-based, None where the format has no lines. row: 0-based."""

    file: str
    line: int | None
    row: int
    reason: str
    raw: Any


@dataclass(frozen=True)
class Pool(Identified):
    """The records of one source, in its order.

    schema: a key of `schemas.SCHEMAS`, or `columns` where data.columns named them. format: json, json.gz,
    jsonl, jsonl.gz, ndjson, csv, tsv, parquet or hub. layout: what else the source's format needs to be written
    again: the CSV header, the Parquet table (its schema, where rows were cut), the JSON object around the array;
    otherwise None. keep_duplicates: whether a selection may hold a record twice. near_threshold: the Jaccard index
    from which two records are near copies (`overlap.near_copies`), None where nobody looks for them. unread: what the
    rows hold and no record does: columns, `column.key` of turns.
    """

    records: list[Record]
    schema: str
    format: str
    source: str
    quarantined: list[Quarantined]
    layout: Any = field(default=None, repr=False, compare=False)
    keep_duplicates: bool = False
    near_threshold: float | None = None
    unread: tuple[str, ...] = ()

    @cached_property
    def duplicates(self) -> int:
        """Records whose id occurred before."""
        return len(self.records) - len({record.id for record in self.records})

    @cached_property
    def fingerprint(self) -> str:
        return pool_fingerprint(record.id for record in self.records)

    @property
    def identity(self) -> dict[str, str]:
        return {"records": self.fingerprint}


def record_id(instruction: str, input: str, output: str, turns: Sequence[tuple[str, str]] = ()) -> str:
    """First 16 hex digits of the SHA-256 of the texts, each kept apart from the next.

    The texts are joined as a JSON array, so that moving a word from one field to the next changes the id.
    """
    content = json.dumps([instruction, input, output, turns], separators=(",", ":"))
    return hashlib.sha256(content.encode("ascii")).hexdigest()[:16]


def pool_fingerprint(ids: Iterable[str]) -> str:
    """First 16 hex digits of the SHA-256 of the unique ids, sorted: order and repeats do not change it."""
    return hashlib.sha256("\n".join(sorted(set(ids))).encode("ascii")).hexdigest()[:16]
