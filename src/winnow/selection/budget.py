"""The frame of every selection rule, and the plainest rule: filter, rank, keep one end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from winnow import draws
from winnow.errors import UserError, check_choice
from winnow.scoring.filters import Range
from winnow.scoring.passes.token_count import TokenCount
from winnow.scoring.protocols import Pass
from winnow.selection import clusters
from winnow.selection.rule import DUPLICATE, NO_VECTOR, SELECTED, Candidates, Picks, Selection, share_of
from winnow.selection.vectors import directions, present
from winnow.store.describe import arguments, describe, parameters

ORDERS = ("top", "bottom", "random")
BUDGETS = ("records", "valid", "answer_tokens")


class Budget:
    """Keeps the best records by score, up to a share or a number.

        records        int(records of the pool * ratio), or count: the same number for every method
        valid          int(valid records * ratio), or count: those with a score that pass every filter [IFD code]
        answer_tokens  the answers' sum nearest to ratio * that of the pool, or to count tokens

    budget: one of the three. ratio: in (0, 1]. count: at least 1; when given, the share is not asked. A share of the
    pool that is larger than the valid records takes these, and the run says so. order: `top` ranks the wanted end
    first, `bottom` the other one, `random` draws an order from (seed, record id) and does not look at the score.
    Records of equal score are taken in file order.

    embedding: a pass with a column `vector`. With it every record gets one of `classes` k-means classes, and a record
    without a vector is not eligible. This rule does not look at classes; its subset can then be compared, class by
    class, with that of a rule that does.

    centre: take the pool's mean vector off before lengths are set to 1 (ours). Mean hidden states all point one way:
    without it unlike records have a cosine of 0.9. seed: of the random order, of k-means, of what else a rule draws.

    A further rule overrides `pick`, and `classify` if it has classes of its own. needs_column: of the score table, that
    the rule reads.
    """

    version: ClassVar[int] = 1
    name = "budget"
    needs_vectors = False
    needs_column: str | None = None

    def __init__(
        self,
        ratio: float | None,
        count: int | None,
        budget: str,
        order: str,
        filters: Sequence[Range],
        embedding: Pass | None,
        classes: int,
        centre: bool,
        seed: int,
    ) -> None:
        if ratio is None and count is None:
            raise UserError("Give selection.ratio or selection.count; both are null.")
        if count is None and not 0 < ratio <= 1:
            raise UserError(f"selection.ratio={ratio} must be above 0 and at most 1; 0.05 keeps 5 percent.")
        check_choice("selection.budget", budget, BUDGETS)
        if count is not None and count < 1:
            raise UserError(f"selection.count={count} must be a whole number of at least 1.")
        check_choice("selection.order", order, ORDERS)
        if classes < 1:
            raise UserError(f"selection.classes={classes} must be at least 1.")
        self.ratio, self.count = (ratio if count is None else None), count
        self.budget, self.order, self.filters = budget, order, list(filters)
        self.embedding, self.classes, self.centre, self.seed = embedding, classes, centre, seed

    @property
    def passes(self) -> dict[str, Pass]:
        """What must be computed before `select`: `embedding`, if there is one; `count` gives the answers' lengths,
        `instructions` what is compared in place of the embedding."""
        vectors = {} if self.embedding is None else {"embedding": self.embedding}
        return vectors | ({"count": TokenCount()} if self.budget == "answer_tokens" else {})

    def classify(self, points: np.ndarray, ids: Sequence[str]) -> np.ndarray:
        """(records,) class of each record, -1 for one without a vector. points: (records, width) of unit length."""
        return clusters.classes(points, ids, self.classes, self.seed)

    def pick(self, candidates: Candidates, budget: int) -> Picks:
        """Decide among the eligible records. `budget` is at most their number."""
        return Picks(list(range(budget)))

    def all_eligible(self, number: int) -> Picks:
        """What is taken for a method that takes every eligible record, `number` of them."""
        return Picks(list(range(number)))

    def select(
        self,
        table: pa.Table,
        higher_is_better: bool,
        method_filters: Sequence[Range] = (),
        takes_all: bool = False,
        vectors: np.ndarray | None = None,
        lengths: np.ndarray | None = None,
        keep_duplicates: bool = False,
        compared: np.ndarray | None = None,
    ) -> Selection:
        """Decide on every row of a score table.

        takes_all: keep every eligible record, whatever budget and rule. vectors: (records, width) float32 in the order
        of the table, NaN rows where there is none. lengths: (records,) answer tokens, likewise. keep_duplicates: a
        record that repeats an earlier one, which has the same id, is eligible too. compared: (records, width), NaN rows
        where there is none: what a limit on likeness compares in place of `vectors`. Raises UserError if the budget
        does not fit the valid records, or if the rule needs vectors and has none.
        """
        if vectors is None and self.needs_vectors:
            raise UserError(f"The selection rule {self.name} compares vectors; give it a pass as selection.embedding.")
        ids = table["id"].to_pylist()
        score = table["score"].to_numpy(zero_copy_only=False)
        filters = [*method_filters, *self.filters]
        reasons = self._ineligible(table, filters, vectors, keep_duplicates)
        valid = np.array([i for i, reason in enumerate(reasons) if reason is None], dtype=np.int64)
        budget = len(valid) if takes_all else self._amount(valid, reasons, lengths)
        ranked = valid[np.lexsort((valid, self._keys(score[valid], [ids[i] for i in valid], higher_is_better)))]
        points = labels = tokens = None
        if vectors is not None:
            points = directions(vectors, self.centre)
            labels = self.classify(points, ids)
        if takes_all:
            picks = self.all_eligible(budget)
        else:
            known = {"ids": [ids[i] for i in ranked], "lengths": None if lengths is None else lengths[ranked]}
            if self.needs_column is not None:
                known["column"] = self._column(table)[ranked]
            if self.needs_vectors:
                points = points[ranked]  # the others are needed no more
                known |= {"vectors": points, "classes": labels[ranked]}
            if compared is not None:  # without a vector a record is like no other
                known |= {"compared": np.nan_to_num(directions(compared, False)[ranked])}
            candidates = Candidates(len(ranked), **known)
            if self.budget == "answer_tokens":
                number, wanted = self._number(candidates, budget), budget
                picks = self.pick(candidates, number)
                budget, reached = len(picks.taken), int(candidates.lengths[picks.taken].sum())
                tokens = {"wanted": wanted, "reached": reached}
                if number == len(valid) and reached < wanted:
                    note = (
                        f"Selection: only {reached} of the {wanted} answer tokens asked for, because the rule "
                        f"{self.name} takes no more than {budget} of {len(valid)} valid records ({_tally(reasons)}); "
                        f"lower selection.ratio or selection.count, or loosen the filters or the rule."
                    )
                    picks = replace(picks, note=note)
            else:
                picks = self.pick(candidates, min(budget, len(valid)))
        note = picks.note
        if budget > len(valid):
            note = (
                f"Selection: only {len(picks.taken)} of the {budget} records asked for, because no more than "
                f"{len(valid)} of {len(reasons)} are valid ({_tally(reasons)}); lower selection.ratio, loosen the "
                f"filters, or set selection.budget=valid for a share of the valid records."
            )
        taken = set(picks.taken)
        by_score = not takes_all and self.order != "random" and taken == set(range(len(taken)))
        return Selection(
            chosen=sorted(ranked[picks.taken].tolist()),
            decisions=_decisions(table, score, reasons, ranked, picks, labels),
            cut=float(score[ranked[len(taken) - 1]]) if taken and by_score else None,
            budget=budget,
            n_valid=len(valid),
            settings={
                "ratio": None if takes_all else self.ratio,
                "count": None if takes_all else self.count,
                "budget_in": None if takes_all else self.budget,
                "tokens": tokens,
                "order": self.order,
                "filters": [rule.reason for rule in filters],
                "rule": {"name": "all" if takes_all else self.name, "seed": self.seed} | self._own() | picks.about,
                "embedding": None if self.embedding is None else describe(self.embedding) | {"centre": self.centre},
            },
            classes=None if labels is None else _class_counts(labels, ranked, picks),
            note=note,
        )

    def _column(self, table: pa.Table) -> np.ndarray:
        if self.needs_column not in table.column_names:
            raise UserError(
                f"The selection rule {self.name} reads the column {self.needs_column} of the score table, which has "
                f"{', '.join(table.column_names)}; choose the method that gives it, or another selection."
            )
        return table[self.needs_column].cast(pa.float64()).to_numpy(zero_copy_only=False)

    def _own(self) -> dict[str, Any]:
        """The arguments that this rule has besides the frame's."""
        frame = parameters(Budget)
        return {key: describe(value) for key, value in arguments(self).items() if key not in frame}

    def _ineligible(
        self, table: pa.Table, filters: Sequence[Range], vectors: np.ndarray | None, keep_duplicates: bool
    ) -> list[str | None]:
        """Why a record cannot be selected at all: its flag, else the first filter, else that it has no vector, else
        that it repeats an earlier one."""
        reasons: list[str | None] = table["flag"].to_pylist()
        checks = [(rule.reason, rule.keeps(table)) for rule in filters]
        if vectors is not None:
            checks.append((NO_VECTOR, present(vectors)))
        if not keep_duplicates:
            checks.append((DUPLICATE, ~table["id"].to_pandas().duplicated()))
        for name, kept in checks:
            reasons = [reason or (None if ok else name) for reason, ok in zip(reasons, kept, strict=True)]
        return reasons

    def _keys(self, score: np.ndarray, ids: Sequence[str], higher_is_better: bool) -> np.ndarray:
        """What the records are sorted by, the smallest first."""
        if self.order == "random":
            return np.array([draw(self.seed, record_id) for record_id in ids])
        return -score if higher_is_better == (self.order == "top") else score

    def _amount(self, valid: np.ndarray, reasons: Sequence[str | None], lengths: np.ndarray | None) -> int:
        """The budget in records, or in answer tokens."""
        tokens = self.budget == "answer_tokens"
        pool, there = (np.nansum(lengths), np.nansum(lengths[valid])) if tokens else (len(reasons), len(valid))
        unit = "answer tokens" if tokens else "records"
        if len(valid) == 0:
            raise UserError(
                f"There is nothing to select from: none of {len(reasons)} records is valid ({_tally(reasons)}); "
                f"docs/outputs.md says what each reason means (`flag` of scores.parquet)."
            )
        if self.count is not None:
            if self.count > there:
                raise UserError(
                    f"selection.count={self.count}, but only {there:.0f} of {pool:.0f} {unit} are valid "
                    f"({_tally(reasons)}); lower the count or loosen the filters."
                )
            return self.count
        amount = share_of(there if self.budget == "valid" else pool, self.ratio)
        if amount == 0:
            raise UserError(
                f"selection.ratio={self.ratio} of {len(valid)} valid records ({len(reasons)} in all; {_tally(reasons)})"
                f" is no record at all; raise the ratio, or use selection.count."
            )
        return amount

    def _number(self, candidates: Candidates, tokens: float) -> int:
        """The number of records whose answers come nearest to `tokens`, by bisection; all if these are too few."""

        def lacking(number: int) -> float:
            return tokens - candidates.lengths[self.pick(candidates, number).taken].sum()

        low, high = 1, candidates.n
        while low < high:
            middle = (low + high) // 2
            low, high = (middle + 1, high) if lacking(middle) > 0 else (low, middle)
        if low == candidates.n and lacking(low) > 0:
            return low
        return min((max(1, low - 1), low), key=lambda number: abs(lacking(number)))


