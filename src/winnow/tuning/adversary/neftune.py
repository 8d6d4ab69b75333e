"""NEFTune: uniform noise on the input embeddings (ICLR 2024, arXiv 2310.05914)."""

from __future__ import annotations

from torch import Tensor

from winnow.tuning.adversary.ball import uniform_start
from winnow.tuning.adversary.base import Adversary, LossOf, check_settings


class NEFTune(Adversary):
    """L = L(f(X + alpha / sqrt(L d) * U(-1, 1)), y): one forward pass, no clean term, no search (Algorithm 1).

    alpha: noise strength. L is the number of perturbed tokens of the sample itself, without padding [code]. d is the
    width. region: see Adversary.
    """

    def __init__(self, alpha: float, region: str) -> None:
        check_settings(region, alpha=alpha)
        self.alpha, self.region = alpha, region

    def loss(self, loss_of: LossOf, embeds: Tensor, mask: Tensor) -> Tensor:
        return loss_of(embeds + uniform_start(loss_of, mask, self.alpha))
