"""Lines of a UTF-8 text file, with their numbers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from winnow.data.formats import SourceRow
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


def tab_rows(lines: Iterable[tuple[int, str]], *names: str) -> Iterator[SourceRow]:
    """A row of these columns, separated by tabs and without quoting, for each line that is not blank."""
    for number, (line, text) in enumerate(one for one in lines if one[1].strip()):
        cells = text.split("\t")
        if len(cells) == len(names):
            yield SourceRow(number, line, dict(zip(names, cells, strict=True)))
        else:
            yield SourceRow(number, line, text, f"{len(cells)} cells, {' and '.join(names)} were expected")
