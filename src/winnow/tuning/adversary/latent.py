"""Latent adversarial training: PGD on hidden states (Casper et al., 2024, arXiv 2403.05030)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from winnow.tuning.adversary.base import LossOf
from winnow.tuning.adversary.pgd import PGD


class Latent(PGD):
    """As PGD, but the perturbation is added to the output of block `layer`, counted from 1, not to the embeddings:

        L = L(f(X), y) + weight * L(f_{layer+1..}(h_layer(X) + delta), y)

    A region holds the places of its tokens. The other arguments are PGD's, in units of that block's states.
    """

    def __init__(self, layer: int, **settings: Any) -> None:
        super().__init__(**settings)
        self.layer, self.layers = layer, (layer,)

    def loss(self, loss_of: LossOf, embeds: Tensor, mask: Tensor) -> Tensor:
        return super().loss(loss_of.at(self.layer), torch.zeros_like(embeds, dtype=torch.float32), mask)
