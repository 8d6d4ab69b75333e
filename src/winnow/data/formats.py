"""Rows out of files: JSON, JSON Lines, CSV, TSV and Parquet, with the line that each row stands on.

A row that cannot be parsed is handed on with its problem; only what breaks the whole file raises UserError.
Everything is UTF-8 (a byte order mark is accepted). JSON Lines are split at the line feed only: texts may
hold U+2028 or U+0085, at which `str.splitlines` also breaks. Blank lines of JSON Lines and CSV are no rows.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import json
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TextIO

from winnow.errors import UserError

_NAME_IT_JSONL = "; a file with one JSON value a line must end in .jsonl"
_NAME_IT_JSON = "a JSON array must end in .json (a file of one JSON value a line in .jsonl)"
# First bytes of what has another ending, and what to do about it.
_SIGNATURES = (
    (b"\x1f\x8b", "holds gzip data: its name must end in .json.gz or .jsonl.gz, or it must be unpacked"),
    (b"PAR1", "holds Parquet data: its name must end in .parquet"),
    (b"PK\x03\x04", "holds a zip archive: unpack it"),
    (b"(\xb5/\xfd", "holds zstd data: unpack it"),
    (b"BZh", "holds bzip2 data: unpack it"),
    (b"\xfd7zXZ", "holds xz data: unpack it"),
    (b"version https://git-lfs", "is a pointer of Git LFS, not the data: get the file with `git lfs pull`"),
    (b"<!DOCTYPE", "is a web page: download the data file itself"),
    (b"<html", "is a web page: download the data file itself"),
    (codecs.BOM_UTF16_LE, "is UTF-16: convert it to UTF-8"),
    (codecs.BOM_UTF16_BE, "is UTF-16: convert it to UTF-8"),
)
_SPACE = re.compile(r"[ \t\n\r]*")
_LONGEST_CELL = 2**31 - 1  # csv's own limit is 131,072 characters; this is the most that any C long holds


class SourceRow(NamedTuple):
    """number: 0-based, broken rows count. line: 1-based or None. problem: why value is not a row, or None."""

    number: int
    line: int | None
    value: Any
    problem: str | None = None


class Table(NamedTuple):
    """rows: in the source's order, read on demand where the format allows. layout: see `Pool.layout`."""

    rows: Iterator[SourceRow]
    layout: Any = None


def file_format(path: Path) -> str:
    """The key of `FORMATS` that the file name ends with; raises UserError for an unknown ending."""
    name = path.name.lower()
    for known in FORMATS:
        if name.endswith("." + known):
            return known
    known_endings = ", ".join("." + known for known in FORMATS)
    raise UserError(f"{path}: the ending `{path.suffix or 'none'}` is unknown; known are {known_endings}.")


def read_table(path: Path, format: str) -> Table:
    """The rows of a file; raises UserError, at once or while reading, for a file that is empty or broken."""
    try:
        if path.stat().st_size == 0:
            raise UserError(f"{path} is empty (0 bytes).")
        _check_start(path, format)
        table = FORMATS[format](path)
    except _UNREADABLE as error:
        raise _unreadable(path, error) from None
    return Table(_guarded(path, table.rows), table.layout)


def _check_start(path: Path, format: str) -> None:
    """Raises UserError for a file that begins like one of another kind. Text without a byte order mark whose first or
    second byte is 0 is UTF-16 too: no text of the formats read begins so."""
    with _open(path) as file:
        start = file.read(24)
    if format == "parquet" and start.startswith(b"PAR1"):
        return
    for signature, complaint in _SIGNATURES:
        if start.startswith(signature):
            raise UserError(f"{path} {complaint}.")
    if 0 in start[:2] and format != "parquet":
        raise UserError(f"{path} is UTF-16 or no text: convert it to UTF-8.")


# zlib.error and EOFError: a damaged and a cut-off gzip file; the rest of gzip's complaints are OSErrors.
_UNREADABLE = (OSError, EOFError, zlib.error)


def _unreadable(path: Path, error: Exception) -> UserError:
    if isinstance(error, OSError) and error.strerror:
        return UserError(f"{path} cannot be read: {error.strerror}.")
    return UserError(f"{path} cannot be read, the gzip data is damaged or cut off ({error}).")


def _guarded(path: Path, rows: Iterator[SourceRow]) -> Iterator[SourceRow]:
    try:
        yield from rows
    except _UNREADABLE as error:
        raise _unreadable(path, error) from None


def _open(path: Path) -> BinaryIO:
    return gzip.open(path, "rb") if path.name.lower().endswith(".gz") else path.open("rb")


