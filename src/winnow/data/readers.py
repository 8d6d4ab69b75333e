"""From a file or a hub name to a pool of records: `read_pool`."""

from __future__ import annotations

import itertools
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from winnow.data.formats import FORMATS, SourceRow, Table, file_format, read_table
from winnow.data.records import Pool, Quarantined, Record, pool_fingerprint, record_id
from winnow.data.schemas import (
    SCHEMAS,
    BadRow,
    Row,
    Schema,
    column_schema,
    detect_schema,
    known_schemas,
    read_fields,
    unknown_schema,
)
from winnow.errors import UserError

__all__ = ["Pool", "Quarantined", "Record", "read_pool"]

EMBEDDED = Path(__file__).with_name("embedded") / "pool.jsonl"
ON_ERROR = ("quarantine", "fail")
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_DETECTION_ROWS = 20  # rows of a known schema that settle the schema
_DETECTION_LIMIT = 1000  # objects looked at for them


def read_pool(
    source: str | Path | None,
    path: str | Path | None = None,
    schema: str = "auto",
    split: str = "train",
    limit: int | None = None,
    on_error: str = "quarantine",
    columns: Mapping[str, str] | None = None,
) -> Pool:
    """The pool of a source.

    source: a file, `owner/name` on the Hugging Face hub, or `embedded`, the pool that comes with the package.
    path: a file that is read in place of the source, which then only names the pool.
    schema: a key of `SCHEMAS`, or auto: recognised from the first rows. split: of a hub data set (files have
    none). limit: at most so many records, the first good ones; rows after the last of them are not looked at.
    on_error: what becomes of a row that is no record: quarantine (kept in `Pool.quarantined`) or fail.
    columns: record field (instruction, output, perhaps input) to column name, in place of a schema.

    Records with the same texts have the same id; they are kept and counted in `Pool.duplicates`.
    Raises UserError for settings out of range, a source that cannot be read, an unknown or mixed schema, a
    source without one good row, and with on_error=fail for the first bad row.
    """
    _check_settings(source, path, schema, limit, on_error, columns)
    name, format, table = _open_source(str(source or ""), path, split)
    place = str(path) if path is not None else name
    rows = iter(table.rows)
    if columns is not None:
        chosen, rows = _by_columns(columns, rows, place)
    elif schema != "auto":
        chosen = SCHEMAS[schema]
    else:
        schema, rows = _detect(rows, place)
        chosen = SCHEMAS[schema]
    records, quarantined = _records(rows, chosen, name, place, limit, on_error)
    if not records:
        if not quarantined:
            raise UserError(f"{place} holds no record: there is no row in it.")
        raise UserError(
            f"{place} holds no readable record: all {len(quarantined)} rows are bad, the first one "
            f"({_where(quarantined[0])}): {quarantined[0].reason}."
        )
    ids = [record.id for record in records]
    return Pool(
        records=records,
        schema="columns" if columns is not None else schema,
        format=format,
        source=name,
        quarantined=quarantined,
        duplicates=len(ids) - len(set(ids)),
        fingerprint=pool_fingerprint(ids),
        layout=table.layout,
    )


def _check_settings(
    source: Any, path: Any, schema: str, limit: Any, on_error: str, columns: Mapping[str, str] | None
) -> None:
    if not source and path is None:
        raise UserError("No data is named: give data.path=<file>, or data.source=<file or hub name>.")
    if schema != "auto" and schema not in SCHEMAS:
        raise UserError(f"data.schema={schema} is unknown; choose auto or one of {known_schemas()}.")
    if schema != "auto" and columns is not None:
        raise UserError(f"data.schema={schema} and data.columns exclude each other: leave data.schema=auto.")
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit <= 0):
        raise UserError(f"data.limit={limit} is out of range: give a whole number above 0, or null for all.")
    if on_error not in ON_ERROR:
        raise UserError(f"data.on_error={on_error} is unknown; choose one of {', '.join(ON_ERROR)}.")


def _open_source(source: str, path: str | Path | None, split: str) -> tuple[str, str, Table]:
    """The pool's name, its format and its rows."""
    if path is None and source == "embedded":
        return source, "jsonl", read_table(EMBEDDED, "jsonl")
    if path is None and _is_hub_name(source):
        return source, "hub", Table(_hub_rows(source, split))
    file = Path(path if path is not None else source).expanduser()
    if not file.exists():
        raise UserError(f"{file} does not exist: give a data file with data.path=<file>.")
    if file.is_dir():
        raise UserError(f"{file} is a folder: give a data file in it with data.path=<file>.")
    format = file_format(file)
    return source or str(path), format, read_table(file, format)


