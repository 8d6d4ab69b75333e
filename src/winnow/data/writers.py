"""Subsets of a pool in the schema and format they came in, and the rows that were refused.

A file appears under its name only when it is complete: it is written beside it and then renamed.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from winnow.data.formats import json_columns, through_json
from winnow.data.records import Pool, Record
from winnow.errors import UserError
from winnow.store.files import replacing

QUARANTINE_FILE = "quarantine.jsonl"


def write_subset(pool: Pool, rows: Sequence[int], folder: str | Path) -> Path:
    """Writes `pool.records[i]` for each i of `rows`, in that order, to `folder/subset.<format>`: the path.

    Each record is its original row, with all of its columns (with data.turns=every cut after its answer). CSV keeps
    the header, Parquet the column types, a JSON object its other keys; a hub pool becomes JSON Lines. Raises UserError
    for an empty `rows` or a folder that cannot be written, IndexError for an index that is none of the pool's.
    """
    if not rows:
        raise UserError(f"No record of {pool.source} is selected, so there is no subset to write.")
    outside = [row for row in rows if not 0 <= row < len(pool.records)]
    if outside:
        raise IndexError(f"row {outside[0]} is outside the pool's {len(pool.records)} records")
    format = "jsonl" if pool.format == "hub" else pool.format
    path = Path(folder) / f"subset.{format}"
    chosen = [pool.records[row] for row in rows]
    with replacing(path) as partial, partial.open("wb") as file:
        _WRITERS[format](file, chosen, pool.layout)
    return path


def write_quarantine(pool: Pool, folder: str | Path) -> Path | None:
    """Writes the refused rows (file, line, row, reason, raw) to `folder/quarantine.jsonl`: the path.

    Without any, the result is None, and a file that an earlier run left there is removed. Raises UserError
    for a folder that cannot be written.
    """
    path = Path(folder) / QUARANTINE_FILE
    if not pool.quarantined:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise UserError(f"{path}, of an earlier run, cannot be removed: {error.strerror}.") from None
        return None
    with replacing(path) as partial, partial.open("wb") as file:
        for bad in pool.quarantined:
            file.write(_json_bytes(vars(bad)) + b"\n")
    return path


def _json_bytes(value: Any, indent: int | None = None) -> bytes:
    """JSON in UTF-8. Half a surrogate pair, which UTF-8 cannot encode, is escaped; JSON reads that back.

    Values that JSON does not know (dates, bytes of a Parquet or hub row) are written as their text, and numbers that it
    does not know (NaN, infinity) as null.
    """

    def text(content: Any) -> str:
        return json.dumps(content, ensure_ascii=False, indent=indent, default=str, allow_nan=False)

    try:
        written = text(value)
    except ValueError:
        written = text(_finite(value))
    return written.encode("utf-8", "backslashreplace")


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _write_jsonl(file: BinaryIO, records: list[Record], layout: None) -> None:
    for record in records:
        file.write(_json_bytes(record.raw) + b"\n")


def _write_json(file: BinaryIO, records: list[Record], layout: dict[str, Any] | None) -> None:
    rows = [record.raw for record in records]
    document = rows if layout is None else {**layout, "data": rows}
    file.write(_json_bytes(document, indent=2) + b"\n")


def _gzipped(write: Callable[..., None]) -> Callable[..., None]:
    def zipped(file: BinaryIO, records: list[Record], layout: Any) -> None:
        # No name and no time in the header: equal subsets are equal files.
        with gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as compressed:
            write(compressed, records, layout)

    return zipped


def _write_csv(file: BinaryIO, records: list[Record], layout: tuple[str, ...], delimiter: str = ",") -> None:
    text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
    # RFC 4180's line end: cells with \r or \n are then quoted.
    writer = csv.writer(text, lineterminator="\r\n", delimiter=delimiter)
    writer.writerow(layout)
    writer.writerows([record.raw[column] for column in layout] for record in records)
    text.detach()


def _write_parquet(file: BinaryIO, records: list[Record], layout: Any) -> None:
    import pyarrow.parquet

    # Rows are taken from the source's own table: no type is guessed anew from Python values.
    if isinstance(layout, pyarrow.Table):
        rows = layout.take([record.row for record in records])
    else:  # rows that were cut are in no table
        of_json = json_columns(layout)
        cut = [{**one.raw, **{k: through_json(one.raw[k], of_json[k], json.dumps) for k in of_json}} for one in records]
        stored = pyarrow.schema([field.with_type(_stored(field.type)) for field in layout])
        rows = pyarrow.Table.from_pylist(cut, schema=stored).cast(layout)
    pyarrow.parquet.write_table(rows, file)


def _stored(type: Any) -> Any:
    """The Arrow type with texts in place of arrow.json, for which Arrow takes no nested Python values."""
    import pyarrow

    if isinstance(type, pyarrow.JsonType):
        return type.storage_type
    if isinstance(type, pyarrow.StructType):
        return pyarrow.struct([field.with_type(_stored(field.type)) for field in type])
    if isinstance(type, (pyarrow.ListType, pyarrow.LargeListType)):
        of = pyarrow.list_ if isinstance(type, pyarrow.ListType) else pyarrow.large_list
        return of(type.value_field.with_type(_stored(type.value_type)))
    return type


_WRITERS: dict[str, Callable[..., None]] = {
    "json": _write_json,
    "json.gz": _gzipped(_write_json),
    "jsonl": _write_jsonl,
    "jsonl.gz": _gzipped(_write_jsonl),
    "ndjson": _write_jsonl,
    "csv": _write_csv,
    "tsv": partial(_write_csv, delimiter="\t"),
    "parquet": _write_parquet,
}