def _json_lines(path: Path) -> Table:
    with _open(path) as file:
        lines = (line.removeprefix(codecs.BOM_UTF8).strip() for line in file)
        first = next(filter(None, lines), b"")
        if re.match(rb"\[\s*(\{|$)", first) and (not _is_json(first) or not any(lines)):
            raise UserError(f"{path} begins with `[`: {_NAME_IT_JSON}.")
        if first == b"{":
            raise UserError(f"{path} holds JSON over several lines: write each record on one line (`jq -c .` does).")
    return Table(_json_line_rows(path))


def _is_json(content: bytes) -> bool:
    try:
        json.loads(content)
    except (ValueError, RecursionError):
        return False
    return True


def _json_line_rows(path: Path) -> Iterator[SourceRow]:
    number = 0
    with _open(path) as file:
        for line, content in enumerate(file, 1):
            if line == 1:
                content = content.removeprefix(codecs.BOM_UTF8)
            if not content.strip():
                continue
            value, problem = None, None
            try:
                value = json.loads(content.decode("utf-8"))
            except UnicodeDecodeError as error:
                problem = f"not UTF-8: byte 0x{content[error.start]:02x} at byte offset {error.start} of the line"
            except json.JSONDecodeError as error:
                problem = f"wrong JSON at column {error.colno}: {error.msg}"
            except (ValueError, RecursionError) as error:  # a number of over 4,300 digits; nesting too deep
                problem = f"JSON that cannot be read: {error}"
            if problem is not None:
                value = content.rstrip(b"\r\n").decode("utf-8", errors="backslashreplace")
            yield SourceRow(number, line, value, problem)
            number += 1


def _json(path: Path) -> Table:
    with _open(path) as file:
        content = file.read()
    try:
        text = content.removeprefix(codecs.BOM_UTF8).decode("utf-8")
    except UnicodeDecodeError as error:
        offset = error.start + len(content) - len(error.object)
        line = content.count(b"\n", 0, offset) + 1
        raise UserError(
            f"{path} is not UTF-8: byte 0x{content[offset]:02x} at byte offset {offset} (line {line}); "
            "convert the file to UTF-8."
        ) from None
    try:
        start = _SPACE.match(text).end()
        if text[start : start + 1] == "[":
            return Table(iter(_array(text, start)))
        document = json.loads(text)
    except json.JSONDecodeError as error:
        hint = _NAME_IT_JSONL if error.msg == "Extra data" else ""
        place = f"line {error.lineno}, column {error.colno}"
        raise UserError(f"{path}: wrong JSON at {place}: {error.msg}{hint}.") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: JSON that cannot be read: {error}.") from None
    if isinstance(document, dict) and isinstance(document.get("data"), list):
        rows = (SourceRow(number, None, value) for number, value in enumerate(document["data"]))
        return Table(rows, {**document, "data": []})
    found, hint = f"a single value of type {type(document).__name__}", ""
    if isinstance(document, dict):
        found, hint = f"an object with the keys {', '.join(list(document)[:20]) or 'none'}", _NAME_IT_JSONL
    expected = "an array of records, or an object with the array `data`"
    raise UserError(f"{path} holds {found}; expected {expected}{hint}.")


def _array(text: str, start: int) -> list[SourceRow]:
    """The elements of the JSON array that opens at `start`, each with its line; raises json.JSONDecodeError.

    Element by element, because `json.loads` does not tell where an element stood.
    """
    decode = json.JSONDecoder().raw_decode
    rows: list[SourceRow] = []
    at, line, counted = _SPACE.match(text, start + 1).end(), 1, 0
    closed = text[at : at + 1] == "]"
    while not closed:
        line, counted = line + text.count("\n", counted, at), at
        value, at = decode(text, at)
        rows.append(SourceRow(len(rows), line, value))
        at = _SPACE.match(text, at).end()
        closed = text[at : at + 1] == "]"
        if not closed:
            if text[at : at + 1] != ",":
                raise json.JSONDecodeError("Expecting ',' delimiter or ']'", text, at)
            at = _SPACE.match(text, at + 1).end()
    at = _SPACE.match(text, at + 1).end()
    if at != len(text):
        raise json.JSONDecodeError("Extra data", text, at)
    return rows


def _csv(path: Path, delimiter: str = ",") -> Table:
    with _open_csv(path) as file:
        try:
            header = next(csv.reader(file, strict=True, delimiter=delimiter), [])
        except csv.Error as error:
            raise UserError(f"{path}, line 1: the header is no CSV ({error}).") from None
    if any(map(_undecoded, header)):
        raise UserError(f"{path}, line 1: the header is not UTF-8; convert the file to UTF-8.")
    if not any(header) or len(set(header)) < len(header):
        found = ", ".join(header) or "a blank line"
        raise UserError(f"{path}, line 1: a header of distinct column names was expected, found {found}.")
    if len(header) == 1 and any(other in header[0] for other in ",;\t|"):
        wanted = "tabs" if delimiter == "\t" else "commas"
        raise UserError(f"{path}, line 1: one column `{header[0]}` was found; {wanted} must stand between columns.")
    return Table(_csv_rows(path, header, delimiter), tuple(header))


