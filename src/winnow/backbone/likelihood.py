"""Negative log-likelihood of chosen tokens, without ever holding the logits of a whole batch.

Pure tensor functions: no configuration, no tokenizer, no I/O.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

# Rows of logits alive at once: 256 rows of a 128k vocabulary are 131 MB in fp32 (ours).
CHUNK_ROWS = 256


def token_nll(hidden: Tensor, head: nn.Module, targets: Tensor, chunk: int = CHUNK_ROWS) -> Tensor:
    """-log p(target | context) for each row, in nats.

        nll_i = logsumexp(W h_i + b) - (W h_i + b)[target_i]

    hidden: (rows, width), the final hidden state that predicts each target; any float dtype.
    head: the language-model head, a module that maps (rows, width) to (rows, vocabulary).
    targets: (rows,) token ids. Returns (rows,) in fp32.

    The head runs in its own dtype, the soft-max in fp32. Logits exist for `chunk` rows at a time; under
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
            losses.append(checkpoint(_nll_rows, rows, head, wanted, use_reentrant=False))
        else:
            losses.append(_nll_rows(rows, head, wanted))
    return torch.cat(losses)


def _nll_rows(rows: Tensor, head: nn.Module, wanted: Tensor) -> Tensor:
    return nn.functional.cross_entropy(head(rows).float(), wanted, reduction="none")


def final_hidden(model: nn.Module, past=None, **inputs) -> Tensor:
    """Final hidden states (batch, length, width) after the last norm, without running the head.

    `inputs` are those of the model's forward (`input_ids` or `inputs_embeds`, `attention_mask`, ...). Works
    for plain models and for models wrapped by peft, whose adapters sit inside the base model's layers.
    """
    return decoder(model)(**inputs, past_key_values=past, use_cache=past is not None)[0]


def decoder(model: nn.Module) -> nn.Module:
    """The transformer body below the language-model head, also inside a peft wrapper."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    return inner.base_model
