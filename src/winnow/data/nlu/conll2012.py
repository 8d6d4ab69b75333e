"""OntoNotes in the columns of the CoNLL-2012 shared task: `#begin document`, names in brackets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from winnow.data.formats import SourceRow
from winnow.data.nlu.columns import blocks, sentences
from winnow.data.nlu.lines import text_lines

_WORD, _NAME, _LEAST = 3, 10, 12  # columns of the word and of the name; columns of a complete line


def ontonotes(path: Path) -> Iterator[SourceRow]:
    """Rows {tokens, ner_tags} of either layout: CoNLL-2012 where the file holds `#begin document`, else `sentences`."""
    first = next((text for _, text in text_lines(path) if text.strip()), "")
    return _bracketed(path) if first.startswith("#begin document") else sentences(path)


def _bracketed(path: Path) -> Iterator[SourceRow]:
    """`(PERSON*` opens a name, `*` goes on, `*)` ends it, `(GPE)` is a name of one word; they do not nest."""
    for number, lines in enumerate(blocks(path, "#")):
        tokens: list[str] = []
        tags: list[str] = []
        problem = inside = None
        for line, columns in lines:
            if len(columns) < _LEAST:
                problem = problem or f"line {line} has {len(columns)} columns, at least {_LEAST} were expected"
                columns += ["*"] * _LEAST
            mark = columns[_NAME]
            if mark.startswith("("):
                inside = mark.strip("(*)")
                tags.append(f"B-{inside}")
            else:
                tags.append(f"I-{inside}" if inside else "O")
            if mark.endswith(")"):
                inside = None
            tokens.append(columns[_WORD])
        if inside and not problem:
            problem = f"the name of type {inside} is not closed"
        yield SourceRow(number, lines[0][0], {"tokens": tokens, "ner_tags": tags}, problem)
