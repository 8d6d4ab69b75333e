"""Dropout that belongs to the record: its mask does not depend on micro-batch, padding or process."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar, Token
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from winnow.errors import UserError

ODD = (0xBF58476D1CE4E5B9 - 2**64, 0x94D049BB133111EB - 2**64)  # multipliers of SplitMix64
ATTENTION = ("attention_dropout", "attn_pdrop")  # keys of a model's configuration


class RecordDropout(TorchFunctionMode):
    """While it is entered, every dropout of a forward pass drops an entry by a hash of record, position and channel.

        h(call, record, position)   64 bits, SplitMix64's finaliser of all three; its halves are a (made odd) and b
        c(call, channel)            32 bits, likewise
        dropped                     iff a c + b mod 2^32 < p 2^32

    call: one number from torch's generator on the CPU for each dropout in the pass. Whoever seeds that generator
    decides the draw; computing activations again, which restores it, meets the same masks. Attention with dropout is
    computed by its formula, since no fused kernel takes a mask.

    keys: (rows,) int64, one for each row of the batch; None: no dropout at all. length: of the rows, padding included.
    places: (tokens,) in the flattened (rows * length), where the model runs these alone, as one row.
    Raises UserError where a layer does not say which tokens belong to which record.
    """

    def __init__(self, keys: Tensor | None, length: int, places: Tensor | None = None) -> None:
        super().__init__()
        self.keys, self.length, self.places = keys, length, places
        self._before: list[Token] = []

    def __enter__(self) -> RecordDropout:
        self._before.append(_ENTERED.set(self))
        return super().__enter__()

    def __exit__(self, *raised: Any) -> None:
        super().__exit__(*raised)
        _ENTERED.reset(self._before.pop())

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is nn.functional.dropout:
            return self._dropout(*args, **kwargs)
        if func is nn.functional.scaled_dot_product_attention and _attention_dropout(*args, **kwargs):
            return self._attention(*args, **kwargs)
        return func(*args, **kwargs)

    def _dropout(self, x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        if not training or p == 0 or self.keys is None:
            return x
        return x * self.keep(self.keys, tuple(x.shape), p) * (1 / (1 - p) if p < 1 else 0.0)

    def _attention(
        self, query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False
    ) -> Tensor:
        if enable_gqa:
            key, value = (x.repeat_interleave(query.shape[1] // x.shape[1], dim=1) for x in (key, value))
        scores = query @ key.transpose(-2, -1) * (query.shape[-1] ** -0.5 if scale is None else scale)
        if is_causal:
            attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        if attn_mask is not None:
            scores = scores.masked_fill(~attn_mask, -torch.inf) if attn_mask.dtype == torch.bool else scores + attn_mask
        weights = torch.softmax(scores.float(), dim=-1).to(value.dtype)
        return self._dropout(weights, dropout_p) @ value

    def keep(self, keys: Tensor, shape: tuple[int, ...], p: float) -> Tensor:
        """Bool mask, true where an entry is kept. shape: (rows, ..., channels), or one list of all tokens, (tokens,
        channels) or (1, tokens, channels)."""
        rows, by_row = len(keys), shape
        call = int(torch.randint(2**63 - 1, ()))  # first, so that every process and size consumes as much
        tokens = rows * self.length if self.places is None else len(self.places)
        if listed := shape[:-1] in ((tokens,), (1, tokens)):
            by_row = (rows, self.length, shape[-1])
        if not listed and (self.places is not None or len(by_row) < 3 or by_row[0] != rows):
            raise UserError(
                f"This backbone puts the tokens of several records into one list before a dropout (shape {shape}), as "
                f"mixtures of experts do, so that no mask can belong to a record: set tuning.lora_dropout=0, or leave "
                f"such layers out of tuning.lora_target_modules."
            )
        h = _mixed(keys ^ call)
        for size in by_row[1:-1]:
            h = _mixed(h[..., None] ^ _mixed_places(size, h.device))
        if self.places is not None:
            h = h.flatten()[self.places]
        c = _mixed(torch.arange(by_row[-1], device=h.device) ^ _mixed_number(~call))
        a, b = h.to(torch.int32) | 1, (h >> 32).to(torch.int32)
        drawn = torch.addcmul(b[..., None], a[..., None], c.to(torch.int32))  # wraps at 2^32
        return (drawn >= min(round(p * 2**32), 2**32 - 1) - 2**31).view(shape)


class Shift(RecordDropout):
    """While it is entered, `offset` is added to what a block puts out; the two have one shape. Dropout stays that of
    the mode around it; computing activations again, which enters this one, meets the same offset."""

    def __init__(self, block: nn.Module, offset: Tensor) -> None:
        around = _ENTERED.get()
        assert around is not None  # a loss is computed under its dropout
        super().__init__(around.keys, around.length, around.places)
        self.block, self.offset = block, offset

    def __enter__(self) -> Shift:
        self._hook = self.block.register_forward_hook(self._add)
        super().__enter__()
        return self

    def __exit__(self, *raised: Any) -> None:
        super().__exit__(*raised)
        self._hook.remove()

    def _add(self, module: nn.Module, args: tuple, out: Any) -> Any:
        if isinstance(out, tuple):
            return self._add(module, args, out[0]), *out[1:]
        moved = out + self.offset
        # As perturbed embeddings: in fp32 where autocast brings it to the layers' dtype.
        return moved if torch.is_autocast_enabled(out.device.type) else moved.to(out.dtype)


_ENTERED: ContextVar[RecordDropout | None] = ContextVar("record_dropout", default=None)


def again() -> tuple[AbstractContextManager, AbstractContextManager]:
    """`context_fn` of torch's checkpointing: activations are computed again with the dropout of their forward pass."""
    return nullcontext(), _ENTERED.get() or nullcontext()


