"""S-IFD: IFD as a ratio of perplexities, over the answer tokens that the prompt changes most.

    d_t = loss(y_t | x) - loss(y_t);   keep |d_t| > the pool's (1 - k) quantile;   S-IFD = exp(mean d_t over the kept)

High is wanted. Source: T-SHIRT (NeurIPS 2025, arXiv 2506.01317; code: Dynamite321/T-SHIRT).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from winnow.data.records import Record
from winnow.scoring.filters import at_most
from winnow.scoring.passes.likelihood import Likelihood
from winnow.scoring.protocols import Method
from winnow.scoring.runner import PassTable
from winnow.scoring.scores import Scores, first_reason
from winnow.scoring.token_selection import (
    NO_INFORMATIVE_TOKEN,
    checked_share,
    selective_ifd,
    token_differences,
    token_threshold,
)
from winnow.store.describe import ForSelection


class SelectiveIFD(Method):
    """kept: k, the share of the pool's answer tokens that is informative. max_ifd: records whose ratio of perplexities
    over all tokens is at least this are not eligible; None keeps them."""

    def __init__(self, name: str, kept: float, max_ifd: ForSelection[float | None]) -> None:
        self.name, self.kept, self.max_ifd = name, checked_share(kept), max_ifd
        self.passes = {"conditioned": Likelihood("clean"), "direct": Likelihood("direct")}
        self.filters = at_most("ifd", max_ifd, "ifd", open=True)

    def score(self, tables: dict[str, PassTable], records: Sequence[Record]) -> Scores:
        differences, reasons = token_differences(tables["conditioned"], tables["direct"])
        threshold = token_threshold(differences, self.kept)
        score = np.array([selective_ifd(one, threshold)[0] for one in differences])
        tokens = np.array([one.shape[1] or np.nan for one in differences])
        return Scores(
            score=score,
            flag=first_reason(reasons, [NO_INFORMATIVE_TOKEN if np.isnan(value) else None for value in score]),
            components={
                "ifd": np.array([np.exp(one.mean()) if one.size else np.nan for one in differences]),
                "informative_tokens": np.array([(np.abs(one) > threshold).sum() or np.nan for one in differences]),
                "answer_tokens": tokens,
                "prompt_tokens": tables["conditioned"].numbers("prompt_tokens"),
            },
            higher_is_better=True,
            descriptions={
                "score": f"exp(mean d_t) over the tokens with |d_t| above {threshold:.4g} nats; kept={self.kept:g}",
                "ifd": "exp(mean d_t) over all answer tokens, the ratio of perplexities",
                "informative_tokens": "answer tokens with |d_t| above the threshold",
            },
        )
