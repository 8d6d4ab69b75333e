"""Adversaries that look past the embeddings and the labels: SMART and latent perturbations."""

from __future__ import annotations

import math

import pytest
import torch
from composed import build
from test_adversaries import Linear
from test_loss import model_of, ramp, setup, trained
from tiny_tuning import micro_batch, tiny_model, tiny_records
from torch import Tensor

from winnow.backbone.divergence import symmetric_kl
from winnow.errors import UserError
from winnow.tuning.loss import MicroBatchLoss
from winnow.tuning.trainable import with_adapters

SMART = build("adversary/smart", epsilon=0.3, sigma=0.1, alpha=0.2, rounds=2)
LATENT = build("adversary/latent", layer=1, epsilon=0.3, alpha=0.1, rounds=2)


def test_symmetric_kl_by_hand():
    """P = (1/2, 1/2), Q = (1/4, 3/4): (1/4) log 2 + (-1/4) log(2/3) = log(3) / 4, in both orders; 0 with itself. So has
    each of three rows, two at a time."""
    p, q = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.25, 0.75]]).log()
    one, other, same = (float(symmetric_kl(a, b, lambda rows: rows)) for a, b in ((p, q), (q, p), (p, p)))
    assert (one, other, same) == pytest.approx((math.log(3) / 4, math.log(3) / 4, 0))
    rows = symmetric_kl(p.expand(3, 2), q.expand(3, 2), lambda rows: rows, chunk=2)
    assert rows.tolist() == pytest.approx([math.log(3) / 4] * 3)


class Plain:
    """States are the embeddings, L = <(3, 0, 0, 4), e>, D = |e - e'|^2, whose gradient points away; U(-1, 1) comes out
    as (0.6, 0, 0, 0.8)."""

    def states(self, embeds: Tensor) -> Tensor:
        return embeds.flatten()

    def nll(self, states: Tensor) -> Tensor:
        return (torch.tensor([3.0, 0.0, 0.0, 4.0]) * states).sum()

    def divergence(self, states: Tensor, others: Tensor) -> Tensor:
        return (states - others).square().sum()

    def uniform(self) -> Tensor:
        return torch.tensor([[[0.6, 0.0], [0.0, 0.8]]])


def test_smart_by_hand():
    """sigma 0.1, N = 4: the start 0.1 / 2 (0.6, 0, 0, 0.8) has norm 0.05. Two steps of 0.04 along it would end at 0.13,
    outside of the ball of 0.1. At X = (1, 0, 0, 1): L = 7 + 2 * 0.1^2. Its gradient is that of
    the clean loss: |X - (X + delta)|^2 does not depend on X, if both of its sides are trained on."""
    smart = build("adversary/smart", epsilon=0.1, sigma=0.1, alpha=0.04, rounds=2, weight=2.0)
    embeds, everywhere = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]), torch.ones(1, 2, dtype=torch.bool)
    loss = smart.loss(Plain(), embeds.requires_grad_(), everywhere)
    assert float(loss) == pytest.approx(7.02)
    assert torch.autograd.grad(loss, embeds)[0].flatten().tolist() == pytest.approx([3, 0, 0, 4], abs=1e-6)
    one = build("adversary/smart", epsilon=1.0, sigma=0.1, alpha=0.04, rounds=1, weight=1.0)
    assert float(one.loss(Plain(), embeds, everywhere)) == pytest.approx(7 + 0.09**2)


def test_smart_moves_its_region_alone(monkeypatch):
    """Only the instruction's tokens differ from the clean embeddings, in the ascent and in the end."""
    loss_of, embeds, _ = setup()
    points, states = [], MicroBatchLoss.states
    monkeypatch.setattr(MicroBatchLoss, "states", lambda self, e: points.append(e.detach()) or states(self, e))
    SMART.loss(loss_of, embeds, loss_of.batch.regions["instruction"])
    deltas = [point - embeds.detach() for point in points[1:]]
    outside = ~loss_of.batch.regions["instruction"]
    assert len(deltas) == 3 and all(delta[outside].abs().max() == 0 < delta.abs().max() for delta in deltas)


