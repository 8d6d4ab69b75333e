"""Entropy: how open the model is along the answer.

    score = 1/n sum over the answer's tokens t of H_t,   H_t = - sum over the vocabulary v of p_t(v) log p_t(v)

p_t is the next-token distribution at t, given prompt and answer before it; in nats. OpenDataArena's scorers use it.
"""

from __future__ import annotations

from collections.abc import Sequence

from winnow.data.records import Record
from winnow.errors import check_choice
from winnow.scoring.passes.likelihood import LikelihoodEntropy
from winnow.scoring.protocols import Method
from winnow.scoring.runner import PassTable
from winnow.scoring.scores import Scores, conditioned_scores, record_means


class Entropy(Method):
    """Mean entropy over the answer. prefer: `high` (the model could go on in many ways) or `low`."""

    def __init__(self, name: str, prefer: str) -> None:
        check_choice("method.prefer", prefer, ("high", "low"))
        self.name, self.prefer = name, prefer
        self.passes = {"conditioned": LikelihoodEntropy("clean")}

    def score(self, tables: dict[str, PassTable], records: Sequence[Record]) -> Scores:
        return conditioned_scores(
            tables,
            lambda table, loss: record_means(table.ragged("entropy")),
            self.prefer == "high",
            "mean entropy of the next-token distributions along the answer, nats",
        )
