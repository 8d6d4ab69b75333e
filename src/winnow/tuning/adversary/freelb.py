"""FreeLB: gradients of every ascent step are trained on (Zhu et al., ICLR 2020, arXiv 1909.11764)."""

from __future__ import annotations

from torch import Tensor

from winnow.tuning.adversary.ball import project, uniform_start, unit
from winnow.tuning.adversary.base import Adversary, LossOf, check_settings


class FreeLB(Adversary):
    """Algorithm 1: K rounds, each of which gives a gradient to the weights and a step to the perturbation.

        delta_0     = 1 / sqrt(N) * U(-epsilon, epsilon)
        L_t         = L(f(X + delta_t), y)                                                       t = 0 .. K - 1
        delta_{t+1} = project_{||delta|| <= epsilon}( delta_t + alpha * g_t / ||g_t||_F ),  g_t = grad_delta L_t
        L           = 1 / K * sum over t of L_t

    K forward and K backward passes, each of which yields both gradients; one graph is in memory at a time, plus one
    more copy of the trained weights' gradients. All rounds share one dropout draw (its section 3.3).

    epsilon: radius. alpha: step length. rounds: K. N counts the sample's own tokens, without padding [code].
    region: see Adversary.
    """

    def __init__(self, epsilon: float, alpha: float, rounds: int, region: str) -> None:
        check_settings(region, rounds, epsilon=epsilon, alpha=alpha)
        self.epsilon, self.alpha, self.rounds, self.region = epsilon, alpha, rounds, region

    def loss(self, loss_of: LossOf, embeds: Tensor, mask: Tensor) -> Tensor:
        kept = loss_of.keep(embeds)
        delta = uniform_start(loss_of, mask, self.epsilon)
        for _ in range(self.rounds):
            loss_of.same_dropout()
            gradient = kept.add(delta, 1.0 / self.rounds)
            delta = project(delta + self.alpha * unit(gradient, mask), self.epsilon)
        return kept.loss()
