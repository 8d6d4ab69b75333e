"""AG News: CSV of class index (1 to 4), title, description, with or without header; or TSV of text and class name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from winnow.data.formats import SourceRow, csv_rows
from winnow.data.nlu.lines import tab_rows, text_lines

CLASSES = ("World", "Sports", "Business", "Sci/Tech")  # index 1 to 4


def news(path: Path) -> Iterator[SourceRow]:
    """Rows {text, label}: the label is a class name or what stands in its place. Title and description become one
    text with a blank between them, as the hub's copy has it."""
    return tab_rows(text_lines(path), "text", "label") if path.suffix.lower() == ".tsv" else _commas(path)


def _commas(path: Path) -> Iterator[SourceRow]:
    number = 0
    for line, cells, problem in csv_rows(text + "\n" for _, text in text_lines(path)):
        if line == 1 and cells and not cells[0].strip().isdigit():  # the header
            continue
        if len(cells) == 3:
            label = dict(enumerate(CLASSES, 1)).get(int(cells[0]) if cells[0].isdecimal() else 0, cells[0])
            yield SourceRow(number, line, {"text": f"{cells[1]} {cells[2]}", "label": label})
        else:
            problem = problem or f"{len(cells)} cells, 3 were expected (class, title, description)"
            yield SourceRow(number, line, cells or None, problem)
        number += 1