def draw(seed: int, record_id: str) -> float:
    """A uniform number in [0, 1) that is a function of (seed, record id)."""
    # Not the draw of the method `random`: with the same seed the two would be one order.
    return draws.uniform("selection", seed, record_id)


def _decisions(
    table: pa.Table,
    score: np.ndarray,
    reasons: Sequence[str | None],
    ranked: np.ndarray,
    picks: Picks,
    labels: np.ndarray | None,
) -> list[dict]:
    ids, rows = table["id"].to_pylist(), table["row"].to_pylist()
    place = {int(index): number for number, index in enumerate(ranked)}
    taken = set(picks.taken)
    decisions = []
    for i, reason in enumerate(reasons):
        own = place.get(i)
        decision = {
            "id": ids[i],
            "row": rows[i],
            "score": None if np.isnan(score[i]) else float(score[i]),
            "selected": own in taken,
            "reason": reason or (SELECTED if own in taken else picks.reason(own)),
            "rank": None if own is None else own + 1,
        }
        if labels is not None:
            decision["class"] = None if labels[i] < 0 else int(labels[i])
        if own in picks.similar:
            decision["similar_to"] = ids[ranked[picks.similar[own]]]
        decisions.append(decision)
    return decisions


def _class_counts(labels: np.ndarray, ranked: np.ndarray, picks: Picks) -> list[dict]:
    number = int(labels.max()) + 1
    sizes = [
        np.bincount(members[members >= 0], minlength=number)
        for members in (labels, labels[ranked], labels[ranked[picks.taken]])
    ]
    quota = [None] * number if picks.quotas is None else np.pad(picks.quotas, (0, number - len(picks.quotas))).tolist()
    return [
        {"class": c, "pool": int(pool), "valid": int(valid), "selected": int(selected), "quota": quota[c]}
        for c, (pool, valid, selected) in enumerate(zip(*sizes, strict=True))
    ]


def _tally(reasons: Sequence[str | None]) -> str:
    found = Counter(reason for reason in reasons if reason)
    return ", ".join(f"{number} {reason}" for reason, number in found.most_common(4)) or "none filtered"
