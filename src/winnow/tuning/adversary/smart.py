"""SMART: predictions that stay the same nearby (Jiang et al., ACL 2020, arXiv 1911.03437)."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from winnow.tuning.adversary.ball import project, uniform_start, unit
from winnow.tuning.adversary.base import Adversary, LossOf, check_settings


class SMART(Adversary):
    """The clean loss, and how far the predictions move at the point of the ball where they move most (eq. 1-3):

        D(delta)    = KL(P || Q) + KL(Q || P), P = f(X), Q = f(X + delta), mean over the answer tokens
        delta_0     = sigma / sqrt(N) * U(-1, 1)
        delta_{t+1} = project_{||delta|| <= epsilon}( delta_t + alpha * g_t / ||g_t||_F ),  g_t = grad_delta D(delta_t)
        L           = L(f(X), y) + weight * D(delta_rounds)

    No label is used to find the perturbation. Every forward pass has dropout of its own, as in the published code, so
    that D counts what dropout moves too; with epsilon = 0 that alone is left, R-Drop's term (NeurIPS 2021, arXiv
    2106.14448) beside one clean loss. Norms and start are those of PGD here (ours: the paper bounds single entries).

    epsilon: radius. sigma: magnitude of the start. alpha: step length. rounds: steps. weight: lambda_s. region: see
    Adversary. rounds + 2 forward and backward passes; both graphs of L are in memory at once.
    """

    version: ClassVar[int] = 2

    def __init__(self, epsilon: float, sigma: float, alpha: float, rounds: int, weight: float, region: str) -> None:
        check_settings(region, rounds, epsilon=epsilon, sigma=sigma, alpha=alpha, weight=weight)
        self.epsilon, self.sigma, self.alpha, self.rounds = epsilon, sigma, alpha, rounds
        self.weight, self.region = weight, region

    def loss(self, loss_of: LossOf, embeds: Tensor, mask: Tensor) -> Tensor:
        clean = loss_of.states(embeds.float())  # in the precision of the perturbed one
        delta = project(uniform_start(loss_of, mask, self.sigma), self.epsilon)
        for _ in range(self.rounds):
            point = (embeds.detach() + delta).requires_grad_()
            moved = loss_of.divergence(clean.detach(), loss_of.states(point))
            (gradient,) = torch.autograd.grad(moved, point)
            delta = project(delta + self.alpha * unit(gradient, mask), self.epsilon)
        return loss_of.nll(clean) + self.weight * loss_of.divergence(clean, loss_of.states(embeds + delta))