def _open_csv(path: Path) -> TextIO:
    return path.open(encoding="utf-8-sig", errors="surrogateescape", newline="")


def csv_rows(lines: Iterable[str], delimiter: str = ",") -> Iterator[tuple[int, list[str], str | None]]:
    """(line, cells, None) of each row but blank ones; (line, [], problem) of a stretch that is no row. A quote that is
    not closed takes all lines up to the next quote along: the problem names them."""
    csv.field_size_limit(_LONGEST_CELL)
    reader = csv.reader(lines, strict=True, delimiter=delimiter)
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            last = reader.line_num
            read = f" (lines {line} to {last} were read as one row)" if last > line else ""
            yield line, [], f"wrong CSV: {error}{read}"
            continue
        if cells:
            yield line, cells, None


def _csv_rows(path: Path, header: list[str], delimiter: str) -> Iterator[SourceRow]:
    with _open_csv(path) as file:
        rows = csv_rows(file, delimiter)
        next(rows)
        for number, (line, cells, problem) in enumerate(rows):
            bad = next((i for i, cell in enumerate(cells) if not cell.isascii() and _undecoded(cell)), None)
            if problem is None and len(cells) != len(header):
                problem = f"{len(cells)} cells, the header has {len(header)}"
            elif bad is not None:
                problem = f"not UTF-8 in column `{header[bad]}`"
            if problem is None:
                yield SourceRow(number, line, dict(zip(header, cells, strict=True)))
            else:
                raw = [cell.encode("utf-8", errors="surrogateescape") for cell in cells]
                shown = [cell.decode("utf-8", errors="backslashreplace") for cell in raw]
                yield SourceRow(number, line, shown or None, problem)


def _undecoded(cell: str) -> bool:
    """Whether a cell holds bytes that were no UTF-8: surrogateescape has made them U+DC80 to U+DCFF."""
    return any("\udc80" <= character <= "\udcff" for character in cell)


def _parquet(path: Path) -> Table:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:  # read_table would add columns for folders named a=b
            table = file.read()
    except (pyarrow.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise UserError(f"{path} is no readable Parquet file: {reason}.") from None
    return Table(parquet_rows(table), table)


def parquet_rows(table: Any) -> Iterator[SourceRow]:
    """The rows of an Arrow table, with texts of arrow.json decoded."""
    number, of_json = 0, json_columns(table.schema)
    for batch in table.to_batches(max_chunksize=1000):
        try:
            values = [(_decoded(value, of_json), None) for value in batch.to_pylist()]
        except ValueError:
            values = [_parquet_row(batch.slice(i, 1), of_json) for i in range(batch.num_rows)]
        for value, problem in values:
            yield SourceRow(number, None, value, problem)
            number += 1


def _parquet_row(row: Any, of_json: Mapping[str, Any]) -> tuple[Any, str | None]:
    value = None
    try:
        value = row.to_pylist()[0]
        return _decoded(value, of_json), None
    except UnicodeDecodeError as error:
        return None, f"not UTF-8: byte 0x{error.object[error.start]:02x} in a text column"
    except ValueError as error:
        return value, f"wrong JSON in a column of JSON ({', '.join(of_json)}): {error}"


def json_columns(schema: Any) -> dict[str, Any]:
    """The types of the columns that are, or hold, texts of Arrow's type arrow.json."""
    return {field.name: field.type for field in schema if "extension<arrow.json>" in str(field.type)}


def _decoded(row: dict[str, Any], of_json: Mapping[str, Any]) -> dict[str, Any]:
    return {**row, **{name: through_json(row[name], type, json.loads) for name, type in of_json.items()}}


def through_json(value: Any, type: Any, change: Callable[[Any], Any]) -> Any:
    """A value of an Arrow type, with each part that is of arrow.json changed."""
    if value is None or "extension<arrow.json>" not in str(type):
        return value
    if str(type) == "extension<arrow.json>":
        return change(value)
    if isinstance(value, dict):
        return {name: through_json(part, type.field(name).type, change) for name, part in value.items()}
    return [through_json(part, type.value_type, change) for part in value]


# Order matters: the first ending that fits is taken.
FORMATS: dict[str, Callable[[Path], Table]] = {
    "jsonl.gz": _json_lines,
    "json.gz": _json,
    "jsonl": _json_lines,
    "ndjson": _json_lines,
    "json": _json,
    "csv": _csv,
    "tsv": partial(_csv, delimiter="\t"),
    "parquet": _parquet,
}
