"""Lines of a UTF-8 text file, with their numbers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from winnow.errors import UserError


def text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """(1-based number, line without its end). Lines end at the line feed only; a carriage return before it belongs to
    the end. Raises UserError for a file that cannot be read or a line that is not UTF-8."""
    try:
        with path.open("rb") as file:
            for number, content in enumerate(file, 1):
                yield number, content.removeprefix(b"\xef\xbb\xbf" if number == 1 else b"").decode().rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}, line {number}: not UTF-8 (byte 0x{error.object[error.start]:02x}); convert the file to UTF-8."
        ) from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from None
