"""Selection by budget: filter, rank, keep one end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from winnow.errors import UserError
from winnow.selection.filters import Range


@dataclass
class Selection:
    """What was decided, record by record.

    chosen: positions in the score table, in file order. decisions: one dictionary per record with id, row, score,
    selected, reason and rank (1 is the best eligible record). cut: score of the last record taken.
    """

    chosen: list[int]
    decisions: list[dict]
    cut: float | None
    budget: int
    n_valid: int
    settings: dict = field(default_factory=dict)

    def manifest(self) -> dict:
        """The content of `selection.json`."""
        return self.settings | {
            "budget": self.budget,
            "n_records": len(self.decisions),
            "n_valid": self.n_valid,
            "n_selected": len(self.chosen),
            "cut": self.cut,
            "reasons": dict(Counter(decision["reason"] for decision in self.decisions).most_common()),
            "decisions": self.decisions,
        }


class Budget:
    """Keeps the best records by score, up to a share or a number.

        budget = int(valid records * ratio), or count

    The share counts valid records: those with a score that pass every filter [IFD code]. ratio: in (0, 1].
    count: at least 1. Exactly one of them is given. order: `top` keeps the wanted end, `bottom` the other one.
    Records of equal score are taken in file order.
    """

    def __init__(
        self,
        ratio: float | None = None,
        count: int | None = None,
        order: str = "top",
        filters: Sequence[Range] = (),
    ) -> None:
        if (ratio is None) == (count is None):
            raise UserError(f"Give either selection.ratio or selection.count; found ratio={ratio}, count={count}.")
        if ratio is not None and not 0 < ratio <= 1:
            raise UserError(f"selection.ratio={ratio} must be above 0 and at most 1; 0.05 keeps 5 percent.")
        if count is not None and count < 1:
            raise UserError(f"selection.count={count} must be at least 1.")
        if order not in ("top", "bottom"):
            raise UserError(f"selection.order={order} is unknown; choose top or bottom.")
        self.ratio, self.count, self.order, self.filters = ratio, count, order, list(filters)

    def select(
        self,
        table: pa.Table,
        higher_is_better: bool,
        method_filters: Sequence[Range] = (),
        takes_all: bool = False,
    ) -> Selection:
        """Decide on every row of a score table. takes_all: keep every eligible record, whatever the budget."""
        score = table["score"].to_numpy(zero_copy_only=False)
        reasons: list[str | None] = table["flag"].to_pylist()
        filters = [*method_filters, *self.filters]
        for rule in filters:
            kept = rule.keeps(table)
            reasons = [reason or (None if ok else rule.reason) for reason, ok in zip(reasons, kept, strict=True)]
        valid = np.array([i for i, reason in enumerate(reasons) if reason is None], dtype=np.int64)
        budget = len(valid) if takes_all else self._budget(len(valid), reasons)
        descending = higher_is_better == (self.order == "top")
        keys = -score[valid] if descending else score[valid]
        ranked = valid[np.lexsort((valid, keys))]
        taken = set(ranked[:budget].tolist())
        rank = {int(index): place + 1 for place, index in enumerate(ranked)}
        ids, rows = table["id"].to_pylist(), table["row"].to_pylist()
        decisions = [
            {
                "id": ids[i],
                "row": rows[i],
                "score": None if np.isnan(score[i]) else float(score[i]),
                "selected": i in taken,
                "reason": reasons[i] or ("selected" if i in taken else "beyond_budget"),
                "rank": rank.get(i),
            }
            for i in range(len(score))
        ]
        return Selection(
            chosen=sorted(taken),
            decisions=decisions,
            cut=float(score[ranked[budget - 1]]) if budget else None,
            budget=budget,
            n_valid=len(valid),
            settings={
                "ratio": None if takes_all else self.ratio,
                "count": None if takes_all else self.count,
                "order": self.order,
                "filters": [rule.reason for rule in filters],
            },
        )

    def _budget(self, valid: int, reasons: Sequence[str | None]) -> int:
        if self.count is not None:
            if self.count > valid:
                raise UserError(
                    f"selection.count={self.count}, but only {valid} of {len(reasons)} records are valid "
                    f"({_tally(reasons)}); lower the count or loosen the filters."
                )
            return self.count
        budget = int(valid * self.ratio)
        if budget == 0:
            raise UserError(
                f"selection.ratio={self.ratio} of {valid} valid records ({len(reasons)} in all; {_tally(reasons)}) "
                f"is no record at all; raise the ratio, or use selection.count."
            )
        return budget


def _tally(reasons: Sequence[str | None]) -> str:
    found = Counter(reason for reason in reasons if reason)
    return ", ".join(f"{number} {reason}" for reason, number in found.most_common(4)) or "none filtered"
