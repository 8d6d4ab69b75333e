"""The interface between the tuner and whatever perturbs the input embeddings.

The tuner does not know which adversary runs: it hands over the loss of a micro-batch as a function of its input
embeddings, and trains on the scalar that comes back.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Protocol

from torch import Tensor

from winnow.errors import UserError, check_choice

REGIONS = ("input", "sample", "instruction")


class Kept(Protocol):
    """A weighted sum of losses of which only the gradients are kept, so that one graph at a time is in memory."""

    def add(self, delta: Tensor, weight: float) -> Tensor:
        """One forward and one backward pass at embeds + delta; adds `weight` times the loss to the sum.

        delta: (batch, length, width). Returns the gradient of that loss with respect to delta, same shape, fp32.
        """
        ...

    def loss(self) -> Tensor:
        """The sum as a scalar whose backward pass hands the kept gradients over. Call it once, after the last add."""
        ...


class LossOf(Protocol):
    """The mean negative log-likelihood of a micro-batch's answer tokens, in nats, as a function of its embeddings."""

    def __call__(self, embeds: Tensor) -> Tensor:
        """(batch, length, width) -> scalar. One forward pass; a graph to the trained weights and to `embeds`."""
        ...

    def gradient(self, embeds: Tensor, dropout: bool = True) -> Tensor:
        """dL/dembeds, (batch, length, width) in fp32: one forward and one backward pass that never touch a weight's
        gradient, keep nothing for one, and leave no graph. dropout: False switches it off for these passes."""
        ...

    def keep(self, embeds: Tensor) -> Kept:
        """An empty sum of losses around `embeds`; see Kept."""
        ...

    def states(self, embeds: Tensor) -> Tensor:
        """(answer tokens, width): what the predictions of the answer tokens are made of. One forward pass; a graph."""
        ...

    def nll(self, states: Tensor) -> Tensor:
        """The loss of such states: loss_of(embeds) = nll(states(embeds))."""
        ...

    def divergence(self, states: Tensor, others: Tensor) -> Tensor:
        """KL(P || Q) + KL(Q || P) of the predictions P and Q of two such tables, mean over the answer tokens, nats."""
        ...

    def at(self, layer: int) -> LossOf:
        """The same losses as functions of what is added to the output of block `layer`, counted from 1, in place of the
        input embeddings; at 0 it is the clean loss. Raises UserError for a block that the model does not have."""
        ...

    def uniform(self) -> Tensor:
        """(batch, length, width) in fp32 from U(-1, 1), 0 at padding; for each record a function of
        (seed, step, record id) alone."""
        ...

    def same_dropout(self) -> None:
        """The next forward pass draws the dropout of the micro-batch's first one."""
        ...


class Adversary:
    """Turns the loss of a micro-batch into the loss that is trained on.

    region: where a perturbation may lie: `input`, the tokens of the record's instruction and input, without the
    template's words and the answer; `sample`, every token of prompt and answer; `instruction`, those of the instruction
    only. The tuner makes `mask` from it.

    What an implementation may rely on, and must keep to:
    - every forward pass has a dropout draw of its own, unless `loss_of.same_dropout()` asks for the first one again.
    - a perturbation is found with `loss_of.gradient` or `Kept.add` (or `torch.autograd.grad`), never `.backward()`:
      the gradients of the weights, and their synchronisation between processes, belong to the tuner.
    - the result is linear in the losses it is made of, and so is its gradient, since the tuner scales it by the
      micro-batch's share of the optimizer step's answer tokens. A perturbation must therefore not depend on the scale
      of a gradient: the same record has another scale in a micro-batch of another size.
    - random numbers come from `loss_of.uniform()`: a record's draw does not depend on the micro-batch it is in, and a
      resumed run draws the same again.
    - every micro-batch takes the same passes: where a model is sharded, all processes make theirs together.
    - a perturbation is added in fp32: its entries are far smaller than what bf16 can tell from an embedding.

    needs_distortion: whether it depends on how far instructions are distorted, which is measured only then. layers:
    the blocks that it asks `loss_of.at` for.
    """

    version: ClassVar[int] = 1  # raised when the same arguments would give other weights
    region: str = "sample"
    needs_distortion: bool = False
    layers: Sequence[int] = ()

    def loss(self, loss_of: LossOf, embeds: Tensor, mask: Tensor) -> Tensor:
        """The scalar to train on.

        embeds: (batch, length, width) input embeddings of prompt and answer.
        mask: (batch, length) bool, true where a perturbation may lie; elsewhere, as at padding, it must stay 0.
        """
        raise NotImplementedError

    def prepare(self, distortion: float) -> None:
        """Called when an epoch begins with the distortion beta in [0, 1] of its noised instructions; never where
        instructions are not noised, or where none is needed."""


def check_settings(region: str, rounds: int = 1, **numbers: float) -> None:
    """Raises UserError unless region is known, rounds is 1 or more, and every number is finite and not negative."""
    check_choice("adversary.region", region, REGIONS)
    if rounds != int(rounds) or rounds < 1:
        raise UserError(f"adversary.rounds={rounds} must be a whole number of 1 or more.")
    for key, number in numbers.items():
        if not 0 <= number < float("inf"):
            raise UserError(f"adversary.{key}={number} must be a number of 0 or more.")
