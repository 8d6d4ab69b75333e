"""A score that is there already: a column of the pool, or of a file that another tool has written.

Nothing is computed. Released scores (Cherry, DEITA, AlpaGasus, OpenDataArena) are selected by and compared like those
of any method.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from winnow.data.formats import file_format, read_table
from winnow.data.readers import read_pool
from winnow.data.records import Record
from winnow.data.templates import EMPTY_ANSWER
from winnow.errors import UserError, check_choice
from winnow.scoring.filters import Range
from winnow.scoring.protocols import Method
from winnow.scoring.runner import PassTable
from winnow.scoring.scores import Scores, first_reason
from winnow.store.describe import ForSelection, Identified

BY = ("text", "id", "row", "order")
NOT_IN_FILE = "not_in_score_file"
NO_NUMBER = "no_number_in_score_column"


class Column(Method, Identified):
    """column: holds the score, a number or a list of numbers (one for each turn), which counts as its sum; see `cell`.
    path: the file that has it (.json[.gz], .jsonl[.gz], .ndjson, .csv, .tsv, .parquet); None: the pool's own rows.
    by: how a row of the file finds its record.

        text    the row holds the record's texts, in a known schema
        id      the column `key` holds the record's id, as in `scores.parquet`
        row     the column `key` holds the record's row in the source, from 0
        order   row n of the file belongs to row n of the source

    key: of `id` and `row`; None: the column of that name. Of rows with the same key the first counts.
    higher_is_better: which end is wanted. min, max: scores outside are not eligible; None: no bound.

    A record without a row in the file, or without a number there, has no score, for a reason that says which. Raises
    UserError for a file, column or key that is not there.
    """

    def __init__(
        self,
        name: str,
        column: str,
        path: str | None,
        by: str,
        key: str | None,
        higher_is_better: bool,
        min: ForSelection[float | None],
        max: ForSelection[float | None],
    ) -> None:
        check_choice("method.by", by, BY)
        if path is not None and not Path(path).expanduser().is_file():
            raise UserError(f"method.path={path} is no file; give the file that holds the scores.")
        self.name, self.column, self.by, self.key = name, column, by, key or by
        self.reads = column if path is None else None
        self.path = None if path is None else Path(path).expanduser()
        self.higher_is_better, self.min, self.max = higher_is_better, min, max
        self.filters = [] if min is None and max is None else [Range("score", min, max)]

    @cached_property
    def identity(self) -> dict[str, Any]:
        """The file's content in place of its name; of the pool's own column its name: see `reads`."""
        about = {"column": self.column, "higher_is_better": self.higher_is_better}
        if self.path is None:
            return about
        content = hashlib.sha256(self.path.read_bytes()).hexdigest()[:16]
        return about | {"content": content, "by": self.by, "key": self.key}

    def check_every_answer(self, records: Sequence[Record]) -> None:
        """Raises UserError where the numbers are not of one answer each, as the records of data.turns=every are."""
        if self.path is not None and self.by in ("row", "order"):
            raise UserError(
                f"method.by={self.by} finds conversations, but data.turns=every makes a record of each answer: set "
                "method.by=id with a file that holds the ids of these records, or data.turns=last."
            )
        own = records if self.path is None else ()
        listed = next((one for one in own if isinstance(cell(one.raw, self.column), list)), None)
        if listed is not None:
            raise UserError(
                f"method.column={self.column} holds a list for a whole conversation (row {listed.row}), but "
                "data.turns=every makes a record of each answer: set data.turns=last, or give a file with a number for "
                "each record, method.path=FILE method.by=id."
            )

    def score(self, tables: dict[str, PassTable], records: Sequence[Record]) -> Scores:
        if self.path is None:
            _check_column(f"data={records[0].source}", self.column, (one.raw for one in records))
            found = [cell(one.raw, self.column) for one in records]
            missing = [False] * len(records)
        else:
            rows = self._rows(self.path)
            keys = [one.id if self.by in ("text", "id") else one.row for one in records]
            found, missing = [rows.get(key) for key in keys], [key not in rows for key in keys]
            if all(missing):
                raise UserError(
                    f"{self.path}: none of its {len(rows)} keys is one of the pool's, such as {keys[0]!r} (the file "
                    f"has {next(iter(rows), None)!r}); see method.by={self.by} and method.key."
                )
        score = np.array([_number(value) for value in found])
        flag = first_reason(
            [EMPTY_ANSWER if record.output == "" else None for record in records],
            [NOT_IN_FILE if absent else None for absent in missing],
            [NO_NUMBER if math.isnan(value) else None for value in score],
        )
        if np.isnan(score).all():
            example = next((value for value in found if value is not None), None)
            raise UserError(f"method.column={self.column} holds no number in any row, for instance {example!r}.")
        return Scores(
            score=np.where([reason is None for reason in flag], score, np.nan),
            flag=flag,
            components={},
            higher_is_better=self.higher_is_better,
            descriptions={"score": f"{self.column}, {'high' if self.higher_is_better else 'low'} is wanted"},
        )

    def _rows(self, path: Path) -> dict[str | int, Any]:
        """Key -> what the column holds, of the file's rows."""
        keyed: list[tuple[str | int | None, Any]]
        if self.by == "text":
            settings = ("auto", "train", None, None, "quarantine", None, "last", "keep", "keep", 1.0, None, 0, None)
            try:
                pool = read_pool(None, path, *settings)
            except UserError as error:
                raise UserError(f"method.by=text reads known schemas; else give id, row or order: {error}") from None
            _check_column(str(path), self.column, (one.raw for one in pool.records))
            keyed = [(one.id, cell(one.raw, self.column)) for one in pool.records]
        else:
            rows = [one for one in read_table(path, file_format(path)).rows if one.problem is None]
            objects = [(one.number, one.value) for one in rows if isinstance(one.value, Mapping)]
            for name in [self.column] + ([] if self.by == "order" else [self.key]):
                _check_column(str(path), name, (value for _, value in objects))
            keyed = [(self._key(number, value), cell(value, self.column)) for number, value in objects]
        return {key: value for key, value in reversed(keyed) if key is not None}  # of equal keys the first

    def _key(self, number: int, row: Mapping[str, Any]) -> str | int | None:
        if self.by == "order":
            return number
        if self.by == "id":
            return str(cell(row, self.key))
        value = _number(cell(row, self.key))
        return int(value) if value.is_integer() else None


def cell(row: Mapping[str, Any], name: str) -> Any:
    """What the row holds: in the column `name`, else where the dots of the name lead (`Q_scores.Clarity`); or None."""
    value: Any = row
    for key in [name] if name in row else name.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _check_column(place: str, name: str, rows: Iterator[Mapping[str, Any]]) -> None:
    known: dict[str, None] = {}
    for row in rows:
        if name in row or cell(row, name) is not None:
            return
        known.update(dict.fromkeys(map(str, row)))
    raise UserError(f"{place} has no column `{name}`; it has {', '.join(known) or 'none'}.")


def _number(value: Any) -> float:
    """NaN for what is neither a finite number nor a list of such; a text may hold one, as in CSV."""
    try:
        if isinstance(value, list):
            return math.fsum(map(_number, value)) if value else math.nan
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan
    return number if math.isfinite(number) else math.nan
