"""NRM, the Noise Response Method of adversarial noisy instruction tuning (ANIT, AAAI 2025,
doi 10.1609/aaai.v39i22.34513)."""

from __future__ import annotations

from torch import Tensor

from winnow.errors import UserError
from winnow.tuning.adversary.ball import clean_and_perturbed, project, uniform_start, unit
from winnow.tuning.adversary.base import Adversary, LossOf, check_settings


class NRM(Adversary):
    """One ascent step from a random start that is the smaller the more the instructions are distorted already:

        delta0 = 10 / sqrt(N) * U(-epsilon, epsilon) * (1 - beta)                                          eq. 7
        g      = grad_delta L(f(X_n + delta0), y)                                                          eq. 5
        delta1 = project_{||delta|| <= epsilon}( delta0 + alpha * g / ||g||_F )                            eq. 6
        L      = L(f(X_n), y) + weight * L(f(X_n + delta1), y)                                             eq. 8

    X_n = {I_n, C}: input embeddings of the noised instruction and the context (region: input); the answer and the
    template's words get no delta. N = l * h: tokens of the region times width. Algorithm 1 of the paper leaves out
    10 / sqrt(N); eq. 7 is followed. Norms are per sample, and l is the sample's own length, without padding (ours: the
    paper says neither).

    epsilon: radius. alpha: step length; of the order of the start's norm, 5.8 epsilon (1 - beta), or the projection
    leaves little of the step. weight: lambda. None of the three was published (ours).
    distortion: beta in [0, 1], one number per data set. None: what `prepare` is given in each epoch, the distortion of
    the run's noising; 0 where instructions are not noised.
    ascent_dropout: whether the ascent step has dropout. By default it has none (ours: the paper does not say): g is
    then the gradient of the whole network rather than of a thinned one that is not the one trained on next, and
    drawing dropout is a good part of a step's time on a CPU.
    region: see Adversary. Three forward passes; the ascent step computes no gradients of weights.
    """

    def __init__(
        self, epsilon: float, alpha: float, weight: float, distortion: float | None, region: str, ascent_dropout: bool
    ) -> None:
        check_settings(region, epsilon=epsilon, alpha=alpha, weight=weight)
        if distortion is not None and not 0 <= distortion <= 1:
            raise UserError(
                f"adversary.distortion={distortion} must lie between 0 and 1, or be null for that of the noising."
            )
        self.epsilon, self.alpha, self.weight = epsilon, alpha, weight
        self.region, self.ascent_dropout = region, ascent_dropout
        self.needs_distortion, self.distortion, self.beta = distortion is None, distortion, distortion or 0.0

    def prepare(self, distortion: float) -> None:
        """Takes the distortion of an epoch's noising as beta, unless the configuration gave a number.

        Raises ValueError outside [0, 1].
        """
        if not 0 <= distortion <= 1:
            raise ValueError(f"distortion {distortion} is outside [0, 1]")
        if self.needs_distortion:
            self.beta = distortion

    def loss(self, loss_of: LossOf, embeds: Tensor, mask: Tensor) -> Tensor:
        delta0 = uniform_start(loss_of, mask, 10.0 * self.epsilon * (1.0 - self.beta))  # eq. 7
        g = loss_of.gradient(embeds + delta0, self.ascent_dropout)  # eq. 5
        delta1 = project(delta0 + self.alpha * unit(g, mask), self.epsilon)  # eq. 6
        return clean_and_perturbed(loss_of, embeds, delta1, self.weight)  # eq. 8
