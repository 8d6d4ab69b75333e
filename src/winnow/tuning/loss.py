"""The loss of one micro-batch as a function of its input embeddings: what the tuner hands to an adversary."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from winnow import draws
from winnow.backbone.causal_model import CausalModel
from winnow.backbone.divergence import symmetric_kl
from winnow.backbone.likelihood import CHUNK_ROWS, Logits, token_nll
from winnow.tuning.data import MicroBatch
from winnow.tuning.dropout import RecordDropout, Shift


class MicroBatchLoss:
    """Mean negative log-likelihood of the micro-batch's answer tokens, in nats; see `adversary.base.LossOf`.

    Logits exist at answer positions only. model: a causal language model. batch: with at least one record. scale: of a
    sharded model, by what a loss is multiplied before its gradients are averaged over the processes; None: not sharded.
    padding_free: the model runs the tokens as one row, in which there is no padding; embeddings, perturbations and
    gradients have the shape of the padded batch all the same. Needs `CausalModel.packing`.
    """

    model: Any  # torch knows its methods as tensors or modules

    def __init__(
        self, model: nn.Module, batch: MicroBatch, seed: int = 0, scale: float | None = None, padding_free: bool = False
    ) -> None:
        self.model, self.batch, self.seed = model, batch, seed
        self.scale, self.padding_free = scale, padding_free
        self.causal = CausalModel(model)
        # Records of one length have no padding, and need no mask that tells them apart.
        run_as_row = padding_free and not bool(batch.mask.all())
        self.places = batch.mask.flatten().nonzero()[:, 0] if run_as_row else None
        self.weights = [p for p in model.parameters() if p.requires_grad]

    def __call__(self, embeds: Tensor) -> Tensor:
        return self.nll(self.states(embeds))

    def states(self, embeds: Tensor) -> Tensor:
        with self._dropout():
            return self._predicting(embeds)

    def nll(self, states: Tensor) -> Tensor:
        return token_nll(states, self.causal.logits, self.batch.targets).mean()

    def divergence(self, states: Tensor, others: Tensor) -> Tensor:
        return symmetric_kl(states, others, self.causal.logits).mean()

    def at(self, layer: int) -> LayerLoss:
        return LayerLoss(self, layer)

    def gradient(self, embeds: Tensor, dropout: bool = True) -> Tensor:
        point = embeds.detach().float().requires_grad_()
        # A weight that asks for a gradient makes its layer keep its input for one, wanted or not.
        with _without_gradients(self.weights), self._dropout() if dropout else RecordDropout(None, 0):
            predicting = self._predicting(point)
            slope = _head_slope(predicting, self.causal.logits, self.batch.targets)
            gradient = _gradients(predicting, [point], slope)[0]
        assert gradient is not None  # states depend on the embeddings
        return gradient

    def keep(self, embeds: Tensor) -> KeptGradients | ShardedGradients:
        return KeptGradients(self, embeds) if self.scale is None else ShardedGradients(self, embeds, self.scale)

    def uniform(self) -> Tensor:
        embedding = self.model.get_input_embeddings().weight
        mask = self.batch.mask
        # Nothing here waits for a GPU: lengths are not asked for, and pinned memory is sent while it is at work.
        drawn = torch.empty(*mask.shape, embedding.shape[1], pin_memory=mask.is_cuda)
        for row, record in zip(drawn, self.batch.records, strict=True):
            row.uniform_(-1.0, 1.0, generator=draws.generator(self.seed, "adversary", record, self.batch.step))
        return drawn.to(mask.device, non_blocking=True).masked_fill_(~mask[..., None], 0.0)

    def same_dropout(self) -> None:
        torch.manual_seed(draws.key("dropout", self.seed, self.batch.step))

    @cached_property
    def _keys(self) -> Tensor:
        """(batch,): of the records' dropout."""
        names, ids = [draws.key(0, record) - 2**63 for record in self.batch.records], self.batch.ids
        return torch.tensor(names, pin_memory=ids.is_cuda).to(ids.device, non_blocking=True)

    def _dropout(self) -> RecordDropout:
        return RecordDropout(self._keys, self.batch.ids.shape[1], self.places)

    def _predicting(self, embeds: Tensor) -> Tensor:
        """(answer tokens, width): the final hidden states that predict an answer token."""
        if not torch.is_autocast_enabled(embeds.device.type):
            # Perturbed embeddings are fp32. Where no autocast does it, they must be brought to the backbone's dtype.
            embeds = embeds.to(self.model.get_input_embeddings().weight.dtype)
        return self._states(inputs_embeds=embeds)

    def _states(self, **table: Any) -> Tensor:
        """(answer tokens, width): the states that predict an answer token, of what the model is given, padded."""
        if self.places is None:
            return self.causal.hidden(**table).flatten(0, 1).index_select(0, self.batch.rows)
        answers = torch.searchsorted(self.places, self.batch.rows)
        return self.causal.packed(self.places, **table).index_select(0, answers)


