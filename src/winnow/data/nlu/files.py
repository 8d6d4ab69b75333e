"""The files of the NLU data sets, each layout as rows."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path

from winnow.data.formats import SourceRow, csv_rows, file_format, read_table
from winnow.errors import UserError

CLASSES = ("World", "Sports", "Business", "Sci/Tech")  # of AG News, index 1 to 4
HEADER = ["sentence", "label"]  # of SST-2
_TAG = re.compile(r"O|[BI]-\S+")
_WORD, _NAME, _LEAST = 3, 10, 12  # CoNLL-2012: columns of the word and of the name; columns of a complete line


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


def objects(path: Path) -> Iterator[SourceRow]:
    """JSON objects: NYT and WebNLG triples, SciERC in joint form. The rows of a .json or .jsonl file; a .json file that
    holds one object a line is read as such."""
    format = file_format(path)
    if format == "json":
        with path.open("rb") as file:
            head = file.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()
        format = "json" if head.startswith(b"[") else "jsonl"
    return read_table(path, format).rows


def blocks(path: Path, comment: str) -> Iterator[list[tuple[int, list[str]]]]:
    """The lines, each its number and its columns, between blank lines and lines that begin with `comment`."""
    lines = ((line, text.split()) for line, text in text_lines(path))
    for inside, block in groupby(lines, lambda one: bool(one[1]) and not one[1][0].startswith(comment)):
        if inside:
            yield list(block)


def sentences(path: Path) -> Iterator[SourceRow]:
    """One token a line, a blank line after each sentence: CoNLL-2003 and OntoNotes copies, as rows {tokens, ner_tags}.

    Columns are separated by blanks or tabs; the token is the first, the tag the last, what lies between is not read.
    `-DOCSTART-` lines are no sentences. A row's line is that of its first token. A sentence with a line that is none is
    handed on with the line and the reason.
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


def ontonotes(path: Path) -> Iterator[SourceRow]:
    """OntoNotes as rows {tokens, ner_tags}: in the columns of the CoNLL-2012 shared task where the file begins with
    `#begin document`, else as `sentences`."""
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


def triplets(path: Path) -> Iterator[SourceRow]:
    """SemEval-2014 reviews in ASTE form: `sentence####[([aspect words], [opinion words], 'POS'), ...]`, as rows {text,
    triplets: [[aspect word indices], [opinion word indices], POS, NEG or NEU]}."""
    for number, (line, text) in enumerate((line, text) for line, text in text_lines(path) if text.strip()):
        sentence, mark, rest = text.rpartition("####")
        try:
            if not mark:
                raise ValueError("no ####")
            yield SourceRow(number, line, {"text": sentence, "triplets": ast.literal_eval(rest)})
        except (ValueError, SyntaxError) as error:
            reason = f"`sentence####[(aspect, opinion, sentiment), ...]` was expected ({error})"
            yield SourceRow(number, line, text, reason.replace("\n", " "))


def reviews(path: Path) -> Iterator[SourceRow]:
    """SST-2 as GLUE distributes it: tab-separated, header `sentence` and `label` (0 negative, 1 positive), no quoting.
    Rows {sentence, label}; the label is still the file's text. Raises UserError for another header."""
    lines = text_lines(path)
    _, header = next(lines, (1, ""))
    if header.split("\t") != HEADER:
        raise UserError(f"{path}, line 1: the header `sentence<TAB>label` was expected, found {header[:60]!r}.")
    return tab_rows(lines, *HEADER)


def news(path: Path) -> Iterator[SourceRow]:
    """AG News: CSV of class index (1 to 4), title, description, with or without header; or TSV of text and class name.

    Rows {text, label}: the label is a class name or what stands in its place. Title and description become one text
    with a blank between them, as the hub's copy has it.
    """
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
