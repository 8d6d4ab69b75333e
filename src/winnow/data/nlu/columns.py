"""One token a line, its tag in the last column, a blank line after each sentence: CoNLL-2003 and OntoNotes copies."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

from winnow.data.formats import SourceRow
from winnow.data.nlu.lines import text_lines

_TAG = re.compile(r"O|[BI]-\S+")


def sentences(path: Path) -> Iterator[SourceRow]:
    """Rows {tokens, ner_tags}; a row's line is that of its first token. `-DOCSTART-` lines are no sentences.

    Columns are separated by blanks or tabs; the token is the first, the tag the last, what lies between is not read.
    A sentence with a line that is none is handed on with the line and the reason.
    """
    for number, lines in enumerate(blocks(path, "-DOCSTART-")):
        problem = None
        for line, columns in reversed(lines):
            if len(columns) < 2:
                problem = f"line {line} has one column, a token and a tag were expected"
            elif not _TAG.fullmatch(columns[-1]):
                problem = f"line {line} has the tag {columns[-1]!r}; expected O, B-<type> or I-<type>"
        tokens, tags = [columns[0] for _, columns in lines], [columns[-1] for _, columns in lines]
        yield SourceRow(number, lines[0][0], {"tokens": tokens, "ner_tags": tags}, problem)


def blocks(path: Path, comment: str) -> Iterator[list[tuple[int, list[str]]]]:
    """The lines, each its number and its columns, between blank lines and lines that begin with `comment`."""
    lines = ((line, text.split()) for line, text in text_lines(path))
    for inside, block in groupby(lines, lambda one: bool(one[1]) and not one[1][0].startswith(comment)):
        if inside:
            yield list(block)


def chunks(tags: Sequence[str]) -> list[tuple[str, int, int]]:
    """(type, first token, token after the last) of each chunk.

    One rule reads both schemes, the one of the shared task's own scorer: a chunk begins at `B-`, and at `I-` wherever
    the tag before is `O` or of another type. IOB1 writes `B-` only between two touching chunks of one type, IOB2 at
    every beginning; both come out the same.
    """
    found: list[tuple[str, int, int]] = []
    before = "O"
    for i, tag in enumerate(tags):
        if tag != "O":
            kind = tag[2:]
            if tag.startswith("I-") and before[2:] == kind:
                found[-1] = (kind, found[-1][1], i + 1)
            else:
                found.append((kind, i, i + 1))
        before = tag
    return found
