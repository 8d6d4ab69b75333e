"""Columns of records: what a pass or an attack found out about each record, under the record's id.

    <store>/<kind>/<fingerprint>/parts/<hash>.parquet   some rows; the first column is `id`

A file is added and never changed, and its name is the hash of its bytes: whoever reads it knows whether it is damaged.
The records of a damaged part are computed anew. (Parquet's own page checksums would cover less: not the footer.) An id
may stand in several parts; any of its rows counts.
"""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from winnow.errors import UserError
from winnow.store.artifacts import Folder, Store
from winnow.store.files import reading, replacing

ROWS = 4096  # of a row group: the least that is read of a part
MANY = 8  # more small parts than this are merged
SMALL = 32 << 20  # bytes; a part of this size is left as it is, which bounds the memory and the work of merging


class Columns(Folder):
    """The columns that `meta` describes, of any records. schema: `id` first."""

    def __init__(self, store: Store, kind: str, meta: dict, schema: pa.Schema) -> None:
        super().__init__(store, kind, meta)
        self.schema = schema

    def missing(self, ids: Collection[str]) -> list[str]:
        """The ids that have no row yet, in their order. Raises UserError if the folder belongs to other settings."""
        if (self.path / "meta.json").exists():
            self.check_meta()
        wanted = set(ids)
        for _ in self._rows(wanted):
            pass
        return [record_id for record_id in dict.fromkeys(ids) if record_id in wanted]

    def read(self, ids: Collection[str], names: Collection[str] = ()) -> pa.Table:
        """One row for each of the ids, in no particular order. Raises UserError if one has none. names: of the columns,
        in their order; by default all."""
        wanted, names = set(ids), list(names or self.schema.names)
        tables = [part.read_row_group(group, names).take(rows) for part, group, rows in self._rows(wanted)]
        if wanted:
            raise UserError(
                f"{self.path / 'parts'} lost the columns of {len(wanted)} records while they were computed; "
                f"start again: only these are computed anew."
            )
        return pa.concat_tables([self.schema.empty_table().select(names), *tables])

    @contextmanager
    def claim(self, ids: Collection[str]) -> Iterator[list[str]]:
        """Hold the lock. Yields the ids that must be computed; the block appends rows and ends with `finish()`."""
        with self.lock():
            yield self.missing(ids)

    def append(self, columns: dict[str, list] | pa.Table) -> Path:
        """Add rows as one part; returns its path."""
        table = columns if isinstance(columns, pa.Table) else pa.table(columns, schema=self.schema)
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, row_group_size=ROWS)
        content = sink.getvalue()
        path = self.path / "parts" / f"{_name(content)}.parquet"
        with replacing(path) as partial:
            partial.write_bytes(content)
        return path

    def finish(self) -> None:
        """Merge small parts, if there are many, into few that are sorted by id; to be called under the lock.

        The old ones go when the new one is there: a kill in between leaves rows twice, and a reader that finds one
        gone looks again.
        """
        small: dict[Path, int] = {}
        for file in self._parts():
            with suppress(FileNotFoundError):  # a reader has found it damaged and put it aside
                if (size := file.stat().st_size) < SMALL:
                    small[file] = size
        while len(small) > MANY:
            total, group = 0, {}
            while small and total < SMALL:
                file, size = small.popitem()
                part = self._open(file)
                if part is not None:
                    group[file] = part.read()
                    total += size
            table = pa.concat_tables([self.schema.empty_table(), *group.values()]).sort_by("id")
            ids = table["id"].to_pylist()
            merged = self.append(table.take([i for i in range(len(ids)) if i == 0 or ids[i] != ids[i - 1]]))
            for file in group:
                if file != merged:
                    file.unlink(missing_ok=True)

    def _rows(self, wanted: set[str]) -> Iterator[tuple[pq.ParquetFile, int, list[int]]]:
        """(part, row group, rows in it) of each id that is there; takes these out of `wanted`."""
        looked: set[Path] = set()
        # Another process may merge parts meanwhile: what it removes is in a file that was not there at first.
        while wanted and (files := [file for file in self._parts() if file not in looked]):
            for file in files:
                looked.add(file)
                part = self._open(file) if wanted else None
                if part is None:
                    continue
                for group in range(part.num_row_groups):
                    rows = []
                    for row, record_id in enumerate(part.read_row_group(group, ["id"])["id"].to_pylist()):
                        if record_id in wanted:
                            wanted.remove(record_id)
                            rows.append(row)
                    if rows:
                        yield part, group, rows

    def _parts(self) -> list[Path]:
        return sorted((self.path / "parts").glob("*.parquet"))

    def _open(self, file: Path) -> pq.ParquetFile | None:
        """The part; None if it is gone, or damaged, which is said. Raises UserError if the system cannot read it."""
        try:
            with reading(file, errno.ESTALE):  # removed by another machine, over NFS
                content = file.read_bytes()
            if _name(content) == file.stem:
                part = pq.ParquetFile(pa.BufferReader(content))
                if part.schema_arrow.equals(self.schema):
                    return part
                fault = "does not hold these columns"
            else:
                fault = "is damaged"
        except FileNotFoundError:
            return None
        except (OSError, pa.ArrowInvalid) as error:  # of the content: it is in memory
            fault = f"cannot be read ({' '.join(str(error).split())[:200]})"
        print(f"{file} {fault}: it is put aside, and its records are computed anew.", flush=True)
        with suppress(OSError):  # another process may have been quicker, or the store is read-only
            file.rename(file.with_suffix(".damaged"))
        return None


def origin(missing: int, asked: int) -> str:
    """`reused` from the store, `computed` now, or `resumed`: the store had some of the records."""
    return "reused" if not missing else "computed" if missing == asked else "resumed"


def _name(content: bytes | pa.Buffer) -> str:
    return hashlib.sha256(content).hexdigest()[:32]
