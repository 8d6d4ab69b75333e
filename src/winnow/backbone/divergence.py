"""How far two next-token distributions lie apart, without ever holding the logits of a whole batch.

Pure tensor functions: no configuration, no tokenizer, no I/O.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from winnow.backbone.likelihood import Logits

# Rows of logits alive at once (ours). Several tables of (rows, vocabulary) stand side by side here, so fewer rows than
# a loss takes; 64 and 256 were both about a tenth slower on a CPU.
CHUNK_ROWS = 128


def kl_rows(clean: Tensor, noisy: Tensor, logits: Logits, chunk: int = CHUNK_ROWS) -> Tensor:
    """KL(P || Q) of each row, in nats.

        KL_i = sum over the vocabulary v of P_i(v) (log P_i(v) - log Q_i(v))
        P_i = softmax(logits(h_i)) from the clean row, Q_i = softmax(logits(h~_i)) from the noisy one

    This is the inner sum of eq. 3 in "Priority on High-Quality" (EMNLP 2025); the mean over positions is the caller's.

    clean: (rows, width) final hidden states; any float dtype. noisy: (rows, width), or (variants, rows, width) to
    compare several variants with the same clean rows, whose distribution is then made once. logits: the model's own map
    from hidden states to logits; see `CausalModel.logits`. Returns (rows,) or (variants, rows) in fp32.

    The map runs in its own dtype, the soft-max and the sum in fp32. Logits exist for `chunk` rows at a time. Rounding
    can leave a sum of zero at -1e-8; it is returned as 0. Raises ValueError if the shapes do not fit.
    """
    if noisy.shape[-2:] != clean.shape or noisy.dim() not in (2, 3):
        raise ValueError(f"clean rows are {tuple(clean.shape)}, noisy rows {tuple(noisy.shape)}")
    variants = noisy.unsqueeze(0) if noisy.dim() == 2 else noisy
    if clean.shape[0] == 0:
        return clean.new_zeros(noisy.shape[:-1], dtype=torch.float32)
    parts = []
    for p_rows, q_rows in zip(clean.split(chunk), variants.split(chunk, dim=1), strict=True):
        log_p = _log_softmax(p_rows, logits)
        p = log_p.exp()
        parts.append(torch.stack([(p * (log_p - _log_softmax(rows, logits))).sum(-1) for rows in q_rows]))
    divergence = torch.cat(parts, dim=1).clamp(min=0.0)
    return divergence[0] if noisy.dim() == 2 else divergence


def symmetric_kl(rows: Tensor, others: Tensor, logits: Logits, chunk: int = CHUNK_ROWS) -> Tensor:
    """KL(P || Q) + KL(Q || P) = sum over the vocabulary of (P - Q) (log P - log Q) of each row, in nats.

    rows, others: (rows, width) final hidden states. Returns (rows,) in fp32. Under autograd each chunk is computed
    again in the backward pass instead of being kept.
    """
    parts = [
        checkpoint(_symmetric_rows, one, other, logits, use_reentrant=False)
        for one, other in zip(rows.split(chunk), others.split(chunk), strict=True)
    ]
    return torch.cat(parts)


def _symmetric_rows(rows: Tensor, others: Tensor, logits: Logits) -> Tensor:
    log_p, log_q = _log_softmax(rows, logits), _log_softmax(others, logits)
    return ((log_p.exp() - log_q.exp()) * (log_p - log_q)).sum(-1)


def _log_softmax(rows: Tensor, logits: Logits) -> Tensor:
    return nn.functional.log_softmax(logits(rows), dim=-1, dtype=torch.float32)
