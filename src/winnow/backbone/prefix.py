"""The words that every prompt begins with are run through the backbone once, not once per record."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from winnow.backbone.likelihood import final_hidden

KEPT = 4  # prefixes remembered at once: a template has a form with and a form without input


class SharedPrefix:
    """Final hidden states of texts that share their first tokens.

    A causal model's states at a position depend on what stands before it alone, so keys, values and final states of a
    shared prefix are the same for every text; they are computed for a batch of one and then repeated.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._known: dict[tuple[int, ...], tuple[DynamicCache, Tensor]] = {}

    def hidden(self, ids: Tensor, shared: int, embeds: Tensor | None = None) -> Tensor:
        """Final hidden states (batch, length, width) of `ids` (batch, length), whose first `shared` tokens agree.

        embeds: (batch, length - shared, width), input embeddings to go on with in place of those of ids[:, shared:].
        """
        rest = {"input_ids": ids[:, shared:]} if embeds is None else {"inputs_embeds": embeds}
        if shared == 0:
            return final_hidden(self.model, **rest)
        past, states = self._of(ids[:1, :shared])
        past = copy.deepcopy(past)  # the forward pass appends to it
        past.batch_repeat_interleave(len(ids))
        return torch.cat([states.expand(len(ids), -1, -1), final_hidden(self.model, past, **rest)], dim=1)

    def _of(self, ids: Tensor) -> tuple[DynamicCache, Tensor]:
        key = tuple(ids[0].tolist())
        if key not in self._known:
            past = DynamicCache()
            states = final_hidden(self.model, past, input_ids=ids)
            while len(self._known) >= KEPT:
                self._known.pop(next(iter(self._known)))
            self._known[key] = (past, states)
        return self._known[key]