class LayerLoss(MicroBatchLoss):
    """The losses as functions of what is added to the output of a block; see `LossOf.at`."""

    def __init__(self, loss_of: MicroBatchLoss, layer: int) -> None:
        super().__init__(loss_of.model, loss_of.batch, loss_of.seed, loss_of.scale, loss_of.padding_free)
        self.block = self.causal.block(layer)

    def _predicting(self, embeds: Tensor) -> Tensor:
        if self.places is not None:
            embeds = embeds.flatten(0, 1).index_select(0, self.places)[None]
        with Shift(self.block, embeds):
            return self._states(input_ids=self.batch.ids)


class KeptGradients:
    """A weighted sum of losses around `embeds`, as gradients; see `adversary.base.Kept`."""

    def __init__(self, loss_of: MicroBatchLoss, embeds: Tensor) -> None:
        self.loss_of, self.embeds = loss_of, embeds
        # What the sum depends on. Embeddings that are trained get theirs through `embeds`, from the same gradient that
        # serves the perturbation.
        self.inputs = [embeds, *loss_of.weights] if embeds.requires_grad else list(loss_of.weights)
        self.sums: list[Tensor | None] = [None] * len(self.inputs)
        self.value = torch.zeros((), device=embeds.device)

    def add(self, delta: Tensor, weight: float) -> Tensor:
        point = (self.embeds.detach() + delta).float().requires_grad_()
        loss = self.loss_of(point)
        found = _gradients(loss, [point, *self.loss_of.weights])
        self.value += weight * loss.detach()
        for i, gradient in enumerate(found if self.embeds.requires_grad else found[1:]):
            if gradient is not None:
                total = self.sums[i]
                self.sums[i] = weight * gradient if total is None else total.add_(gradient, alpha=weight)
        assert found[0] is not None  # the loss depends on the embeddings
        return found[0]

    def loss(self) -> Tensor:
        pairs = [(x, g) for x, g in zip(self.inputs, self.sums, strict=True) if g is not None]
        return _HandOver.apply(self.value, [g.to(x.dtype) for x, g in pairs], *[x for x, _ in pairs])


class ShardedGradients:
    """As KeptGradients, for a sharded model: no process has the gradients of its weights together, so that each loss's
    own backward pass adds them to the weights' gradients at once, multiplied by `scale`."""

    def __init__(self, loss_of: MicroBatchLoss, embeds: Tensor, scale: float) -> None:
        self.loss_of, self.embeds, self.scale = loss_of, embeds, scale
        self.value, self.sum = torch.zeros((), device=embeds.device), torch.zeros_like(embeds, dtype=torch.float32)

    def add(self, delta: Tensor, weight: float) -> Tensor:
        point = (self.embeds.detach() + delta).float().requires_grad_()
        loss = self.loss_of(point)
        with torch.autocast(loss.device.type, enabled=False):
            (loss * (weight * self.scale)).backward()
        assert point.grad is not None  # the loss depends on the embeddings
        self.value += weight * loss.detach()
        if self.scale == 0:  # of a spare micro-batch
            return point.grad
        self.sum += point.grad / self.scale
        return point.grad / (weight * self.scale)

    def loss(self) -> Tensor:
        inputs = self.embeds if self.embeds.requires_grad else torch.zeros_like(self.embeds, requires_grad=True)
        return _HandOver.apply(self.value, [self.sum.to(inputs.dtype)], inputs)


class _HandOver(torch.autograd.Function):
    """A scalar whose backward pass gives out gradients that are known already."""

    @staticmethod
    def forward(ctx, value: Tensor, gradients: list[Tensor], *inputs: Tensor) -> Tensor:
        ctx.gradients = gradients
        return value.clone()

    @staticmethod
    def backward(ctx, scale: Tensor):
        if ctx.gradients is None:
            raise RuntimeError("kept gradients can be handed over once only")
        # In place: in full tuning these are as large as the model.
        given, ctx.gradients = [gradient.mul_(scale) for gradient in ctx.gradients], None
        return None, None, *given


@contextmanager
def _without_gradients(weights: Sequence[nn.Parameter]) -> Iterator[None]:
    for weight in weights:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in weights:
            weight.requires_grad_(True)


def _gradients(output: Tensor, inputs: Sequence[Tensor], slope: Tensor | None = None) -> Sequence[Tensor | None]:
    """torch.autograd.grad outside of autocast, as the tuner's own backward pass is."""
    with torch.autocast(output.device.type, enabled=False):
        return torch.autograd.grad(output, inputs, slope, allow_unused=True)


def _head_slope(predicting: Tensor, logits: Logits, targets: Tensor) -> Tensor:
    """Gradient of the mean NLL with respect to the hidden states below the head, (answer tokens, width).

    As the head's weights want no gradient here, each chunk of logits can give its gradient at once: nothing is kept
    or computed a second time.
    """
    parts: list[Any] = []
    for rows, wanted in zip(predicting.detach().split(CHUNK_ROWS), targets.split(CHUNK_ROWS), strict=True):
        rows = rows.requires_grad_()
        nll = nn.functional.cross_entropy(logits(rows).float(), wanted, reduction="sum") / len(targets)
        parts += _gradients(nll, [rows])
    return torch.cat(parts)