def check_attention(config: dict[str, Any], implementation: str, padding_free: bool = False) -> None:
    """Raises UserError where dropout happens inside an attention kernel, or among the tokens of several records in one
    row, out of reach of `RecordDropout`.

    config: of the model, as a dict. implementation: name of its attention. padding_free: records share a row.
    """
    for name in (name for name in ATTENTION if padding_free and config.get(name)):
        raise UserError(
            f"The backbone has {name}={config[name]}, and the attention of records in one row has no dropout by "
            f"record: set tuning.packing=none."
        )
    for name in (name for name in ATTENTION if config.get(name) and implementation not in ("sdpa", "eager")):
        raise UserError(
            f"The backbone has {name}={config[name]}, which attention {implementation} draws by micro-batch: set "
            f"backbone.attn_implementation=sdpa."
        )


def _attention_dropout(query, key, value, attn_mask=None, dropout_p=0.0, *_: Any, **__: Any) -> bool:
    return dropout_p > 0


def _mixed(x: Tensor) -> Tensor:
    """SplitMix64's finaliser (Steele et al., OOPSLA 2014) on int64: a bijection whose bits look independent."""
    x = (x ^ _shifted(x, 30)) * ODD[0]
    x = (x ^ _shifted(x, 27)) * ODD[1]
    return x ^ _shifted(x, 31)


@lru_cache(maxsize=256)
def _mixed_places(size: int, device: torch.device) -> Tensor:
    """(size,) `_mixed` of 0, 1, ...: every adapted layer of a micro-batch asks for the same ones."""
    return _mixed(torch.arange(size, device=device))


def _mixed_number(x: int) -> int:
    """`_mixed` of one number, which stays on the host: to send it to a GPU is to wait for the GPU."""
    for bits, odd in zip((30, 27, 31), (*ODD, 1), strict=True):
        x %= 2**64
        x = (x ^ x >> bits) * odd
    return (x + 2**63) % 2**64 - 2**63


def _shifted(x: Tensor, bits: int) -> Tensor:
    return (x >> bits) & ((1 << (64 - bits)) - 1)  # zeros move in, not the sign
