"""The store: everything that is expensive lives in a folder named by a fingerprint of all it depends on.

    <store>/<kind>/<fingerprint>/meta.json   what the fingerprint was made of
    <store>/<kind>/<fingerprint>/DONE        written last; its absence means "not finished"

A finished artifact is never computed again. A folder whose meta.json says otherwise is refused. One process at a
time works on an artifact; others wait, and take over if it dies (the lock is the operating system's).
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from winnow.errors import UserError
from winnow.store.files import write_atomically

KINDS = ("passes", "models", "evaluations", "prompts")


def fingerprint(meta: dict) -> str:
    """First 16 hex digits of the SHA-256 of `meta` as canonical JSON. Raises TypeError if it is not JSON."""
    text = json.dumps(meta, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Store:
    """A folder of artifacts, shared by any number of runs and processes."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root).expanduser().resolve()

    def artifact(self, kind: str, meta: dict) -> Artifact:
        """The artifact that `meta` describes, finished or not. Creates nothing."""
        if kind not in KINDS:
            raise ValueError(f"unknown kind {kind!r}; known: {KINDS}")
        # As it will be read back: JSON knows no tuples, and a list is not equal to one.
        meta = json.loads(json.dumps(meta))
        return Artifact(self.root / kind / fingerprint(meta), meta)


class Artifact:
    """One folder of the store."""

    def __init__(self, path: Path, meta: dict) -> None:
        self.path, self.meta = path, meta

    @property
    def fingerprint(self) -> str:
        """The folder's name."""
        return self.path.name

    @property
    def finished(self) -> bool:
        """True once everything is there. Raises UserError if the folder belongs to other settings."""
        if not (self.path / "DONE").exists():
            return False
        self._check_meta()
        return True

    @contextmanager
    def claim(self) -> Iterator[bool]:
        """Hold the artifact's lock. Yields True if it must be computed, False if another process just did.

        The block computes into `self.path` and ends with `finish()`; what it leaves behind when interrupted is
        there for the next one that claims it.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.path / "lock")
            try:
                lock.acquire(timeout=0)
            except Timeout:
                print(f"Waiting: another process is computing {self.path} ...", flush=True)
                lock.acquire()
        except OSError as error:
            raise UserError(
                f"paths.store: {self.path} cannot be written ({error.strerror}); "
                f"give a folder you may write to with paths.store=..."
            ) from None
        try:
            if self.finished:
                yield False
                return
            if (self.path / "meta.json").exists():
                self._check_meta()
            else:
                write_atomically(self.path / "meta.json", json.dumps(self.meta, indent=2, sort_keys=True))
            yield True
        finally:
            lock.release()

    def finish(self) -> None:
        """Mark the artifact as complete."""
        write_atomically(self.path / "DONE", "")

    def result(self, name: str) -> dict[str, Any]:
        """The content of a JSON file of the finished artifact. Raises UserError if it is missing or broken."""
        file = self.path / name
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise UserError(f"{file} is missing; {_whole_folder(self.path)}.") from None
        except (OSError, ValueError) as error:
            raise UserError(f"{file} cannot be read ({error}); {_whole_folder(self.path)}.") from None
        if not isinstance(content, dict):
            raise UserError(f"{file} holds no JSON object; {_whole_folder(self.path)}.")
        return content

    def _check_meta(self) -> None:
        file = self.path / "meta.json"
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            found = None
        if found != self.meta:
            raise UserError(
                f"{file} does not describe the settings that its folder name stands for, so its content is not "
                f"used; delete the folder {self.path} to have it computed again."
            )


class ColumnParts:
    """Columns of records, written as they are computed and read back as one table.

    Rows go to `parts/*.parquet`, each file complete or absent; `merge` turns them into `columns.parquet`. The
    first column is `id`, and an id occurs once in the merged table.
    """

    def __init__(self, folder: Path, schema: pa.Schema) -> None:
        self.folder, self.schema = folder, schema

    def write(self, columns: dict[str, list]) -> None:
        """Add one part, under a name that no other part has or ever had."""
        parts = self.folder / "parts"
        parts.mkdir(exist_ok=True)
        name = uuid.uuid4().hex
        staging = parts / f".{name}.tmp"
        pq.write_table(pa.table(columns, schema=self.schema), staging)
        os.replace(staging, parts / f"{name}.parquet")

    def done_ids(self) -> set[str]:
        """Ids that need no computing any more."""
        return {record_id for file in self._files() for record_id in self._read(file, ["id"])["id"].to_pylist()}

    def merge(self, expected: Collection[str]) -> None:
        """Parts into one table, ordered by id. Raises UserError if one of the expected ids is in no part."""
        table = pa.concat_tables([self._read(file) for file in self._files()]).sort_by("id")
        ids = table["id"].to_pylist()
        missing = set(expected) - set(ids)
        if missing:
            raise UserError(
                f"{self.folder / 'parts'} lost the columns of {len(missing)} records while they were computed; "
                f"start again: only these are computed anew."
            )
        keep = [i for i in range(len(ids)) if i == 0 or ids[i] != ids[i - 1]]
        staging = self.folder / ".columns.tmp"
        pq.write_table(table.take(keep), staging)
        os.replace(staging, self.folder / "columns.parquet")

    def drop(self) -> None:
        """Remove the parts; to be called when the artifact is finished, also by several jobs at once."""
        for file in self._files():
            file.unlink(missing_ok=True)  # another job that shares the artifact may have been quicker

    def table(self) -> pa.Table:
        """The merged table of a finished artifact."""
        file = self.folder / "columns.parquet"
        return self._read(file, advice=_whole_folder(self.folder))

    def _files(self) -> list[Path]:
        return sorted((self.folder / "parts").glob("*.parquet"))

    def _read(
        self,
        file: Path,
        columns: list[str] | None = None,
        advice: str = "delete it and start again: only its records are computed anew",
    ) -> pa.Table:
        try:
            return pq.read_table(file, columns=columns)
        except (OSError, pa.ArrowException) as error:
            raise UserError(f"{file} cannot be read ({' '.join(str(error).split())[:200]}); {advice}.") from None


def _whole_folder(folder: Path) -> str:
    """What to do about a file of a finished artifact: its DONE would outlive the file."""
    return f"delete the folder {folder} and start again: it is computed anew"
