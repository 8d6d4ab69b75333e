"""The words that every prompt begins with are run through the backbone once, not once per record."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from winnow.backbone.causal_model import CausalModel

KEPT = 4  # prefixes remembered at once: a template has a form with and a form without input


class SharedPrefix:
    """Hidden states and caches of texts that share their first tokens.

    A causal model's states at a position depend on what stands before it alone, so keys, values and final states of a
    shared prefix are the same for every text; they are computed for a batch of one and then repeated. Where a model's
    cache cannot be repeated (`CausalModel.reuse`), texts are run whole.
    """

    def __init__(self, model: nn.Module) -> None:
        self.causal = CausalModel(model)
        self._known: dict[tuple[int, ...], tuple[DynamicCache, Tensor]] = {}
        self._last: tuple[Tensor, int, tuple[int, ...]] | None = None  # whose prefix was read last, and what it is

    def hidden(self, ids: Tensor, shared: int, embeds: Tensor | None = None) -> Tensor:
        """Hidden states (batch, length, width) of `ids` (batch, length), whose first `shared` tokens agree.

        embeds: (batch, length - shared, width), input embeddings to go on with in place of those of ids[:, shared:].
        """
        if shared and not self.causal.reuse:
            embeds = None if embeds is None else torch.cat([self.causal.embed(ids[:, :shared]), embeds], dim=1)
            shared = 0
        rest: dict[str, Any] = {"input_ids": ids[:, shared:]} if embeds is None else {"inputs_embeds": embeds}
        if shared == 0:
            return self.causal.hidden(**rest)
        past, states = self._repeated(ids, shared)
        return torch.cat([states.expand(len(ids), -1, -1), self.causal.hidden(past, **rest)], dim=1)

    def cache(self, ids: Tensor, shared: int) -> tuple[DynamicCache, Tensor]:
        """Keys and values of `ids`, padded on the right, and the hidden states of ids[:, shared:].

        For models whose cache can be repeated. No state of a padded place means anything.
        """
        past = self._repeated(ids, shared)[0] if shared else DynamicCache()
        if shared == ids.shape[1]:
            return past, self.causal.embed(ids[:, shared:])
        return past, self.causal.hidden(past, input_ids=ids[:, shared:])

    def _repeated(self, ids: Tensor, shared: int) -> tuple[DynamicCache, Tensor]:
        if self._last is None or self._last[0] is not ids or self._last[1] != shared:
            self._last = (ids, shared, tuple(ids[0, :shared].tolist()))  # which waits for the device
        key = self._last[2]
        if key not in self._known:
            past = DynamicCache()
            states = self.causal.hidden(past, input_ids=ids[:1, :shared])
            while len(self._known) >= KEPT:
                self._known.pop(next(iter(self._known)))
            self._known[key] = (past, states)
        past, states = self._known[key]
        past = copy.deepcopy(past)  # the forward pass appends to it
        if len(ids) > 1:
            past.batch_repeat_interleave(len(ids))
        return past, states
