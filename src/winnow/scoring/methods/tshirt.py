"""T-SHIRT: S-IFD averaged over draws of noise on the input embeddings.

    score = 1/N sum over draws i of S-IFD_i;   spread = standard deviation of S-IFD_i over the draws

S-IFD: see `winnow.scoring.methods.sifd`. High is wanted. `selection=tshirt` takes the 2 B best records and of these
the B of smallest spread. Source: NeurIPS 2025, arXiv 2506.01317; code: Dynamite321/T-SHIRT.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from winnow.data.records import Record
from winnow.scoring.filters import at_most
from winnow.scoring.methods.sifd import checked_share, selective_ifd
from winnow.scoring.passes.noised_likelihood import NoisedLikelihood
from winnow.scoring.protocols import Method
from winnow.scoring.runner import PassTable
from winnow.scoring.scores import Scores
from winnow.store.describe import ForSelection


class TShirt(Method):
    """draws: N. alpha: strength of the NEFTune noise. kept: k, the share of tokens that is informative, of all tokens,
    draws and records together. max_ifd: records whose IFD, the mean of the draws' ratios of perplexities, is at least
    this are not eligible; None keeps them. seed: of the draws, with record and draw.

    A draw in which a record has no informative token counts as exp(0) = 1 [code]; without any the score is null (ours).
    """

    def __init__(
        self, name: str, draws: int, alpha: float, kept: float, max_ifd: ForSelection[float | None], seed: int
    ) -> None:
        self.name, self.draws, self.alpha, self.kept = name, draws, alpha, checked_share(kept)
        self.max_ifd, self.seed = max_ifd, seed
        views = {"conditioned": "clean", "direct": "direct"}
        self.passes = {key: NoisedLikelihood(view, draws, alpha, seed) for key, view in views.items()}
        self.filters = at_most("ifd", max_ifd, "ifd", open=True)

    def score(self, tables: dict[str, PassTable], records: Sequence[Record]) -> Scores:
        values, flag, differences, threshold = selective_ifd(tables, self.kept, self.draws)
        silent = np.isnan(values)
        values = np.where(silent, np.where(silent.all(1, keepdims=True), np.nan, 1.0), values)
        return Scores(
            score=values.mean(1),
            flag=flag,
            components={
                "sifd_spread": values.std(1),
                "ifd": np.array([np.exp(one.mean(1)).mean() if one.size else np.nan for one in differences]),
                "answer_tokens": np.array([one.shape[1] or np.nan for one in differences]),
                "prompt_tokens": tables["conditioned"].numbers("prompt_tokens"),
            },
            higher_is_better=True,
            descriptions={
                "score": f"mean S-IFD over {self.draws} draws; tokens with |d_t| above {threshold:.4g} nats",
                "sifd_spread": "standard deviation of S-IFD over the draws (population); low is wanted",
                "ifd": "mean over the draws of exp(mean d_t) over all answer tokens",
            },
        )
