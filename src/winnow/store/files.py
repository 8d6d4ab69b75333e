"""Files that no reader and no crash ever meets half of, and folders that tell when one of their files is damaged."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock

from winnow.errors import UserError, system_error

SEAL = "DONE"  # in a sealed folder: {relative file: [SHA-256, bytes]}
CHECKPOINTS = "checkpoints"  # in a folder that is not sealed yet: what an interrupted computation goes on from
SUM = ".sha256"  # behind a file's name: its SHA-256 and its name, as `sha256sum -c` reads them
_sound: set[tuple[Path, str]] = set()  # (folder, its seal): what this process has checked


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside `path`: the file or folder that the block writes there takes the place of `path` if the block ends
    well, and vanishes if it does not.

    A folder replaces a folder in two steps; between them there is none. Raises UserError if it cannot be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove(partial)
        yield partial
        if partial.is_dir() and path.is_dir():
            shutil.rmtree(path)
        os.replace(partial, path)
    except Exception as error:
        system = system_error(error)
        if system is None:
            raise
        raise UserError(
            f"{path} cannot be written: {system.strerror or system}; choose a folder you may write to, or make room."
        ) from error
    finally:
        with suppress(OSError):  # its folder may never have come to be
            _remove(partial)


@contextmanager
def reading(path: Path, *gone: int) -> Iterator[None]:
    """Around the reading of a file that is not used when it is damaged: FileNotFoundError if it is gone, and UserError
    for all else that the system reports, which says nothing about the content. gone: further numbers that mean it."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, *gone):
            raise FileNotFoundError(error.errno, error.strerror, str(path)) from error
        raise UserError(
            f"{path} cannot be read: {error.strerror or error}; it is kept, start again when the system reads it."
        ) from error


def write_atomically(path: Path, text: str) -> None:
    """Write `text` to `path`: whoever looks sees the old file or the new one.

    Half a surrogate pair, which UTF-8 cannot encode, is spelt out as \\udXXX; JSON reads that back.
    Raises UserError when the folder cannot be written to.
    """
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: Path, value: Any, indent: int | None = 1) -> None:
    """Write a value to `path` as JSON, as `write_atomically` does, without the whole text in memory. Raises ValueError
    for a number that is not finite: JSON has none, and what cannot be computed is null beside a reason."""
    with replacing(path) as partial, partial.open("w", encoding="utf-8", errors="backslashreplace") as file:
        json.dump(value, file, indent=indent, ensure_ascii=False, allow_nan=False)
        file.write("\n")


def write_lines(path: Path, rows: Iterable[Any], default: Callable[[Any], Any] | None = None) -> None:
    """Write values to `path` as JSON Lines, in the way of `write_json`. default: see `json.dumps`."""
    with replacing(path) as partial, partial.open("w", encoding="utf-8", errors="backslashreplace") as file:
        file.writelines(json.dumps(row, ensure_ascii=False, allow_nan=False, default=default) + "\n" for row in rows)


def read_json(path: Path, *keys: str, cure: str = "delete it and run the stage that writes it again") -> dict[str, Any]:
    """A JSON file of ours: an object that has `keys`. Raises UserError, naming the file and the cure, for all else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        told = error.strerror if isinstance(error, OSError) else " ".join(str(error).split())
        raise UserError(f"{path} cannot be read ({told}); {cure}.") from error
    missing = [key for key in keys if not isinstance(content, dict) or key not in content]
    if missing or not isinstance(content, dict):
        raise UserError(f"{path} lacks {', '.join(missing) or 'an object'}; {cure}.")
    return content


def read_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number, object) of each line of a file that is not blank. Raises UserError, naming the line, for all else."""
    with path.open("rb") as lines:  # as text, a line would end in more than one way
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise UserError(f"{path}, line {number}: no JSON ({error}); mend the line or take it out.") from None
            if not isinstance(row, dict):
                raise UserError(f"{path}, line {number}: an object was expected, found {type(row).__name__}.")
            yield number, row


def remove_partials(path: Path) -> None:
    """Remove what killed processes left of `replacing(path)`; `path.name` may be a pattern. Nobody may be at it."""
    for partial in path.parent.glob(f".{path.name}.*.tmp"):
        _remove(partial)


def cached(folder: Path, make: Callable[[Path], None]) -> Path:
    """The folder, sealed; `make(partial)` fills it, if it is not there or damaged. Other processes wait meanwhile."""
    if damage(folder) is None:
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        held = FileLock(f"{folder}.lock").acquire()
    except OSError as error:
        raise UserError(
            f"paths.cache={folder.parent} cannot be written ({error.strerror}): name another folder."
        ) from None
    with held:
        fault = damage(folder)
        if fault is not None:
            if folder.exists():
                print(f"Making {folder} anew: {fault}.", flush=True)
            remove_partials(folder)
            with replacing(folder) as partial:
                partial.mkdir()
                make(partial)
                seal(partial)
    return folder


def seal(folder: Path) -> None:
    """Write down the checksum of every file of a complete folder, checkpoints excepted."""
    own, left = (SEAL, "lock"), folder / CHECKPOINTS
    files = [
        file
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name not in own and left not in file.parents
    ]
    sums = {file.relative_to(folder).as_posix(): [_checksum(file), file.stat().st_size] for file in files}
    text = json.dumps(sums, indent=0, allow_nan=False)
    write_atomically(folder / SEAL, text)
    _sound.add((folder, text))


def damage(folder: Path) -> str | None:
    """Why a sealed folder cannot be used, as a clause; None if its files are as they were sealed.

    Every process reads the files once: about a second per GB. Raises UserError if the system cannot read them.
    """
    try:
        with reading(folder / SEAL):
            text = (folder / SEAL).read_text(encoding="utf-8")
        if (folder, text) in _sound:
            return None
        sums = dict(json.loads(text))
        if not sums:
            return f"{folder / SEAL} holds no checksums"
        for name, (checksum, size) in sums.items():
            file = folder / name
            with reading(file):
                if not file.is_file():
                    return f"{file} is missing"
                if file.stat().st_size != size or _checksum(file) != checksum:
                    return f"{file} is damaged"
    except FileNotFoundError:
        return f"{folder / SEAL} is missing"
    except (ValueError, TypeError) as error:
        return f"{folder / SEAL} cannot be read ({error})"
    _sound.add((folder, text))
    return None


def write_sum(file: Path) -> None:
    """Write the checksum of a file beside it."""
    write_atomically(file.with_name(file.name + SUM), _sum(file))


def has_sum(file: Path) -> bool:
    """Whether a file is the one whose checksum lies beside it."""
    beside = file.with_name(file.name + SUM)
    return beside.is_file() and beside.read_bytes() == _sum(file).encode()


def _sum(file: Path) -> str:
    return f"{_checksum(file)}  {file.name}\n"


def _checksum(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
