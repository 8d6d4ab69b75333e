"""SST-2 as GLUE distributes it: tab-separated, header `sentence` and `label` (0 negative, 1 positive), no quoting."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from winnow.data.formats import SourceRow
from winnow.data.nlu.lines import text_lines
from winnow.errors import UserError

HEADER = ["sentence", "label"]


def reviews(path: Path) -> Iterator[SourceRow]:
    """Rows {sentence, label}; the label is still the file's text. Raises UserError for another header."""
    lines = text_lines(path)
    _, header = next(lines, (1, ""))
    if header.split("\t") != HEADER:
        raise UserError(f"{path}, line 1: the header `sentence<TAB>label` was expected, found {header[:60]!r}.")
    number = 0
    for line, text in lines:
        if not text.strip():
            continue
        cells = text.split("\t")
        if len(cells) == 2:
            yield SourceRow(number, line, dict(zip(HEADER, cells, strict=True)))
        else:
            yield SourceRow(number, line, text, f"{len(cells)} cells, 2 were expected")
        number += 1
