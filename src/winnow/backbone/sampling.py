"""Drawing the next token: temperature and top-p, exactly, and as a function of (seed, record, draw, position) alone.

Pure tensor functions: no configuration, no tokenizer, no I/O.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from winnow import draws

TRIES = 3  # draws from the whole distribution before the few rows that are left are sorted (ours)
UNIFORMS = TRIES + 1  # uniform numbers that one token may use up


def uniforms(seed: int, record_id: str, draw: int, tokens: int) -> Tensor:
    """The uniform numbers in [0, 1) behind one answer: (tokens, UNIFORMS) fp32 on the CPU.

    A function of (seed, record id, draw). They do not depend on the batch, the order or the device, and a longer answer
    begins with the numbers of a shorter one.
    """
    return torch.rand(tokens, UNIFORMS, generator=draws.generator("answer", seed, record_id, draw))


@contextmanager
def _warned() -> Iterator[None]:
    """What torch forbids under `trainer.deterministic=true` it warns of inside the block: sums of fp32 on a GPU."""
    before = torch.get_deterministic_debug_mode()
    torch.set_deterministic_debug_mode(min(before, 1))
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(before)


@_warned()
def next_tokens(
    logits: Tensor, uniform: Tensor, temperature: float = 1.0, top_p: float = 1.0, top_k: int | None = None
) -> Tensor:
    """One token for each row, drawn from the tempered distribution restricted to its top-p set.

        q = softmax(logits / temperature);   token v is in the set  iff  sum of q over tokens likelier than v < top_p

    that is the smallest set of likeliest tokens whose mass reaches top_p; of tokens tied at its edge all are in it.
    top_k: first keep the k largest logits and let q be the distribution over them. temperature 0: the likeliest token.

    logits: (rows, vocabulary); uniform: (rows, UNIFORMS) in [0, 1). Returns (rows,) token ids.

    Without top_k nothing is sorted. A token drawn from q by inversion of its cumulative sum, taken in the order of the
    vocabulary, is accepted if it is in the set; that is a draw from the restricted distribution, and one comparison
    with the row tells it. A row is refused with probability 1 - top_p at most. Rows refused three times are sorted and
    inverted. Near ties in the logits, which another batch may round the other way, move no token in that order.
    """
    if temperature == 0:
        return logits.argmax(-1)
    if top_k is not None and top_k < logits.shape[-1]:
        values, names = logits.float().topk(top_k, dim=-1)
        return names.gather(1, _sorted(torch.softmax(values / temperature, -1), uniform[:, 0], top_p)[:, None])[:, 0]
    q = torch.softmax(logits.float() / temperature, dim=-1)
    sums = q.cumsum(-1)
    token = _inverted(sums, uniform[:, 0])
    if top_p >= 1:
        return token
    open_rows = torch.arange(len(token), device=q.device)
    own, own_sums, draws, drawn = q, sums, uniform, token
    for attempt in range(1, UNIFORMS):
        refused = (~_in_set(own, drawn, top_p)).nonzero()[:, 0]
        if not len(refused):
            return token
        open_rows, own, own_sums, draws = open_rows[refused], own[refused], own_sums[refused], draws[refused]
        if attempt < TRIES:
            drawn = _inverted(own_sums, draws[:, attempt])
            token[open_rows] = drawn
    values, names = own.sort(dim=-1, descending=True)
    places = _sorted(values, draws[:, TRIES], top_p)
    token[open_rows] = names.gather(1, places[:, None])[:, 0]
    return token


def _inverted(sums: Tensor, uniform: Tensor) -> Tensor:
    """The first entry of each row whose cumulative sum exceeds the uniform share of the row's total."""
    wanted = uniform.to(sums.device, sums.dtype) * sums[:, -1]
    return torch.searchsorted(sums, wanted[:, None], right=True)[:, 0].clamp(max=sums.shape[-1] - 1)


def _in_set(q: Tensor, token: Tensor, top_p: float) -> Tensor:
    """Whether the mass of the tokens likelier than the drawn one is below top_p. (rows,) booleans."""
    own = q.gather(1, token[:, None])
    return (q * (q > own)).sum(-1) < top_p


def _sorted(q: Tensor, uniform: Tensor, top_p: float) -> Tensor:
    """Places drawn from rows that are sorted from likeliest to least likely, restricted to their top-p set."""
    edge = q.gather(1, (q.cumsum(-1) - q < top_p).sum(-1, keepdim=True) - 1)
    kept = torch.where(q >= edge, q, 0)  # of equal ones at the edge all
    return _inverted(kept.cumsum(-1), uniform)
