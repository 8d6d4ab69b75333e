"""Data sets that are JSON objects: NYT and WebNLG triples, SciERC in joint form. A JSON array, or one object a line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from winnow.data.formats import SourceRow, file_format, read_table


def objects(path: Path) -> Iterator[SourceRow]:
    """The rows of a .json or .jsonl file; a .json file that holds one object a line is read as such."""
    format = file_format(path)
    if format == "json":
        with path.open("rb") as file:
            head = file.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()
        format = "json" if head.startswith(b"[") else "jsonl"
    return read_table(path, format).rows
