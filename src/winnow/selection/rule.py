"""What a selection rule gets and what it answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np

SELECTED = "selected"
BEYOND = "beyond_budget"
TOO_SIMILAR = "too_similar"
QUOTA_FULL = "class_quota_full"
SMALL_BIN = "bin_too_small"
NO_VECTOR = "no_vector"
DUPLICATE = "duplicate"
CONTROLLED = "taken_by_the_rule"

FILTERED = 0.1  # share of the pool; where filters take less, the ratio surprises nobody (ours)
REASONS_SHOWN = 3


def share_of(number: float, ratio: float) -> int:
    """int(number * ratio), the ratio as the decimal number it was written as: 0.29 of 100 is 29, not by rounding 28."""
    return int(Fraction(str(ratio)) * int(number))


@dataclass(frozen=True)
class Candidates:
    """The eligible records, best first; a record's place is its 0-based position here.

    n: how many. vectors: (n, width) of unit length, and classes: (n,); None for a rule that does not ask for them.
    lengths: (n,) answer tokens, and column: (n,) of the score table, likewise. ids: of the records. compared: (n,
    width) of unit length, what a limit on likeness compares; None: `vectors`.
    """

    n: int
    vectors: np.ndarray | None = None
    classes: np.ndarray | None = None
    lengths: np.ndarray | None = None
    column: np.ndarray | None = None
    ids: Sequence[str] = ()
    compared: np.ndarray | None = None


@dataclass(frozen=True)
class Picks:
    """What a rule decided.

    taken: places. similar: place -> place of the taken record that it is too like. reasons: place -> why it was passed
    over, unless for the budget. quotas: (classes,), None for rules without. about: what else the manifest says of the
    rule. note: a sentence in place of the usual one about a budget that is not filled; empty for none at all.
    """

    taken: list[int]
    similar: dict[int, int] = field(default_factory=dict)
    reasons: dict[int, str] = field(default_factory=dict)
    quotas: np.ndarray | None = None
    about: dict = field(default_factory=dict)
    note: str | None = None

    def reason(self, place: int) -> str:
        """Why the record at `place` was not taken."""
        return TOO_SIMILAR if place in self.similar else self.reasons.get(place, BEYOND)


@dataclass
class Selection:
    """What was decided, record by record.

    chosen: positions in the score table, in file order. decisions: one dictionary per record with id, row, score,
    selected, reason and rank (1 is the best eligible record); with vectors also class, and similar_to, the id of the
    record that a skipped one is too like. cut: score of the last record taken, where the subset is one end of the
    ranking by score. classes: per class a dictionary of class, pool, valid, selected and quota; None without vectors.
    note: see `Picks`.
    """

    chosen: list[int]
    decisions: list[dict]
    cut: float | None
    budget: int
    n_valid: int
    settings: dict = field(default_factory=dict)
    classes: list[dict] | None = None
    note: str | None = None

    def manifest(self) -> dict:
        """The content of `selection.json`."""
        return self.settings | {
            "budget": self.budget,
            "n_records": len(self.decisions),
            "n_valid": self.n_valid,
            "n_selected": len(self.chosen),
            "cut": self.cut,
            "reasons": dict(Counter(d["reason"] for d in self.decisions if not d["selected"]).most_common()),
            "classes": self.classes,
            "decisions": self.decisions,
        }

    def filtered(self) -> str | None:
        """A sentence if a ratio of the valid records selects far fewer than it is of the pool, because filters and
        flags took some; else None."""
        ratio, number = self.settings.get("ratio"), len(self.decisions)
        if ratio is None or self.settings["budget_in"] != "valid" or number - self.n_valid < FILTERED * number:
            return None
        reasons = Counter(decision["reason"] for decision in self.decisions if decision["rank"] is None)
        named = ", ".join(f"{reason} took {count}" for reason, count in reasons.most_common(REASONS_SHOWN))
        return (
            f"Selection: selection.ratio={ratio:g} counts the {self.n_valid} valid records of {number}, so that it "
            f"selects {self.budget} and not {share_of(number, ratio)}: {named}. Loosen that filter, or give "
            f"selection.count or selection.budget=records."
        )

    def shortfall(self) -> str | None:
        """A sentence if the budget could not be filled, else None."""
        if self.note is not None:
            return self.note or None
        missing = self.budget - len(self.chosen)
        if not missing:
            return None
        reasons = Counter(decision["reason"] for decision in self.decisions)
        if not reasons[TOO_SIMILAR]:
            return (
                f"Selection: only {len(self.chosen)} of the {self.budget} records asked for, because each bin's quota "
                f"is rounded down and {reasons[SMALL_BIN]} are in bins too small to give any; set "
                f"selection.top_up=true or lower selection.classes for more."
            )
        remedy = "set selection.top_up=true or " if reasons[QUOTA_FULL] else ""
        return (
            f"Selection: only {len(self.chosen)} of the {self.budget} records asked for, because "
            f"{reasons[TOO_SIMILAR]} are too similar to a selected one; {remedy}raise selection.limit for more."
        )
