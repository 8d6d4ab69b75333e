"""IFD: how little the instruction helps the model to the answer.

    ratio=loss         IFD = s(A|Q) / s(A)              "From Quantity to Quality", arXiv 2308.12032
    ratio=perplexity   IFD = exp(s(A|Q) - s(A))         Superfiltering, arXiv 2402.00530

s is the mean answer loss in nats per token, with and without the instruction. High is wanted: the instruction
is hard to follow. Above 1 the instruction does not help at all, which mostly means a mismatched pair.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from winnow.data.records import Record
from winnow.errors import check_choice
from winnow.scoring.filters import at_most
from winnow.scoring.passes.likelihood import Likelihood
from winnow.scoring.protocols import Method
from winnow.scoring.runner import PassTable
from winnow.scoring.scores import ZERO_DENOMINATOR, Scores, answer_losses, check_first_token, first_reason
from winnow.store.describe import ForSelection


class IFD(Method):
    """Instruction-following difficulty, both published readings.

    ratio: `loss` or `perplexity`; they rank differently. first_token: `score` or `skip`, see `answer_losses`.
    max_ifd: records above it are not eligible; None keeps them. strict: not eligible at exactly `max_ifd` either.
    """

    def __init__(
        self, name: str, ratio: str, first_token: str, max_ifd: ForSelection[float | None], strict: ForSelection[bool]
    ) -> None:
        check_choice("method.ratio", ratio, ("loss", "perplexity"))
        self.name, self.ratio, self.first_token = name, ratio, check_first_token(first_token)
        self.max_ifd, self.strict = max_ifd, strict
        self.passes = {"conditioned": Likelihood("clean"), "direct": Likelihood("direct")}
        self.filters = at_most("score", max_ifd, "ifd", open=strict)

    def score(self, tables: dict[str, PassTable], records: Sequence[Record]) -> Scores:
        losses, tokens, reasons = answer_losses(tables, self.first_token)
        conditioned, direct = losses["conditioned"], losses["direct"]
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            score = conditioned / direct if self.ratio == "loss" else np.exp(conditioned - direct)
        flag = first_reason(reasons, [ZERO_DENOMINATOR if bad else None for bad in ~np.isfinite(score)])
        formula = "nll_conditioned / nll_direct" if self.ratio == "loss" else "exp(nll_conditioned - nll_direct)"
        return Scores(
            score=np.where([reason is None for reason in flag], score, np.nan),
            flag=flag,
            components={
                "nll_conditioned": conditioned,
                "nll_direct": direct,
                "answer_tokens": tokens,
                "prompt_tokens": tables["conditioned"].numbers("prompt_tokens"),
            },
            higher_is_better=True,
            descriptions={"score": f"IFD = {formula}; ratio={self.ratio}"},
        )
