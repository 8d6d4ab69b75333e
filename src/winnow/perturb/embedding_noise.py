"""Noise on the input embeddings of a record's own words.

    e~_k = e_k + beta (mu + sigma eps_k)          eq. 1-2 of "Priority on High-Quality" (EMNLP 2025)

k runs over the instruction-and-input tokens; the template's words and the answer stay clean. mu and sigma are the mean
and the standard deviation of that record's own embeddings over that region. As mu is added too, the noise is a shift as
well as a blur. `embedding_noise` gives the bracket, so that one draw of eps serves every beta.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from winnow import draws

FAMILIES = ("gaussian", "uniform")
STATISTICS = ("scalar", "per_dimension")


def embedding_noise(
    embeddings: Tensor, record_id: str, draw: int, seed: int = 0, family: str = "gaussian", statistics: str = "scalar"
) -> Tensor:
    """mu + sigma eps, the noise at beta = 1, in units of the embeddings.

    embeddings: (tokens, width), the region's clean input embeddings; any float dtype, any device. record_id, draw,
    seed: what eps is a function of. family: see `unit_noise`. statistics: see `region_statistics`. Returns
    (tokens, width) in fp32 on the embeddings' device.
    """
    mean, deviation = region_statistics(embeddings, statistics)
    # On the CPU whatever the device, so that a record meets the same noise on a GPU.
    eps = unit_noise(embeddings.shape, draws.generator(seed, record_id, draw), family)
    return mean + deviation * sent(eps, embeddings.device)


def add_noise(embeddings: Tensor, noise: Tensor, beta: float) -> Tensor:
    """e + beta (mu + sigma eps), added in fp32 and returned in the embeddings' dtype; both (tokens, width)."""
    return (embeddings.float() + beta * noise).to(embeddings.dtype)


def sent(values: Tensor, device: torch.device) -> Tensor:
    """Values of the CPU on a device; none but pinned memory goes to a GPU while the CPU goes on."""
    return (values.pin_memory() if device.type == "cuda" else values).to(device, non_blocking=True)


def region_statistics(embeddings: Tensor, statistics: str = "scalar") -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of a region (tokens, width), in fp32.

    statistics: `scalar`, one number each over all entries of the region, shapes () (ours: the paper does not say
    which); or `per_dimension`, over the tokens for each dimension apart, shapes (width,). The deviation is the
    population's, dividing by n and not n - 1 (ours): a region of a single token then has a deviation of 0 per
    dimension, where the sample's is no number at all.
    """
    if statistics not in STATISTICS:
        raise ValueError(f"unknown statistics {statistics!r}; known: {STATISTICS}")
    values = embeddings.float()
    over = (0, 1) if statistics == "scalar" else (0,)
    return values.mean(over), values.std(over, correction=0)


def unit_noise(shape: tuple[int, ...], source: torch.Generator, family: str = "gaussian") -> Tensor:
    """eps of mean 0 and variance 1, fp32 on the CPU.

    family: `gaussian`, N(0, 1) [paper]; or `uniform`, the paper's ablation, U(-sqrt 3, sqrt 3): its variance is
    (2 sqrt 3)^2 / 12 = 1, so that beta means the same strength in both families (ours).
    """
    if family == "gaussian":
        return torch.randn(shape, generator=source)
    if family == "uniform":
        return (2.0 * torch.rand(shape, generator=source) - 1.0) * math.sqrt(3.0)
    raise ValueError(f"unknown family {family!r}; known: {FAMILIES}")
