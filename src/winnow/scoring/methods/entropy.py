"""Entropy: how open the model is along the answer.

    score = 1/n sum over the answer's tokens t of H_t,   H_t = - sum over the vocabulary v of p_t(v) log p_t(v)

p_t is the next-token distribution at t, given prompt and answer before it; in nats. OpenDataArena's scorers use it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from winnow.data.records import Record
from winnow.errors import UserError
from winnow.scoring.passes.likelihood import LikelihoodEntropy
from winnow.scoring.protocols import Method
from winnow.scoring.runner import PassTable
from winnow.scoring.scores import Scores, answer_losses


class Entropy(Method):
    """Mean entropy over the answer. prefer: `high` (the model could go on in many ways) or `low`."""

    def __init__(self, name: str, prefer: str) -> None:
        if prefer not in ("high", "low"):
            raise UserError(f"method.prefer={prefer} is unknown; choose high or low.")
        self.name, self.prefer = name, prefer
        self.passes = {"conditioned": LikelihoodEntropy("clean")}

    def score(self, tables: dict[str, PassTable], records: Sequence[Record]) -> Scores:
        table = tables["conditioned"]
        losses, tokens, flag = answer_losses(tables)
        return Scores(
            score=np.where(np.isnan(tokens), np.nan, record_means(table.ragged("entropy"))),
            flag=flag,
            components={
                "nll_conditioned": losses["conditioned"],
                "answer_tokens": tokens,
                "prompt_tokens": table.numbers("prompt_tokens"),
            },
            higher_is_better=self.prefer == "high",
            descriptions={
                "score": "mean entropy of the next-token distributions along the answer, nats",
                "nll_conditioned": "s(A|Q), mean loss of the answer given the prompt, nats per token",
                "answer_tokens": "answer tokens averaged",
                "prompt_tokens": "tokens of the whole prompt",
            },
        )


def record_means(column: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """(records,) mean of each record's values in a list column, see `PassTable.ragged`; NaN without values."""
    values, offsets = column
    return np.array([values[a:b].mean() if b > a else np.nan for a, b in pairwise(offsets)])
