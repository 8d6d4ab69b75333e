"""Perturbations and their norms: what the adversaries share.

All norms are Frobenius norms over the tokens and dimensions of one sample, never over the batch: a record's
perturbation does not depend on its neighbours in memory.
"""

from __future__ import annotations

import torch
from torch import Tensor

from winnow.tuning.adversary.base import LossOf


def norm(delta: Tensor) -> Tensor:
    """||delta||_F of each sample: (batch, length, width) -> (batch, 1, 1)."""
    return torch.linalg.vector_norm(delta, dim=(1, 2), keepdim=True)


def unit(gradient: Tensor, mask: Tensor) -> Tensor:
    """g / ||g||_F of each sample over its region: 0 outside of it, and 0 for a sample without a gradient.

    gradient: (batch, length, width). mask: (batch, length) bool.
    """
    inside = gradient.masked_fill(~mask[..., None], 0.0)
    length = norm(inside)
    return torch.where(length > 0, inside / length, 0.0)


def project(delta: Tensor, epsilon: float) -> Tensor:
    """The nearest point of the ball ||delta||_F <= epsilon, per sample: delta min(1, epsilon / ||delta||)."""
    length = norm(delta)
    return torch.where(length > epsilon, delta * (epsilon / length), delta)


def uniform_start(loss_of: LossOf, mask: Tensor, magnitude: float) -> Tensor:
    """magnitude / sqrt(N) * U(-1, 1) at every entry of the region, 0 elsewhere; (batch, length, width) in fp32.

    N = l * h: tokens of the sample's own region times width; padding does not count, as in the published code of
    NEFTune and FreeLB. The norm comes to about magnitude / sqrt(3), whatever the length.
    """
    draw = loss_of.uniform().masked_fill(~mask[..., None], 0.0)
    entries = mask.sum(1).clamp(min=1) * draw.shape[-1]
    return magnitude / entries.sqrt()[:, None, None] * draw


def clean_and_perturbed(loss_of: LossOf, embeds: Tensor, delta: Tensor, weight: float) -> Tensor:
    """L(embeds) + weight * L(embeds + delta), a scalar. Of the first term only the gradients are kept: the memory of
    one graph, and of one more copy of the trained weights' gradients."""
    kept = loss_of.keep(embeds)
    kept.add(torch.zeros_like(delta), 1.0)
    return kept.loss() + weight * loss_of(embeds + delta)
