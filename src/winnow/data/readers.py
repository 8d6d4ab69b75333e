"""From a file or a hub name to a pool of records: `read_pool`."""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from winnow import draws
from winnow.data.formats import FORMATS, SourceRow, Table, file_format, parquet_rows, read_table
from winnow.data.overlap import REASON, excluded, near_copies
from winnow.data.records import Pool, Quarantined, Record, record_id
from winnow.data.schemas import (
    NEEDED_COLUMNS,
    NO_COLUMNS,
    SCHEMAS,
    BadRow,
    Row,
    Schema,
    column_schema,
    detect_schema,
    known_schemas,
    read_fields,
)
from winnow.errors import UserError, check_choice

EMBEDDED = Path(__file__).with_name("embedded") / "pool.jsonl"
ON_ERROR = ("quarantine", "fail")
TURNS = ("last", "every")
DUPLICATES = ("keep", "drop", "fail")
NEAR_DUPLICATES = ("keep", "drop")
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_DETECTION_ROWS = 20  # rows of a known schema that settle the schema
_DETECTION_LIMIT = 1000  # objects looked at for them


def read_pool(
    source: str | Path | None,
    path: str | Path | None,
    schema: str,
    split: str,
    config: str | None,
    limit: int | None,
    on_error: str,
    columns: Mapping[str, str] | None,
    turns: str,
    duplicates: str,
    near_duplicates: str,
    near_threshold: float,
    sample: int | None,
    seed: int,
    exclude: str | Path | None,
) -> Pool:
    """The pool of a source.

    source: a file, `owner/name` on the Hugging Face hub, or `embedded`, the pool that comes with the package.
    path: a file that is read in place of the source, which then only names the pool.
    schema: a key of `SCHEMAS`, or auto: recognised from the first rows. split: of a hub data set (files have
    none). config: its configuration, where it has several. limit: at most so many records, the first good ones; rows
    after the last of them are not looked at.
    on_error: what becomes of a row that is no record: quarantine (kept in `Pool.quarantined`) or fail.
    columns: in place of a schema, see `column_schema`. turns: of a conversation the last assistant turn makes a
    record, or every one that follows a user turn, each with the turns before it. duplicates: records with the same
    texts, which have the same id, are all in the pool and counted in `Pool.duplicates`; keep: a selection may hold
    them all, drop: only the first, fail: there must be none. near_duplicates: near copies of an earlier record, see
    `near_copies`, are in the pool (keep) or quarantined (drop). near_threshold: from which Jaccard index, in (0, 1].
    sample: at most so many of the records that limit leaves, drawn by (seed, record id), in the order of the source; a
    smaller sample is a part of a larger one. exclude: a file of texts, such as the items of a benchmark; a record that
    shares 13 words in a row with one is quarantined.

    Raises UserError for settings out of range, a source that cannot be read, an unknown or mixed schema, a
    source without one good row, with on_error=fail for the first bad row, and with duplicates=fail for a repeat.
    """
    _check_settings(source, path, schema, {"limit": limit, "sample": sample}, on_error, columns)
    check_choice("data.turns", turns, TURNS)
    check_choice("data.duplicates", duplicates, DUPLICATES)
    check_choice("data.near_duplicates", near_duplicates, NEAR_DUPLICATES)
    if not 0 < near_threshold <= 1:
        raise UserError(f"data.near_threshold={near_threshold} is out of range: give a number above 0, at most 1.")
    name, format, table = _open_source(str(source or ""), path, split, config)
    place = str(path) if path is not None else name
    rows = iter(table.rows)
    if columns is not None:
        chosen, rows = _by_columns(columns, rows, place)
    elif schema != "auto":
        chosen = SCHEMAS[schema]
    else:
        schema, rows = _detect(rows, place)
        chosen = SCHEMAS[schema]
    uncut: dict[int, Row] = {}
    if turns == "every":
        rows = _divided(rows, chosen, uncut)

    def read(number: int, value: Any) -> Record:
        fields = read_fields(chosen, value)
        return Record(record_id(*fields), number, *fields, name, value)

    records, quarantined = read_records(rows, read, place, limit, on_error)
    if columns is not None:
        optional = {field: columns[field] for field in columns if field not in (*NEEDED_COLUMNS, *NO_COLUMNS)}
        seen = (one.raw for one in itertools.chain(records, quarantined))
        _check_columns(optional, itertools.chain(seen, (row.value for row in rows)), place)
    unread = tuple(dict.fromkeys(key for one in records for key in chosen.unread(uncut.get(one.row, one.raw))))
    if exclude is not None:
        shared = excluded(records, exclude)
        quarantined += [Quarantined(place, None, one.row, REASON, one.raw) for one in records if one.row in shared]
        records = [record for record in records if record.row not in shared]
        if not records:
            raise UserError(f"{place}: every record {REASON}={exclude}; nothing is left to score.")
    if near_duplicates == "drop":
        copies = near_copies(records, near_threshold)
        quarantined += [
            Quarantined(place, None, one.row, f"near copy of row {copies[one.id]}", one.raw)
            for one in records
            if one.id in copies
        ]
        records = [record for record in records if record.id not in copies]
    if sample is not None:
        first = sorted(records, key=lambda record: (draws.key("sample", seed, record.id), record.row))[:sample]
        records = sorted(first, key=lambda record: record.row)
    check_duplicates(records, place, duplicates)
    return Pool(
        records=records,
        schema="columns" if columns is not None else schema,
        format=format,
        source=name,
        quarantined=quarantined,
        layout=table.layout.schema if format == "parquet" and turns == "every" else table.layout,
        keep_duplicates=duplicates == "keep",
        near_threshold=near_threshold,
        # Those of the packaged pool are labels, which the detection of defects reads.
        unread=() if path is None and source == "embedded" else unread,
    )


