"""Perplexity of the answer given the prompt: exp(s(A|Q)), a rival in every paper's tables.

s(A|Q) is the mean answer loss in nats per token.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from winnow.data.records import Record
from winnow.errors import UserError
from winnow.scoring.passes.likelihood import Likelihood
from winnow.scoring.protocols import Method
from winnow.scoring.runner import PassTable
from winnow.scoring.scores import Scores, answer_losses


class Perplexity(Method):
    """Conditioned answer perplexity. prefer: `high` (hard answers) or `low` (fluent ones)."""

    def __init__(self, name: str, prefer: str) -> None:
        if prefer not in ("high", "low"):
            raise UserError(f"method.prefer={prefer} is unknown; choose high or low.")
        self.name, self.prefer = name, prefer
        self.passes = {"conditioned": Likelihood("clean")}

    def score(self, tables: dict[str, PassTable], records: Sequence[Record]) -> Scores:
        table = tables["conditioned"]
        losses, tokens, flag = answer_losses(tables)
        loss = losses["conditioned"]
        return Scores(
            score=np.exp(loss),
            flag=flag,
            components={
                "nll_conditioned": loss,
                "answer_tokens": tokens,
                "prompt_tokens": table.numbers("prompt_tokens"),
            },
            higher_is_better=self.prefer == "high",
            descriptions={
                "score": "exp(nll_conditioned), perplexity of the answer given the prompt",
                "nll_conditioned": "s(A|Q), mean loss of the answer given the prompt, nats per token",
                "answer_tokens": "answer tokens averaged",
                "prompt_tokens": "tokens of the whole prompt",
            },
        )
