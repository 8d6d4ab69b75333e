"""The sampled answers as a file to read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from winnow.data.records import Record
from winnow.scoring.runner import PassTable
from winnow.store.files import replacing

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("row", pa.int64()),
        ("instruction", pa.string()),
        ("input", pa.string()),
        ("draw", pa.int32()),
        ("answer", pa.string()),
        ("tokens", pa.int32()),
        ("finish", pa.string()),
        ("usable", pa.bool_()),
        ("same_as", pa.int32()),
    ]
)


def write_answers(folder: Path, table: PassTable, records: Sequence[Record], answers: int) -> Path:
    """Write `answers.parquet`, one row per record and answer, in the order of the records.

    Columns: `id`, `row`, `instruction` and `input` of the record; `draw`, the answer's number from 0; `answer`, its
    text; `tokens`, without the end token; `finish`, `eos` or `length` (cut at the limit); `usable`, false for an empty
    one and for one whose vector is not finite; `same_as`, the first draw with the same text, null for a text not seen
    before. A record that could not be answered has no row. answers: K, how many of the sampled ones count.
    """
    rows = []
    names = ("answers", "tokens", "finish", "usable")
    for record, texts, tokens, finish, usable in zip(
        records, *(table.column(name).to_pylist() for name in names), strict=True
    ):
        first: dict[str, int] = {}
        for draw, text in enumerate(texts[:answers]):
            same = first.setdefault(text, draw)
            row = (
                *(record.id, record.row, record.instruction, record.input, draw, text),
                *(tokens[draw], finish[draw], usable[draw], None if same == draw else same),
            )
            rows.append(dict(zip(SCHEMA.names, row, strict=True)))
    path = folder / "answers.parquet"
    with replacing(path) as partial:
        pq.write_table(pa.Table.from_pylist(rows, SCHEMA), partial)
    return path
