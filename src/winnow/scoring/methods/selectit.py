"""SelectIT: the backbone's own rating of a record, and how sure of it the backbone is.

    score = mean_k S_k / (1 + alpha * std_k S_k)      k runs over K requests to rate, worded differently

    rating=expected   S_k = sum over grades r of r p_k(r)
    rating=margin     S_k = r* * mean over the grades r other than r* of (p_k(r*) - p_k(r)),   r* the likeliest grade

p_k(r) is the probability of the token r, 1 to 5, after request k, among the five. High is wanted.
Source: SelectIT (arXiv 2402.16705; code: Blue-Raincoat/SelectIT), its token and sentence levels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from winnow.data.records import Record
from winnow.errors import UserError, check_choice
from winnow.scoring.passes.rating import GRADES, Rating
from winnow.scoring.protocols import Method
from winnow.scoring.runner import PassTable
from winnow.scoring.scores import Scores, first_reason


class SelectIT(Method):
    """rating: see above. alpha: weight of the spread over the requests, 0.2 [paper]. requests: K texts."""

    def __init__(self, name: str, rating: str, alpha: float, requests: Sequence[str]) -> None:
        check_choice("method.rating", rating, ("expected", "margin"))
        if not requests or len(set(requests)) < len(requests):
            raise UserError(f"method.requests={list(requests)} must be one or more texts, none of them twice.")
        self.name, self.rating, self.alpha, self.requests = name, rating, alpha, list(requests)
        self.passes = {f"request_{k}": Rating(text) for k, text in enumerate(self.requests, 1)}

    def score(self, tables: dict[str, PassTable], records: Sequence[Record]) -> Scores:
        flag = first_reason(*(table.flags() for table in tables.values()))
        rated = [self._rated(table.matrix("probabilities", len(GRADES))) for table in tables.values()]
        mean, spread = np.mean(rated, axis=0), np.std(rated, axis=0)
        return Scores(
            score=np.where([reason is None for reason in flag], mean / (1 + self.alpha * spread), np.nan),
            flag=flag,
            components={"rating": mean, "rating_spread": spread},
            higher_is_better=True,
            descriptions={
                "score": f"rating / (1 + {self.alpha:g} rating_spread); rating={self.rating}",
                "rating": f"mean rating over {len(tables)} requests",
                "rating_spread": "standard deviation of the rating over the requests (population)",
            },
        )

    def _rated(self, probabilities: np.ndarray) -> np.ndarray:
        """(records,) S_k of (records, 5) probabilities."""
        grades = np.arange(1, len(GRADES) + 1)
        if self.rating == "expected":
            return probabilities @ grades
        best = probabilities.argmax(1)
        margins = probabilities.max(1, keepdims=True) - probabilities  # 0 for the likeliest grade itself
        return grades[best] * margins.sum(1) / (len(GRADES) - 1)
