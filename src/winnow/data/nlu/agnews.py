"""AG News: CSV of class index (1 to 4), title, description, with or without header; or TSV of text and class name."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from winnow.data.formats import SourceRow
from winnow.data.nlu.lines import text_lines

CLASSES = ("World", "Sports", "Business", "Sci/Tech")  # index 1 to 4


def news(path: Path) -> Iterator[SourceRow]:
    """Rows {text, label}: the label is a class name or what stands in its place. Title and description become one
    text with a blank between them, as the hub's copy has it."""
    return _tabs(path) if path.suffix.lower() == ".tsv" else _commas(path)


def _tabs(path: Path) -> Iterator[SourceRow]:
    for number, (line, text) in enumerate((line, text) for line, text in text_lines(path) if text.strip()):
        cells = text.split("\t")
        if len(cells) == 2:
            yield SourceRow(number, line, {"text": cells[0], "label": cells[1]})
        else:
            yield SourceRow(number, line, text, f"{len(cells)} cells, text and class were expected")


def _commas(path: Path) -> Iterator[SourceRow]:
    reader = csv.reader((text + "\n" for _, text in text_lines(path)), strict=True)
    number, after = 0, 0
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield SourceRow(number, after + 1, None, f"wrong CSV: {error}")
            number, after = number + 1, reader.line_num
            continue
        line, after = after + 1, reader.line_num
        if not cells or (line == 1 and not cells[0].strip().isdigit()):  # a blank line; the header
            continue
        if len(cells) == 3:
            label = dict(enumerate(CLASSES, 1)).get(int(cells[0]) if cells[0].isdecimal() else 0, cells[0])
            yield SourceRow(number, line, {"text": f"{cells[1]} {cells[2]}", "label": label})
        else:
            yield SourceRow(number, line, cells, f"{len(cells)} cells, 3 were expected (class, title, description)")
        number += 1
