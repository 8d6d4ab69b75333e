"""Filters: which scored records are eligible at all."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from winnow.errors import UserError


def at_most(column: str, limit: float | None, name: str, open: bool = False) -> list[Range]:
    """The filter that leaves out records whose `column` is above `limit` (if `open`, at least that), for the reason
    `name` and the limit; none for a limit of None."""
    reason = f"{name}_{'at_least' if open else 'above'}"
    return [] if limit is None else [Range(column, max=limit, open=open, reason=f"{reason}_{limit:g}")]


class Range:
    """Keeps records whose `column` lies in [min, max], or in (min, max) if `open`.

    column: any numeric column of the score table, `score` included. reason: what the manifest says of the others;
    None writes the bounds. A record without a value in that column is not eligible.
    """

    def __init__(
        self,
        column: str,
        min: float | None = None,
        max: float | None = None,
        open: bool = False,
        reason: str | None = None,
    ) -> None:
        if min is None and max is None:
            raise UserError(f"The filter on {column} has neither min nor max; give at least one.")
        self.column, self.min, self.max, self.open = column, min, max, open
        low, high = ("-inf" if min is None else f"{min:g}"), ("inf" if max is None else f"{max:g}")
        brackets = ("(", ")") if open else ("[", "]")
        self.reason = reason or f"{column}_outside_{brackets[0]}{low},{high}{brackets[1]}"

    def keeps(self, table: pa.Table) -> np.ndarray:
        """(records,) booleans. Raises UserError if the table has no such column."""
        if self.column not in table.column_names:
            raise UserError(
                f"selection.filters: the score table has no column {self.column}; it has "
                f"{', '.join(table.column_names)}."
            )
        values = table[self.column].cast(pa.float64()).to_numpy(zero_copy_only=False)
        low = -np.inf if self.min is None else self.min
        high = np.inf if self.max is None else self.max
        with np.errstate(invalid="ignore"):
            return (values > low) & (values < high) if self.open else (values >= low) & (values <= high)
