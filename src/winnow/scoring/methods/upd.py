"""UPD, unpredictability of the answer: surprising tokens where the model was sure of something else.

    score = 1/n sum over the answer's tokens t of  sigmoid(loss_t) * max(0, 1 - H_t / log V)

loss_t = -log p(y_t | tokens before), H_t the entropy of that distribution over V tokens, both in nats. High is wanted.
Source: D3 (arXiv 2503.11441), as OpenDataArena's scorer computes it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import expit

from winnow.data.records import Record
from winnow.scoring.passes.likelihood import LikelihoodEntropy
from winnow.scoring.protocols import Method
from winnow.scoring.runner import PassTable
from winnow.scoring.scores import Scores, conditioned_scores, record_means


class Unpredictability(Method):
    """The mean over the answer; its pass is that of `entropy`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.passes = {"conditioned": LikelihoodEntropy("clean")}

    def score(self, tables: dict[str, PassTable], records: Sequence[Record]) -> Scores:
        meaning = "mean of sigmoid(loss_t) max(0, 1 - H_t / log V) along the answer, 0 to 1"
        return conditioned_scores(tables, _unpredictability, True, meaning)


def _unpredictability(table: PassTable, loss: np.ndarray) -> np.ndarray:
    (nll, offsets), (openness, _) = table.ragged("nll"), table.ragged("openness")
    return record_means((expit(nll) * np.maximum(0.0, 1.0 - openness), offsets))