def test_smart_compares_states_of_one_precision(monkeypatch):
    """On a bf16 backbone under autocast: the clean states are made from fp32 embeddings, as the moved ones are."""
    model = with_adapters(tiny_model().bfloat16(), 2, 4, 0.0, "all-linear", seed=0).get_base_model().train()
    loss_of, kinds, states = MicroBatchLoss(model, micro_batch(tiny_records(2))), [], MicroBatchLoss.states
    monkeypatch.setattr(MicroBatchLoss, "states", lambda self, e: kinds.append(e.dtype) or states(self, e))
    with torch.autocast("cpu", torch.bfloat16):
        SMART.loss(loss_of, model.get_input_embeddings()(loss_of.batch.ids), loss_of.batch.mask)
    assert kinds == [torch.float32] * 4


@pytest.mark.parametrize("mode", ["lora", "full"])
def test_the_ascent_of_smart_raises_the_divergence(mode):
    """At the tiny model's weights it is more than twice as large after two steps as at the start; the gradient of L
    reaches every trained weight."""
    values = []
    for alpha in (0.0, 0.3):
        smart = build("adversary/smart", epsilon=0.3, sigma=0.5, alpha=alpha, rounds=2)
        model = model_of(mode)
        loss_of = MicroBatchLoss(model, micro_batch(tiny_records(6)))
        embeds = model.get_input_embeddings()(loss_of.batch.ids)
        loss = smart.loss(loss_of, embeds, loss_of.batch.mask)
        values.append(loss.item() - loss_of(embeds).item())
        loss.backward()
        assert all(p.grad is not None and bool(p.grad.abs().max() > 0) for p in trained(model))
    assert values[1] > 2 * values[0] > 0


def test_a_layers_loss_is_that_of_moved_states():
    """Block 1's states moved by hand, then block 2, norm and head: the same loss, and at 0 the clean one. The gradient
    is the slope between two points 1e-3 apart on each side."""
    loss_of, embeds, model = setup()
    view, offset = loss_of.at(1), ramp(embeds.detach(), 0.1)
    body, rows = model.model, loss_of.batch.rows
    with torch.no_grad():
        moved = body(input_ids=loss_of.batch.ids, output_hidden_states=True).hidden_states[1] + offset
        places = torch.arange(moved.shape[1])[None]
        last = body.layers[1](moved, position_embeddings=body.rotary_emb(moved, places), position_ids=places)
        logits = model.lm_head(body.norm(last)).flatten(0, 1)[rows]
        assert float(view(offset)) == pytest.approx(
            float(torch.nn.functional.cross_entropy(logits, loss_of.batch.targets)), abs=1e-5
        )
        assert float(view(0 * offset)) == pytest.approx(float(loss_of(embeds)), abs=1e-6)
        slope = (float(view(1.01 * offset)) - float(view(0.99 * offset))) / 0.02
    gradient = view.gradient(offset)
    assert float((gradient * offset).sum()) == pytest.approx(slope, rel=0.05, abs=1e-4) and gradient.abs().max() > 1e-3


def test_a_block_that_is_not_there():
    loss_of, *_ = setup()
    for layer in (0, 3):
        with pytest.raises(UserError, match=rf"layer={layer} does not exist: .* has the blocks 1 to 2"):
            loss_of.at(layer)


class Blocks:
    """`at` keeps the layers that were asked for, and gives the function of test_adversaries at each."""

    def __init__(self) -> None:
        self.layers, self.view = [], Linear(torch.tensor([[[3.0, 0.0], [0.0, 4.0]]]))

    def at(self, layer: int) -> Linear:
        self.layers.append(layer)
        return self.view


def test_latent_by_hand():
    """As test_pgd_by_hand, in the states of block 3: along (0.6, 0, 0, 0.8) to 0.04, 0.08, then 0.12, which is
    projected to 0.1, where L = 0.5, half of which counts. The embeddings, 1 everywhere, play no part."""
    latent = build("adversary/latent", layer=3, epsilon=0.1, alpha=0.04, rounds=3, random_start=False, weight=0.5)
    blocks = Blocks()
    loss = float(latent.loss(blocks, torch.ones(1, 2, 2), torch.ones(1, 2, dtype=torch.bool)))
    along = [(point.flatten() @ torch.tensor([0.6, 0.0, 0.0, 0.8])).item() for point in blocks.view.points]
    assert blocks.layers == [3] and along == pytest.approx([0, 0.04, 0.08, 0.0, 0.1]) and loss == pytest.approx(0.25)
    assert latent.layers == (3,)  # which is looked for before anything is computed
    assert all(point.norm().item() == pytest.approx(one) for point, one in zip(blocks.view.points, along, strict=True))
