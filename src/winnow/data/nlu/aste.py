"""SemEval-2014 reviews in ASTE form: `sentence####[([aspect words], [opinion words], 'POS'), ...]`."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from winnow.data.formats import SourceRow
from winnow.data.nlu.lines import text_lines


def triplets(path: Path) -> Iterator[SourceRow]:
    """Rows {text, triplets: [[aspect word indices], [opinion word indices], POS, NEG or NEU]}."""
    for number, (line, text) in enumerate((line, text) for line, text in text_lines(path) if text.strip()):
        sentence, mark, rest = text.rpartition("####")
        try:
            if not mark:
                raise ValueError("no ####")
            yield SourceRow(number, line, {"text": sentence, "triplets": ast.literal_eval(rest)})
        except (ValueError, SyntaxError) as error:
            reason = f"`sentence####[(aspect, opinion, sentiment), ...]` was expected ({error})"
            yield SourceRow(number, line, text, reason.replace("\n", " "))
