"""PGD: projected gradient ascent (Madry et al., ICLR 2018, arXiv 1706.06083), in the L2 form used on embeddings."""

from __future__ import annotations

import torch
from torch import Tensor

from winnow.tuning.adversary.ball import clean_and_perturbed, project, uniform_start, unit
from winnow.tuning.adversary.base import Adversary, LossOf, check_settings


class PGD(Adversary):
    """`rounds` ascent steps inside the ball, then one descent step on the clean and the perturbed loss:

        delta_0     = epsilon / sqrt(N) * U(-1, 1), or 0
        g_t         = grad_delta L(f(X + delta_t), y)
        delta_{t+1} = project_{||delta|| <= epsilon}( delta_t + alpha * g_t / ||g_t||_F )        t = 0 .. rounds - 1
        L           = L(f(X), y) + weight * L(f(X + delta_rounds), y)

    The L2 form, its norms and its random start are those of FreeLB's section 3 (arXiv 1909.11764). The clean term is
    added as FGM does (ours: Madry et al. train on the perturbed term alone). One round from 0 with alpha = epsilon is
    FGM. rounds + 2 forward passes; the ascent steps compute no gradients of weights.

    epsilon: radius. alpha: step length. random_start: start from a random point of the ball. ascent_dropout: whether
    ascent steps have dropout, as in published code. region: see Adversary.
    """

    def __init__(
        self,
        epsilon: float,
        alpha: float,
        rounds: int,
        random_start: bool,
        weight: float,
        region: str,
        ascent_dropout: bool,
    ) -> None:
        check_settings(region, rounds, epsilon=epsilon, alpha=alpha, weight=weight)
        self.epsilon, self.alpha, self.rounds, self.random_start = epsilon, alpha, rounds, random_start
        self.weight, self.region, self.ascent_dropout = weight, region, ascent_dropout

    def loss(self, loss_of: LossOf, embeds: Tensor, mask: Tensor) -> Tensor:
        if self.random_start:
            delta = uniform_start(loss_of, mask, self.epsilon)
        else:
            delta = torch.zeros_like(embeds, dtype=torch.float32)
        for _ in range(self.rounds):
            step = unit(loss_of.gradient(embeds + delta, self.ascent_dropout), mask)
            delta = project(delta + self.alpha * step, self.epsilon)
        return clean_and_perturbed(loss_of, embeds, delta, self.weight)
