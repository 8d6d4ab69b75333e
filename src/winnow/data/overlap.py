"""Records that share a run of words with other texts, as with the items of a benchmark.

A run of 13 words is the usual sign that an item stands in the training data (Brown et al. 2020, appendix C). Words are
compared in lower case and without punctuation; a text of fewer words has no run.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from winnow.data.formats import file_format, read_table
from winnow.data.records import Record
from winnow.errors import UserError

WORDS = 13
REASON = f"shares {WORDS} words in a row with data.exclude"


def runs(text: str) -> Iterator[int]:
    """A hash of each run of 13 words; the same in one process only."""
    words = re.findall(r"\w+", text.lower())
    return (hash(tuple(words[start : start + WORDS])) for start in range(len(words) - WORDS + 1))


def excluded(records: Iterable[Record], path: str | Path) -> set[int]:
    """Rows of the records that share a run with a text of the file: with any text in any of its rows.

    Each field of a record, and each turn, is a text. Raises UserError for a file that cannot be read or holds no run.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise UserError(f"data.exclude={path} is no file; give one of texts (.json, .jsonl, .csv, .parquet), or null.")
    known = {
        run for row in read_table(file, file_format(file)).rows for text in _texts(row.value) for run in runs(text)
    }
    if not known:
        raise UserError(f"data.exclude={path} holds no text of {WORDS} words or more, so it would exclude nothing.")

    def shares(record: Record) -> bool:
        texts = (record.instruction, record.input, record.output, *(text for _, text in record.turns))
        return any(run in known for text in texts for run in runs(text))

    return {record.row for record in records if shares(record)}


def _texts(value: Any) -> Iterator[str]:
    """All texts inside a row."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _texts(one)
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from _texts(one)
