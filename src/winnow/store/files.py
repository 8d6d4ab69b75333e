"""Writing files so that no reader and no crash ever meets half of one."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from winnow.errors import UserError


def write_atomically(path: Path, text: str) -> None:
    """Write `text` to `path`: whoever looks sees the old file or the new one.

    Half a surrogate pair, which UTF-8 cannot encode, is spelt out as \\udXXX; JSON reads that back.
    Raises UserError when the folder cannot be written to.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(text, encoding="utf-8", errors="backslashreplace")
        os.replace(partial, path)
    except OSError as error:
        with contextlib.suppress(OSError):  # the folder may be the very thing that is wrong
            partial.unlink(missing_ok=True)
        raise UserError(f"{path}: cannot be written ({error.strerror}); choose a folder you may write to.") from error
