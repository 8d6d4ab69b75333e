"""SST-2 as GLUE distributes it: tab-separated, header `sentence` and `label` (0 negative, 1 positive), no quoting."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from winnow.data.formats import SourceRow
from winnow.data.nlu.lines import tab_rows, text_lines
from winnow.errors import UserError

HEADER = ["sentence", "label"]


def reviews(path: Path) -> Iterator[SourceRow]:
    """Rows {sentence, label}; the label is still the file's text. Raises UserError for another header."""
    lines = text_lines(path)
    _, header = next(lines, (1, ""))
    if header.split("\t") != HEADER:
        raise UserError(f"{path}, line 1: the header `sentence<TAB>label` was expected, found {header[:60]!r}.")
    return tab_rows(lines, *HEADER)