def _check_settings(
    source: Any, path: Any, schema: str, sizes: Mapping[str, Any], on_error: str, columns: Mapping[str, str] | None
) -> None:
    if not source and path is None:
        raise UserError("No data is named: give data.path=<file>, or data.source=<file or hub name>.")
    if schema != "auto" and schema not in SCHEMAS:
        raise UserError(f"data.schema={schema} is unknown; choose auto or one of {known_schemas()}.")
    if schema != "auto" and columns is not None:
        raise UserError(f"data.schema={schema} and data.columns exclude each other: leave data.schema=auto.")
    for key, size in sizes.items():
        check_size(key, size)
    check_choice("data.on_error", on_error, ON_ERROR)
    for key, value in (("source", source), ("path", path)):
        if value is not None and not isinstance(value, (str, Path)):
            raise UserError(
                f"data.{key}={value} is no text: put the value into quotes of its own inside those of the shell, "
                f"\"data.{key}='...'\"."
            )


def check_size(key: str, size: Any) -> None:
    """Raises UserError where a setting of data is neither a number of records nor null."""
    if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size <= 0):
        raise UserError(f"data.{key}={size} is out of range: give a whole number above 0, or null for all.")


def check_duplicates(records: list[Record], place: str, duplicates: str) -> None:
    """Raises UserError where data.duplicates=fail and a record repeats an earlier one."""
    first: dict[str, int] = {}
    for record in records if duplicates == "fail" else ():
        if record.id in first:
            raise UserError(
                f"{place}: row {record.row} repeats row {first[record.id]} (rows count from 0); remove one of them, or "
                "set data.duplicates=drop to select the first alone."
            )
        first[record.id] = record.row


def _open_source(source: str, path: str | Path | None, split: str, config: str | None) -> tuple[str, str, Table]:
    """The pool's name, its format and its rows."""
    if path is None and source == "embedded":
        return source, "jsonl", read_table(EMBEDDED, "jsonl")
    if path is None and _is_hub_name(source):
        return source, "hub", Table(_hub_rows(source, split, config))
    file = Path(path if path is not None else source).expanduser()
    if not file.exists():
        null = " (no value is written null)" if str(file) == "None" else ""
        raise UserError(f"{file} does not exist: give a data file with data.path=<file>{null}.")
    if file.is_dir():
        raise UserError(f"{file} is a folder: give a data file in it with data.path=<file>.")
    format = file_format(file)
    return source or str(path), format, read_table(file, format)


def _is_hub_name(source: str) -> bool:
    """Whether a source means the hub: `owner/name`, no existing path, and no ending of a data file."""
    known_ending = source.lower().endswith(tuple("." + format for format in FORMATS))
    return bool(_HUB_NAME.fullmatch(source)) and not known_ending and not Path(source).exists()


def _hub_rows(name: str, split: str, config: str | None) -> Iterator[SourceRow]:
    """Pictures, sound and films, which no record reads, are neither decoded nor kept: their bytes are null."""
    from datasets.features.features import require_decoding

    loaded: Any = load_from_hub(name, split, config)
    encoded = [column for column, feature in loaded.features.items() if require_decoding(feature)]
    if not encoded:
        for number, row in enumerate(loaded):
            yield SourceRow(number, None, row)
        return
    tables = loaded.with_format("arrow").iter(batch_size=100)
    rows = (row for table in tables for row in parquet_rows(table))
    for number, (_, line, value, problem) in enumerate(rows):
        plain = value and {**value, **{column: _without_bytes(value[column]) for column in encoded}}
        yield SourceRow(number, line, plain, problem)


