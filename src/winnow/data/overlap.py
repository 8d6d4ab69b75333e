"""Runs of words that records share: with other texts, as the items of a benchmark, and with each other.

A run of 13 words is the usual sign that an item stands in the training data (Brown et al. 2020, appendix C). Two
records are near copies if their sets of runs of 5 words (Lee et al. 2022, arXiv 2107.06499) have a high Jaccard index.

Words are compared in lower case and without punctuation.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from winnow.data.formats import file_format, read_table
from winnow.data.records import Record
from winnow.errors import UserError

WORDS = 13
NEAR_WORDS = 5
REASON = f"shares {WORDS} words in a row with data.exclude"
_CJK = r"\u3400-\u9fff\u3040-\u30ff"  # Chinese, Japanese: written without blanks, so each character is a word
_WORD = re.compile(rf"[^\W{_CJK}]+|\w")
_BASE = np.uint64(0x9E3779B97F4A7C15)  # of the polynomial that hashes a run: odd, so that no word's part is lost
_BATCH = 10_000  # records whose words are in memory at a time


def runs(texts: Iterable[str], length: int, least: int) -> tuple[np.ndarray, np.ndarray]:
    """(runs,) uint64 hash of each run of `length` words, and (runs,) position of its text.

    least: a text of fewer words has no run; one of fewer than `length` is a run. The hashes hold in one process only.
    """
    counts: list[int] = []

    def words() -> Iterator[int]:
        for text in texts:
            found = _WORD.findall(text.lower())
            if least <= len(found) < length:
                found += [""] * (length - len(found))
            counts.append(len(found))
            yield from map(hash, found)

    hashes = np.fromiter(words(), np.int64).astype(np.uint64)
    sizes = np.array(counts, np.int64)
    first = np.flatnonzero(np.arange(len(hashes)) + length <= np.repeat(np.cumsum(sizes), sizes))
    total = np.zeros(len(first), np.uint64)
    for offset in range(length):
        total = total * _BASE + hashes[first + offset]
    return total, np.repeat(np.arange(len(sizes)), sizes)[first]


def sharing(records: Sequence[Record], texts: Iterable[str]) -> set[int]:
    """Rows of the records that share a run of 13 words with one of the texts. Each field of a record, and each turn, is
    compared on its own."""
    known = np.unique(runs(texts, WORDS, WORDS)[0])
    found: set[int] = set()
    for start in range(0, len(records), _BATCH):
        fields = [(one.row, text) for one in records[start : start + _BATCH] for text in _fields(one)]
        own, place = runs((text for _, text in fields), WORDS, WORDS)
        found.update(fields[i][0] for i in np.unique(place[np.isin(own, known)]))
    return found


def excluded(records: Sequence[Record], path: str | Path) -> set[int]:
    """Rows of the records that share a run with a text of the file: with any text in any of its rows.

    Raises UserError for a file that holds no run or a row that cannot be read.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise UserError(f"data.exclude={path} is no file; give one of texts (.json, .jsonl, .csv, .parquet), or null.")
    known: list[str] = []
    for row in read_table(file, file_format(file)).rows:
        if row.problem is not None:
            where = f"row {row.number}" if row.line is None else f"line {row.line}"
            raise UserError(
                f"data.exclude={path}, {where}: {row.problem}; mend it, or its texts would not be excluded."
            )
        known += texts_in(row.value)
    if not any(len(_WORD.findall(text)) >= WORDS for text in known):
        raise UserError(f"data.exclude={path} holds no text of {WORDS} words or more, so it would exclude nothing.")
    return sharing(records, known)


