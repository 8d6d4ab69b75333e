"""Keys and values of answers decoded together: one prompt's serve several rows, and new ones are written in place."""

from __future__ import annotations

from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer


class RowLayer(DynamicLayer):
    """Keys and values of one layer in room that is made once: (rows, groups, prompt + limit, width)."""

    def __init__(self, keys: Tensor, values: Tensor, copies: int, more: int) -> None:
        super().__init__()
        self.length = keys.shape[2]
        self.keys: Tensor = _with_room(keys, copies, more)
        self.values: Tensor = _with_room(values, copies, more)
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True

    def update(self, key_states: Tensor, value_states: Tensor, *args, **options) -> tuple[Tensor, Tensor]:
        """Write one new position behind the others; returns all that is written, as views."""
        end = self.length + key_states.shape[2]
        self.keys[:, :, self.length : end] = key_states
        self.values[:, :, self.length : end] = value_states
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    def get_seq_length(self, *args) -> int:
        return self.length

    def move(self, holes: Tensor, movers: Tensor, count: int) -> None:
        """Rows `movers` to the places `holes`, none of which is a mover, then only the first `count` rows."""
        for side in (self.keys, self.values):
            side[holes, :, : self.length] = side[movers, :, : self.length]
        self.keys, self.values = self.keys[:count], self.values[:count]


def _with_room(side: Tensor, copies: int, more: int) -> Tensor:
    prompts, groups, length, width = side.shape
    room = side.new_empty(prompts * copies, groups, length + more, width)
    room.view(prompts, copies, groups, length + more, width)[:, :, :, :length] = side[:, None]
    return room


def row_cache(past: DynamicCache, copies: int, more: int) -> DynamicCache:
    """A cache of one row per answer from a cache of one row per prompt."""
    cache = DynamicCache()
    layers, past.layers = past.layers, []
    layers.reverse()
    while layers:  # one by one, so that both caches are never there together
        layer = layers.pop()
        assert layer.keys is not None and layer.values is not None  # the prompt has been run
        cache.layers.append(RowLayer(layer.keys, layer.values, copies, more))
    return cache
