"""FGM, the fast gradient method on embeddings (Miyato et al., ICLR 2017, arXiv 1605.07725)."""

from __future__ import annotations

import torch
from torch import Tensor

from winnow.tuning.adversary.ball import unit
from winnow.tuning.adversary.base import Adversary, LossOf, check_settings


class FGM(Adversary):
    """One step of length epsilon along the gradient of the clean loss (eq. 5), and the loss there added (eq. 6):

        g     = grad L(f(X), y)
        delta = epsilon * g / ||g||_F
        L     = L(f(X), y) + weight * L(f(X + delta), y)

    The gradient comes out of the clean term's own backward pass, so that a step is two forward and two backward
    passes. epsilon: norm of a sample's perturbation. weight: of the adversarial term. region: see Adversary.
    """

    def __init__(self, epsilon: float, weight: float, region: str) -> None:
        check_settings(region, epsilon=epsilon, weight=weight)
        self.epsilon, self.weight, self.region = epsilon, weight, region

    def loss(self, loss_of: LossOf, embeds: Tensor, mask: Tensor) -> Tensor:
        kept = loss_of.keep(embeds)
        gradient = kept.add(torch.zeros_like(embeds, dtype=torch.float32), 1.0)
        delta = self.epsilon * self.direction(gradient, mask)
        return kept.loss() + self.weight * loss_of(embeds + delta)

    def direction(self, gradient: Tensor, mask: Tensor) -> Tensor:
        """(batch, length, width): where to go from the clean embeddings, at epsilon = 1."""
        return unit(gradient, mask)
