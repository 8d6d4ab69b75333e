"""What a method returns: one score per record, what it was made of, and why some records have none."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from winnow.data.records import Record
from winnow.errors import UserError, check_choice
from winnow.scoring.runner import PassTable
from winnow.store.files import replacing

NOTHING_TO_AVERAGE = "no_scored_answer_token"
NON_FINITE = "non_finite_loss"
NON_FINITE_SCORE = "non_finite_score"
ZERO_DENOMINATOR = "zero_direct_loss"

# What columns mean that several methods have.
MEANINGS = {
    "nll_conditioned": "s(A|Q), mean loss of the answer given the prompt, nats per token",
    "nll_direct": "s(A), mean loss of the answer without the instruction, nats per token",
    "answer_tokens": "answer tokens that all terms cover",
    "prompt_tokens": "tokens of the whole prompt",
}


@dataclass(frozen=True)
class Scores:
    """Scores in the order of the records.

    score: (records,) fp64, NaN where `flag` gives a reason; another that is not finite is flagged here.
    components: the columns the score was made of, so that another formula needs no new pass. higher_is_better: which
    end is wanted. descriptions: one sentence per column, with its unit, beside `MEANINGS`.
    """

    score: np.ndarray
    flag: list[str | None]
    components: dict[str, np.ndarray]
    higher_is_better: bool
    descriptions: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        finite = np.isfinite(self.score)
        if not finite.all():  # an infinite one would rank first or last, whatever the record is
            object.__setattr__(self, "score", np.where(finite, self.score, np.nan))
            flags = [None if ok else NON_FINITE_SCORE for ok in finite]
            object.__setattr__(self, "flag", first_reason(self.flag, flags))
        for i, reason in enumerate(self.flag):
            if reason is not None and finite[i]:
                raise RuntimeError(f"row {i}: score {self.score[i]} with flag {reason}; only one may be given")

    def table(self, records: Sequence[Record], about: dict) -> pa.Table:
        """The score table. about: method name and settings; kept, with direction and descriptions, in its metadata."""
        columns: dict[str, pa.Array] = {
            "id": pa.array([record.id for record in records]),
            "row": pa.array([record.row for record in records], pa.int64()),
            "score": pa.array(self.score, pa.float64(), from_pandas=True),
            "flag": pa.array(self.flag, pa.string()),
        }
        for name, values in self.components.items():
            values = np.asarray(values)  # whole numbers stay whole; NaN is null, as is None
            kind = np.int64 if values.dtype.kind in "biu" else np.float64
            columns[name] = pa.array(values.astype(kind), from_pandas=True)
        known = {name: MEANINGS[name] for name in self.components if name in MEANINGS}
        about = about | {"higher_is_better": self.higher_is_better, "columns": known | self.descriptions}
        return pa.table(columns).replace_schema_metadata({"winnow": json.dumps(about, allow_nan=False)})

    @staticmethod
    def write(table: pa.Table, path: Path) -> None:
        """Write a score table to `scores.parquet`."""
        with replacing(path) as partial:
            pq.write_table(table, partial, write_page_checksum=True)

    @staticmethod
    def about(table: pa.Table) -> dict:
        """What was said about a score table when it was made."""
        return json.loads(table.schema.metadata[b"winnow"])

    @staticmethod
    def read(path: Path) -> pa.Table:
        """A score table from its file. Raises UserError if the file is none."""
        try:
            table = pq.read_table(path, page_checksum_verification=True)
            Scores.about(table)
            return table
        except (OSError, KeyError, TypeError, ValueError, pa.ArrowException) as error:
            raise UserError(
                f"{path} is no score table of winnow ({' '.join(str(error).split())[:120]}); "
                f"run the stage `score` again with this run folder."
            ) from None


def first_reason(*flags: Sequence[str | None]) -> list[str | None]:
    """The first reason given for each record."""
    return [next((reason for reason in row if reason), None) for row in zip(*flags, strict=True)]


def check_first_token(first_token: str) -> str:
    """`first_token` of `answer_losses` itself; UserError if it is none."""
    check_choice("method.first_token", first_token, ("score", "skip"))
    return first_token


def answer_losses(
    tables: dict[str, PassTable], first_token: str = "score", optional: Collection[str] = ()
) -> tuple[dict[str, np.ndarray], np.ndarray, list[str | None]]:
    """Mean loss per answer under several views, every mean taken over the same answer tokens.

        s_v = 1/(n - f) * sum over answer tokens f .. n - 1 of -log p_v(a_i | ...)

    n is the smallest number of answer tokens that any view had room for, so that a long prompt cannot make one
    term of a ratio see more of the answer than another. first_token: `score` lets each view start at its first
    token that has a predecessor, as the published code does (a bare answer without BOS then misses one token in
    s(A) only); `skip` leaves the first answer token out of every view.

    tables: likelihood passes by view. optional: views that a record may lack, an attack that found nothing: its mean is
    NaN then, and the record keeps the others. Returns (means in nats by view, answer tokens that every mean covers, why
    a record has no means); the first two are NaN exactly where the third gives a reason: a flag of one of the passes
    that it must have, nothing left to average, or a loss that is not finite."""
    offered = {}
    for view, table in tables.items():
        values, offsets = table.ragged("nll")
        skipped = np.nan_to_num(table.numbers("skipped")).astype(np.int64)
        offered[view] = (values, offsets, skipped)
    there = {view: [reason is None for reason in table.flags()] for view, table in tables.items()}
    reasons = first_reason(*(table.flags() for view, table in tables.items() if view not in optional))
    means = {view: np.full(len(reasons), np.nan) for view in tables}
    covered = np.full(len(reasons), np.nan)
    for i in range(len(reasons)):
        if reasons[i] is not None:
            continue
        own = {view: columns for view, columns in offered.items() if there[view][i]}
        n = min(offsets[i + 1] - offsets[i] + skipped[i] for _, offsets, skipped in own.values())
        firsts = {view: max(skipped[i], first_token == "skip") for view, (_, _, skipped) in own.items()}
        if n - max(firsts.values()) < 1:
            reasons[i] = NOTHING_TO_AVERAGE
            continue
        averages = {}
        for view, (values, offsets, skipped) in own.items():
            begin = offsets[i] - skipped[i]  # where answer token 0 would stand
            averages[view] = values[begin + firsts[view] : begin + n].mean()
        if not np.isfinite(list(averages.values())).all():
            reasons[i] = NON_FINITE
            continue
        covered[i] = n - max(firsts.values())
        for view, average in averages.items():
            means[view][i] = average
    return means, covered, reasons


def conditioned_scores(
    tables: dict[str, PassTable],
    values: Callable[[PassTable, np.ndarray], np.ndarray],
    higher_is_better: bool,
    meaning: str,
) -> Scores:
    """The scores of a method that runs the one pass `conditioned`. values: makes (records,) scores from its columns and
    the records' mean losses; they count where a record has such a loss."""
    table = tables["conditioned"]
    losses, tokens, flag = answer_losses(tables)
    loss = losses["conditioned"]
    return Scores(
        score=np.where(np.isnan(tokens), np.nan, values(table, loss)),
        flag=flag,
        components={"nll_conditioned": loss, "answer_tokens": tokens, "prompt_tokens": table.numbers("prompt_tokens")},
        higher_is_better=higher_is_better,
        descriptions={"score": meaning, "answer_tokens": "answer tokens averaged"},
    )


def record_means(column: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """(records,) mean of each record's values in a list column, see `PassTable.ragged`; NaN without values."""
    values, offsets = column
    return np.array([values[a:b].mean() if b > a else np.nan for a, b in pairwise(offsets)])
