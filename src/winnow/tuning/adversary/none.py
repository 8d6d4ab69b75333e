"""No adversary: plain instruction tuning."""

from __future__ import annotations

from torch import Tensor

from winnow.tuning.adversary.base import Adversary, LossOf


class NoAdversary(Adversary):
    """L = loss_of(embeds): the loss on the unperturbed embeddings, one forward pass."""

    def loss(self, loss_of: LossOf, embeds: Tensor, mask: Tensor) -> Tensor:
        return loss_of(embeds)