def near_copies(records: Iterable[Record], threshold: float) -> dict[str, int]:
    """Id of each near copy -> row of the first record that it is a near copy of.

    A record is a near copy if an earlier one, no near copy itself, has a Jaccard index of at least `threshold` with it:
    |A and B| / |A or B|, A and B the sets of 5-word runs of each record's texts, joined; a record of fewer words is one
    run. Records of the same id are one. A later answer of a conversation is no near copy of an earlier one, whose words
    it has before it (`data.turns=every`).

    Exact, by the prefix and positional filters of set joins (Xiao et al., WWW 2008): with the runs of all sets in one
    order, the rarest first, two sets of such an index share one of the first |A| - ceil(threshold |A|) + 1 runs of
    each, and the runs from there on are enough for the index. A run that no other record has is shared with none, so a
    set that begins with so many of them is no near copy.
    """
    unique: dict[str, Record] = {}
    for record in records:
        unique.setdefault(record.id, record)
    own = list(unique.values())
    singles, starts, ranks = _shared_runs(own)
    sizes = singles + np.diff(starts)
    prefix = sizes - np.ceil(threshold * sizes - 1e-9).astype(int) + 1 - singles  # the rarest are the single ones
    index: dict[int, dict[tuple[int, int], list[int]]] = {}  # run -> (size of a set, place of the run in it) -> records
    copies: dict[str, int] = {}
    for i in np.flatnonzero((prefix > 0) & (sizes > 0)).tolist():
        mine, size = ranks[starts[i] : starts[i + 1]], int(sizes[i])
        keys = list(enumerate(mine[: prefix[i]].tolist(), int(singles[i])))
        candidates = {
            j
            for place, run in keys
            for (other, its), members in index.get(run, {}).items()
            if _jaccard(min(size - place, other - its), size, other) >= threshold  # no more runs can be in both
            for j in members
        }
        for j in sorted(candidates):
            both = len(np.intersect1d(mine, ranks[starts[j] : starts[j + 1]], assume_unique=True))
            if _jaccard(both, size, int(sizes[j])) >= threshold and not _goes_on(own[i], own[j]):
                copies[own[i].id] = own[j].row
                break
        else:
            for place, run in keys:
                index.setdefault(run, {}).setdefault((size, place), []).append(i)
    return copies


def _goes_on(later: Record, earlier: Record) -> bool:
    """Whether the turns before a record begin with all of another one."""
    n = len(earlier.turns)
    spoken = [text for _, text in later.turns[n : n + 2]]
    return later.turns[:n] == earlier.turns and spoken == [earlier.instruction, earlier.output]


def _shared_runs(records: Sequence[Record]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(records,) number of runs that no other record has, (records + 1,) where the other runs of each record start in
    the last array, and (runs,) these as numbers, the rarest of all records lowest, in order."""
    parts = []
    for start in range(0, len(records), _BATCH):
        texts = (" ".join(_fields(one)) for one in records[start : start + _BATCH])
        parts.append(runs(texts, NEAR_WORDS, 1))
    ordered = np.concatenate([hashes for hashes, _ in parts])
    ordered.sort()
    common = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    frequency = np.searchsorted(ordered, common, "right") - np.searchsorted(ordered, common)
    del ordered
    rank = np.empty(len(common), np.int64)
    rank[np.argsort(frequency, kind="stable")] = np.arange(len(common))
    singles, sets = np.zeros(len(records), np.int64), []
    for number, (hashes, places) in enumerate(parts):
        found = np.searchsorted(common, hashes)
        shared = np.append(common, np.uint64(0))[found] == hashes
        owners = places + number * _BATCH
        np.add.at(singles, owners[~shared], 1)
        sets.append(np.unique(owners[shared] * len(common) + rank[found[shared]]))
    owners, ranks = np.divmod(np.concatenate(sets), max(1, len(common)))
    return singles, np.searchsorted(owners, np.arange(len(records) + 1)), ranks


def _jaccard(both: int, one: int, other: int) -> float:
    """Of two sets of these sizes, with `both` in both."""
    return both / (one + other - both)


def texts_in(value: Any) -> Iterator[str]:
    """All texts inside a row, or rows."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from texts_in(one)
    elif isinstance(value, Iterable):
        for one in value:
            yield from texts_in(one)


def _fields(record: Record) -> list[str]:
    return [record.instruction, record.input, record.output, *(text for _, text in record.turns)]