def _without_bytes(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_bytes(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_without_bytes(part) for part in value]
    return None if isinstance(value, bytes) else value


def load_from_hub(name: str, split: str, config: str | None = None) -> Iterable[Mapping[str, Any]]:
    import datasets  # not at the top: it takes seconds to import, and files do not need it
    from huggingface_hub.hf_api import HfApi, RepoFolder

    chosen = {} if config is None else {"name": config}
    try:
        try:
            return datasets.load_dataset(name, split=split, **chosen)
        except (RuntimeError, ValueError) as error:
            # The latter where `datasets` holds some of the copy below, under a name that it does not look for.
            if not re.search("scripts are no longer supported|Couldn't find cache for", str(error)):
                raise
        # Some older data sets are a loading script, which is code; the hub keeps a Parquet copy of those, a folder for
        # each configuration.
        copy = "refs/convert/parquet"
        if config is None:
            tree = HfApi().list_repo_tree(name, repo_type="dataset", revision=copy)
            names = [one.path for one in tree if isinstance(one, RepoFolder)]
            if len(names) > 1:
                raise ValueError(f"Config name is missing.\nPlease pick one among the available configs: {names}")
        folder = {} if config is None else {"data_dir": config}
        return datasets.load_dataset(name, split=split, revision=copy, **folder)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        if "Config name is missing" in lines[0]:
            raise UserError(
                f"{name}: {' '.join(lines[:2])}, with data.config=NAME (NLU data sets: data.path)."
            ) from None
        raise UserError(
            f"{name} (split {split}) is no local file and could not be had from the Hugging Face hub "
            f"({lines[0].rstrip('.')}): check the name, the split, the network and, for a gated data set, "
            "`hf auth login`, or pass a local copy with data.path=<file>."
        ) from None


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
    return detect_schema(objects, place) if objects else next(iter(SCHEMAS)), rows


def _by_columns(
    columns: Mapping[str, str], rows: Iterator[SourceRow], place: str
) -> tuple[Schema, Iterator[SourceRow]]:
    schema = column_schema(columns)
    objects, rows = _first_objects(rows, schema.matches)
    if objects:
        needed = {field: columns[field] for field in columns if field in NEEDED_COLUMNS}
        _check_columns(needed, (row for _, row in objects), place)
    return schema, rows


def _check_columns(columns: Mapping[str, str], rows: Iterable[Any], place: str) -> None:
    """Raises UserError for a column that is in none of the rows; they are read until each column was seen."""
    found: dict[str, None] = {}
    for row in rows:
        found.update(dict.fromkeys(map(str, row)) if isinstance(row, Mapping) else ())
        if found.keys() >= set(columns.values()):
            return
    for field, column in columns.items():
        if column not in found:
            raise UserError(
                f"{place}: data.columns maps {field} to `{column}`, but the columns are {', '.join(found) or 'none'}."
            )


def _divided(rows: Iterator[SourceRow], schema: Schema, uncut: dict[int, Row]) -> Iterator[SourceRow]:
    """Each row once for each of its answers, cut after it, numbered anew. A bad row stays one. uncut: gets each whole
    row, under the number of its last part."""
    number = 0
    for row in rows:
        parts = [row.value]
        if row.problem is None and isinstance(row.value, Mapping):
            with contextlib.suppress(BadRow):  # raised again, and accounted for, when the row is read
                parts = schema.parts(row.value)
        uncut[number + len(parts) - 1] = row.value
        for part in parts:
            yield SourceRow(number, row.line, part, row.problem)
            number += 1


def read_records(
    rows: Iterable[SourceRow], read: Callable[[int, Any], Record], place: str, limit: int | None, on_error: str
) -> tuple[list[Record], list[Quarantined]]:
    """The records, at most the first `limit` ones, and the rows before the last that are none.

    read: the record of a row's number and value; raises BadRow. Raises UserError for rows without one record, and with
    on_error=fail for the first bad row.
    """
    records: list[Record] = []
    quarantined: list[Quarantined] = []
    for number, line, value, problem in rows:
        try:
            if problem is not None:
                raise BadRow(problem)
            records.append(read(number, value))
        except BadRow as error:
            bad = Quarantined(place, line, number, str(error), value)
            if on_error == "fail":
                raise UserError(
                    f"{place}, {_where(bad)}: {bad.reason}; mend the row, or set data.on_error=quarantine to "
                    "go on without it."
                ) from None
            quarantined.append(bad)
        if len(records) == limit:
            break
    if not records and not quarantined:
        raise UserError(f"{place} holds no record: there is no row in it.")
    if not records:
        raise UserError(
            f"{place} holds no readable record: all {len(quarantined)} rows are bad, the first one "
            f"({_where(quarantined[0])}): {quarantined[0].reason}."
        )
    return records, quarantined


def _where(bad: Quarantined) -> str:
    return f"row {bad.row}" if bad.line is None else f"line {bad.line}"
