"""Token losses in chunks."""

from __future__ import annotations

import math

import torch
from torch import nn

from winnow.backbone.causal_model import CausalModel
from winnow.backbone.likelihood import token_nll


def test_by_hand():
    """Logits (0, ln 2, ln 5) give probabilities (1, 2, 5) / 8, so the losses are ln 8, ln 4, ln 8/5."""
    head = nn.Linear(3, 3, bias=False)
    head.weight.data = torch.eye(3)
    hidden = torch.log(torch.tensor([[1.0, 2.0, 5.0]])).repeat(3, 1)
    nll = token_nll(hidden, head, torch.tensor([0, 1, 2]))
    assert torch.allclose(nll, torch.tensor([math.log(8), math.log(4), math.log(8 / 5)]))


def test_chunks_equal_whole(backbone):
    """The chunk size changes memory, never the numbers; the reference is the model's own logits."""
    ids = torch.arange(5, 45).reshape(2, 20)
    logits = backbone.model(input_ids=ids).logits
    targets = ids[:, 1:].reshape(-1)
    wanted = nn.functional.cross_entropy(logits[:, :-1].reshape(-1, 259), targets, reduction="none")
    rows = CausalModel(backbone.model).hidden(input_ids=ids)[:, :-1].reshape(-1, 32)
    for chunk in (1, 7, 1000):
        got = token_nll(rows, backbone.model.get_output_embeddings(), targets, chunk)
        assert torch.allclose(got, wanted, atol=1e-5)


def test_gradient_equals_plain(backbone):
    """The checkpointed chunks give the gradient of the plain loss."""
    ids = torch.arange(5, 25)[None]
    model, targets = backbone.model, ids[0, 1:]
    embeds = model.get_input_embeddings()(ids)

    def gradient(loss_of):
        leaf = embeds.clone().requires_grad_(True)
        return torch.autograd.grad(loss_of(leaf), leaf)[0]

    def plain(leaf):
        logits = model(inputs_embeds=leaf).logits[0, :-1]
        return nn.functional.cross_entropy(logits, targets)

    def chunked(leaf):
        rows = CausalModel(model).hidden(inputs_embeds=leaf)[0, :-1]
        return token_nll(rows, model.get_output_embeddings(), targets, chunk=4).mean()

    assert torch.allclose(gradient(chunked), gradient(plain), atol=1e-7)


def test_no_rows():
    """A batch of one-token answers without context has nothing to score."""
    assert token_nll(torch.zeros(0, 3), nn.Linear(3, 5), torch.zeros(0, dtype=torch.long)).shape == (0,)
