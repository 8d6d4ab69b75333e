"""The interface between the tuner and whatever perturbs the input embeddings.

The tuner does not know which adversary runs: it hands over a function from embeddings to loss, and trains on
the scalar that comes back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from torch import Tensor

# embeddings (batch, length, width) -> mean negative log-likelihood of the answer tokens, a scalar in nats
LossOf = Callable[[Tensor], Tensor]


class Adversary(Protocol):
    """Turns the loss of a micro-batch into the loss that is trained on.

    What an implementation may rely on, and must keep to:
    - `loss_of` may be called any number of times; each call is one forward pass, with its own dropout draw.
    - a perturbation is found with `torch.autograd.grad(loss_of(embeds + delta), delta)`, never `.backward()`:
      the gradients of the weights, and their synchronisation between processes, belong to the tuner.
    - the result is linear in the losses it is made of, since the tuner scales it by the micro-batch's share
      of the optimizer step's answer tokens.
    - random draws come from torch's default generator, which the tuner seeds for each micro-batch by
      (seed, step, micro-batch): a resumed run draws the same noise.
    """

    def loss(self, loss_of: LossOf, embeds: Tensor, mask: Tensor) -> Tensor:
        """The scalar to train on.

        embeds: (batch, length, width) input embeddings of prompt and answer.
        mask: (batch, length) bool, false at padding, where a perturbation must stay 0.
        """
        ...

    def settings(self) -> dict:
        """What changes the trained weights; JSON-able, part of the tuned model's fingerprint."""
        ...
