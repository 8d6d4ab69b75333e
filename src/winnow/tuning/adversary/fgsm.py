"""FGSM, the fast gradient sign method (Goodfellow et al., ICLR 2015, arXiv 1412.6572), on embeddings."""

from __future__ import annotations

from torch import Tensor

from winnow.tuning.adversary.fgm import FGM


class FGSM(FGM):
    """As FGM, but each entry moves by epsilon along the sign of its gradient (its section 4):

        delta = epsilon * sign(grad L(f(X), y))
        L     = L(f(X), y) + weight * L(f(X + delta), y)

    epsilon bounds single entries, not the norm: a sample of N entries moves by epsilon * sqrt(N). weight = 1 is the
    paper's equal mixture of both terms, but for its factor of one half.
    """

    def direction(self, gradient: Tensor, mask: Tensor) -> Tensor:
        return gradient.sign().masked_fill(~mask[..., None], 0.0)
