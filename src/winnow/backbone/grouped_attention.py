"""Attention for decoding, in which query heads share their keys and values by views.

The library's attention functions copy the keys and values of each group once per query head whenever there is a mask.
With one new token per row that copy is most of the work; here the heads of a group are rows of one product.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface

NAME = "winnow_grouped"


def grouped_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **options,
) -> tuple[Tensor, None]:
    """softmax(scaling q k^T + mask) v, the soft-max in fp32.

    query: (rows, heads, new, width). key, value: (rows, groups, length, width), views allowed; heads is a multiple of
    groups. attention_mask: (rows, 1, new or 1, length), added to the products. Returns what the library expects,
    ((rows, new, heads, width), None). Raises NotImplementedError for a kind of attention that this is not.
    """
    if options.get("s_aux") is not None:
        raise NotImplementedError("attention with a sink")
    rows, heads, new, width = query.shape
    groups, length = key.shape[1], key.shape[2]
    together = query.reshape(rows, groups, heads // groups * new, width)
    scores = torch.matmul(together, key.transpose(2, 3)).float() * (width**-0.5 if scaling is None else scaling)
    if options.get("softcap") is not None:  # Gemma-2
        scores = torch.tanh(scores / options["softcap"]) * options["softcap"]
    scores = scores.view(rows, groups, heads // groups, new, length)
    if attention_mask is not None:
        scores = scores + attention_mask[:, :, None, :, :length]
    weights = torch.softmax(scores, dim=-1).to(value.dtype).view(rows, groups, heads // groups * new, length)
    mixed = torch.matmul(weights, value).view(rows, heads, new, value.shape[-1])
    return mixed.transpose(1, 2).contiguous(), None


@contextmanager
def grouped(body: nn.Module) -> Iterator[None]:
    """A transformer body uses `grouped_attention` inside the block, and what it used before after it.

    A body that does not take its attention from the library's table keeps its own, which gives the same numbers to
    rounding and is slower.
    """
    if not getattr(body, "_supports_attention_backend", False):
        yield
        return
    AttentionInterface.register(NAME, grouped_attention)
    config: Any = body.config
    before = config._attn_implementation
    config._attn_implementation = NAME
    try:
        yield
    finally:
        config._attn_implementation = before
