"""Negative log-likelihood of chosen tokens, without ever holding the logits of a whole batch.

Pure tensor functions: no configuration, no tokenizer, no I/O.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

# Rows of logits alive at once: 256 rows of a 128k vocabulary are 131 MB in fp32 (ours).
CHUNK_ROWS = 256

Logits = Callable[[Tensor], Tensor]  # (rows, width) to (rows, vocabulary)


def token_nll(hidden: Tensor, logits: Logits, targets: Tensor, chunk: int = CHUNK_ROWS) -> Tensor:
    """-log p(target | context) for each row, in nats.

        nll_i = logsumexp(z_i) - z_i[target_i],   z_i = logits(h_i)

    hidden: (rows, width), the final hidden state that predicts each target; any float dtype.
    logits: the model's own map from hidden states to logits; see `CausalModel.logits`.
    targets: (rows,) token ids. Returns (rows,) in fp32.

    The map runs in its own dtype, the soft-max in fp32. Logits exist for `chunk` rows at a time; under
    autograd each chunk is computed again in the backward pass instead of being kept.
    """
    if hidden.shape[0] != targets.shape[0]:
        raise ValueError(f"{hidden.shape[0]} hidden rows but {targets.shape[0]} targets")
    if hidden.shape[0] == 0:
        return hidden.new_zeros(0, dtype=torch.float32)
    keep_graph = torch.is_grad_enabled() and hidden.requires_grad
    losses = []
    for rows, wanted in zip(hidden.split(chunk), targets.split(chunk), strict=True):
        if keep_graph:
            losses.append(checkpoint(_nll_rows, rows, logits, wanted, use_reentrant=False))
        else:
            losses.append(_nll_rows(rows, logits, wanted))
    return torch.cat(losses)


def token_nll_entropy(hidden: Tensor, logits: Logits, targets: Tensor, chunk: int = CHUNK_ROWS) -> tuple[Tensor, ...]:
    """`token_nll`, and the entropy of each row's distribution: in nats, and as a share of the largest there could be.

        H_i = - sum over the vocabulary v of p_i(v) log p_i(v),   p_i = softmax(logits(h_i));   H_i / log V

    Arguments as of `token_nll`. Returns three (rows,) in fp32; H_i lies between 0 and log V, V logits a row.
    """
    if hidden.shape[0] == 0:
        return tuple(hidden.new_zeros(0, dtype=torch.float32) for _ in range(3))
    parts = []
    for rows, wanted in zip(hidden.split(chunk), targets.split(chunk), strict=True):
        log_p = logits(rows).float().log_softmax(-1)
        entropy = torch.special.entr(log_p.exp()).sum(-1)  # 0 log 0 = 0
        nll = -log_p.gather(1, wanted[:, None])[:, 0]
        parts.append(torch.stack([nll, entropy, entropy / math.log(log_p.shape[-1])]))
    return tuple(torch.cat(parts, dim=1))


def _nll_rows(rows: Tensor, logits: Logits, wanted: Tensor) -> Tensor:
    return nn.functional.cross_entropy(logits(rows).float(), wanted, reduction="none")
