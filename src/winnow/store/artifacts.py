"""The store: everything that is expensive lives in a folder named by a fingerprint of all it depends on.

    <store>/<kind>/<fingerprint>/meta.json     what the fingerprint was made of
    <store>/<kind>/<fingerprint>/DONE          of a model or an evaluation: the checksums of its files, written last
    <store>/<kind>/<fingerprint>/checkpoints/  of a model that is not finished: what its tuning goes on from
    <store>/<kind>/<fingerprint>/parts/        of a pass or an attack: its columns, see `winnow.store.columns`

A finished artifact is never computed again, unless one of its files is damaged. A folder whose meta.json says otherwise
is refused. One process at a time works on a folder; others wait, and take over if it dies (the lock is the operating
system's).
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from winnow.errors import UserError
from winnow.store.files import CHECKPOINTS, SEAL, damage, read_json, reading, remove_partials, seal, write_json

KINDS = ("passes", "models", "evaluations", "prompts")
WAITED: list[float] = []  # seconds for which this process waited for another one's work


def fingerprint(meta: dict) -> str:
    """First 16 hex digits of the SHA-256 of `meta` as canonical JSON. Raises TypeError if it is not JSON."""
    text = json.dumps(meta, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Store:
    """A folder of artifacts and columns, shared by any number of runs and processes."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root).expanduser().resolve()

    def artifact(self, kind: str, meta: dict) -> Artifact:
        """The artifact that `meta` describes, finished or not. Creates nothing."""
        return Artifact(self, kind, meta)

    def made_from(self, kind: str, *parts: Any) -> bool:
        """Whether a finished artifact was made from these parts, among others, each as it is described."""
        metas = [read_json(seal.with_name("meta.json")).values() for seal in self.root.glob(f"{kind}/*/{SEAL}")]
        return any(all(part in meta for part in json.loads(json.dumps(parts))) for meta in metas)


class Folder:
    """One folder of the store. Making the object creates nothing."""

    def __init__(self, store: Store, kind: str, meta: dict) -> None:
        # As it will be read back: JSON knows no tuples, and a list is not equal to one.
        self.meta: dict[str, Any] = json.loads(json.dumps(meta))
        self.fingerprint = fingerprint(self.meta)  # the folder's name
        self.path = store.root / kind / self.fingerprint

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder for this process, the only one that writes to it. What killed processes left half-written is
        removed; what they finished is there."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.path / "lock")
            try:
                held = lock.acquire(timeout=0)
            except Timeout:
                print(f"Waiting: another process is computing {self.path} ...", flush=True)
                began = time.perf_counter()
                held = lock.acquire()
                WAITED.append(time.perf_counter() - began)
        except OSError as error:
            raise UserError(
                f"paths.store: {self.path} cannot be written ({error.strerror}); "
                f"give a folder you may write to with paths.store=..."
            ) from None
        with held:
            if (self.path / "meta.json").exists():
                self.check_meta()
            else:
                write_json(self.path / "meta.json", self.meta)
            for folder in (self.path, self.path / "parts"):
                remove_partials(folder / "*")
            yield

    def check_meta(self) -> None:
        """Raises UserError if the folder belongs to other settings."""
        file = self.path / "meta.json"
        try:
            with reading(file):
                found = json.loads(file.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            found = None
        if found != self.meta:
            raise UserError(
                f"{file} does not describe the settings that its folder name stands for, so its content is not "
                f"used; delete the folder {self.path} to have it computed again."
            )


class Artifact(Folder):
    """A folder that is computed as a whole: a tuned model, an evaluation."""

    def missing(self) -> bool:
        """True if it must be computed, False once every file is there and sound. Raises UserError if the folder belongs
        to other settings or cannot be read. Removes checkpoints that a process left which was killed after it had
        sealed the folder."""
        if not (self.path / SEAL).exists():
            return True
        self.check_meta()
        if damage(self.path) is not None:
            return True
        shutil.rmtree(self.path / CHECKPOINTS, ignore_errors=True)
        return False

    @contextmanager
    def claim(self) -> Iterator[bool]:
        """Hold the artifact's lock. Yields True if it must be computed, False if another process just did.

        The block computes into `self.path` and ends with `finish()`; what it leaves behind when interrupted is
        there for the next one that claims it.
        """
        with self.lock():
            missing = self.missing()
            if missing and (self.path / SEAL).exists():
                print(f"Computing {self.path} anew: {damage(self.path)}.", flush=True)
                (self.path / SEAL).unlink()
            yield missing

    def finish(self) -> None:
        """Mark the artifact as complete, then remove its checkpoints: until it is complete, a kill costs what they do
        not hold."""
        seal(self.path)
        shutil.rmtree(self.path / CHECKPOINTS, ignore_errors=True)

    def result(self, name: str, *keys: str) -> dict[str, Any]:
        """The content of a JSON file of the finished artifact, an object that has `keys`."""
        return read_json(self.path / name, *keys, cure=f"delete the folder {self.path} and run the same command again")