def _is_hub_name(source: str) -> bool:
    """Whether a source means the hub: `owner/name`, no existing path, and no ending of a data file."""
    known_ending = source.lower().endswith(tuple("." + format for format in FORMATS))
    return bool(_HUB_NAME.fullmatch(source)) and not known_ending and not Path(source).exists()


def _hub_rows(name: str, split: str) -> Iterator[SourceRow]:
    for number, row in enumerate(load_from_hub(name, split)):
        yield SourceRow(number, None, row)


def load_from_hub(name: str, split: str) -> Iterable[Mapping[str, Any]]:
    import datasets  # not at the top: it takes seconds to import, and files do not need it

    # Five warnings of a retry, a paragraph each, would bury the one sentence that says what to do.
    retries = logging.getLogger("huggingface_hub.utils._http")
    level = retries.level
    retries.setLevel(logging.ERROR)
    try:
        try:
            return datasets.load_dataset(name, split=split)
        except RuntimeError as error:
            if "scripts are no longer supported" not in str(error):
                raise
        # Some older data sets are a loading script, which is code; the hub keeps a Parquet copy of those.
        return datasets.load_dataset(name, split=split, revision="refs/convert/parquet")
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(
            f"{name} (split {split}) is no local file and could not be had from the Hugging Face hub "
            f"({lines[0].rstrip('.')}): check the name, the split, the network and, for a gated data set, "
            "`hf auth login`, or pass a local copy with data.path=<file>."
        ) from None
    finally:
        retries.setLevel(level)


def _first_objects(
    rows: Iterator[SourceRow], good: Callable[[Row], bool]
) -> tuple[list[tuple[int, Row]], Iterator[SourceRow]]:
    """The first rows that are objects, until enough are good, with their numbers; and all rows."""
    head: list[SourceRow] = []
    objects: list[tuple[int, Row]] = []
    hits = 0
    for row in rows:
        head.append(row)
        if row.problem is None and isinstance(row.value, Mapping):
            objects.append((row.number, row.value))
            hits += good(row.value)
        if hits == _DETECTION_ROWS or len(objects) == _DETECTION_LIMIT:
            break
    return objects, itertools.chain(head, rows)


def _detect(rows: Iterator[SourceRow], place: str) -> tuple[str, Iterator[SourceRow]]:
    """The schema's name and all rows. Where no row is an object, any schema does: it refuses each row."""
    objects, rows = _first_objects(rows, lambda row: any(schema.matches(row) for schema in SCHEMAS.values()))
    found = detect_schema(objects, place) if objects else next(iter(SCHEMAS))
    if found is None:
        raise unknown_schema(objects, place)
    return found, rows


def _by_columns(
    columns: Mapping[str, str], rows: Iterator[SourceRow], place: str
) -> tuple[Schema, Iterator[SourceRow]]:
    schema = column_schema(columns)
    objects, rows = _first_objects(rows, schema.matches)
    found = {str(key): None for _, row in objects for key in row}
    for field, column in columns.items():
        if objects and column not in found:
            raise UserError(
                f"{place}: data.columns maps {field} to `{column}`, but the columns are {', '.join(found) or 'none'}."
            )
    return schema, rows


def _records(
    rows: Iterator[SourceRow], schema: Schema, name: str, place: str, limit: int | None, on_error: str
) -> tuple[list[Record], list[Quarantined]]:
    records: list[Record] = []
    quarantined: list[Quarantined] = []
    for number, line, value, problem in rows:
        try:
            if problem is not None:
                raise BadRow(problem)
            fields = read_fields(schema, value)
        except BadRow as error:
            bad = Quarantined(place, line, number, str(error), value)
            if on_error == "fail":
                raise UserError(
                    f"{place}, {_where(bad)}: {bad.reason}; mend the row, or set data.on_error=quarantine to "
                    "go on without it."
                ) from None
            quarantined.append(bad)
            continue
        records.append(Record(record_id(*fields), number, *fields, name, value))
        if len(records) == limit:
            break
    return records, quarantined


def _where(bad: Quarantined) -> str:
    return f"row {bad.row}" if bad.line is None else f"line {bad.line}"
