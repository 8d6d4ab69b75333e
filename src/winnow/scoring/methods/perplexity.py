"""Perplexity of the answer given the prompt: exp(s(A|Q)), a baseline in every paper's tables.

s(A|Q) is the mean answer loss in nats per token.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from winnow.data.records import Record
from winnow.errors import check_choice
from winnow.scoring.passes.likelihood import Likelihood
from winnow.scoring.protocols import Method
from winnow.scoring.runner import PassTable
from winnow.scoring.scores import Scores, conditioned_scores


class Perplexity(Method):
    """Conditioned answer perplexity. prefer: `high` (hard answers) or `low` (fluent ones)."""

    def __init__(self, name: str, prefer: str) -> None:
        check_choice("method.prefer", prefer, ("high", "low"))
        self.name, self.prefer = name, prefer
        self.passes = {"conditioned": Likelihood("clean")}

    def score(self, tables: dict[str, PassTable], records: Sequence[Record]) -> Scores:
        meaning = "exp(nll_conditioned), perplexity of the answer given the prompt"
        return conditioned_scores(tables, lambda table, loss: np.exp(loss), self.prefer == "high", meaning)
