"""Divergence of next-token distributions, in chunks."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from winnow.backbone.causal_model import CausalModel
from winnow.backbone.divergence import kl_rows


def identity_head(width: int = 3) -> nn.Linear:
    """A head that hands its rows on as logits."""
    head = nn.Linear(width, width, bias=False)
    head.weight.data = torch.eye(width)
    return head


class Watched(nn.Module):
    """A head that notes how many rows it was given at a time."""

    def __init__(self, head):
        super().__init__()
        self.head, self.rows = head, []

    def forward(self, hidden):
        self.rows.append(hidden.shape[0])
        return self.head(hidden)


def test_by_hand():
    """P = (1, 2, 5) / 8 and Q = (5, 2, 1) / 8: 1/8 ln(1/5) + 2/8 ln 1 + 5/8 ln 5 = 1/2 ln 5. Against the uniform Q:
    ln 3 - H(P) = ln 3 + 1/8 ln(1/8) + 2/8 ln(2/8) + 5/8 ln(5/8). The divergence is not symmetric: the other way round
    it is 1/3 (ln 8/3 + ln 4/3 + ln 8/15)."""
    p, q, flat = torch.log(torch.tensor([[1.0, 2.0, 5.0], [5.0, 2.0, 1.0], [1.0, 1.0, 1.0]]))
    got = kl_rows(torch.stack([p, p, flat]), torch.stack([q, flat, p]), identity_head())
    entropy = -(math.log(1 / 8) / 8 + math.log(2 / 8) / 4 + 5 * math.log(5 / 8) / 8)
    backwards = (math.log(8 / 3) + math.log(4 / 3) + math.log(8 / 15)) / 3
    assert torch.allclose(got, torch.tensor([math.log(5) / 2, math.log(3) - entropy, backwards]), atol=1e-6)


def test_far_apart():
    """Logits (100, 0, 0) against (0, 100, 0): P puts all but e^-100 on the first word, log P - log Q there is 100."""
    p, q = torch.tensor([[100.0, 0.0, 0.0]]), torch.tensor([[0.0, 100.0, 0.0]])
    assert kl_rows(p, q, identity_head()).item() == pytest.approx(100.0)


@pytest.fixture
def rows(backbone):
    """Final states of two texts, (40, 32), and those of the same texts with other words in the middle."""
    ids = torch.arange(5, 45).reshape(2, 20)
    other = ids.clone()
    other[:, 4:9] = 200
    return [CausalModel(backbone.model).hidden(input_ids=given).reshape(-1, 32) for given in (ids, other)]


@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_chunks_equal_whole(backbone, rows, chunk):
    """The chunk size changes memory, never the numbers; the reference is torch's own KL on all logits at once."""
    clean, noisy = rows
    head = backbone.model.get_output_embeddings()
    log_p, log_q = head(clean).log_softmax(-1), head(noisy).log_softmax(-1)
    wanted = nn.functional.kl_div(log_q, log_p, reduction="none", log_target=True).sum(-1)
    assert wanted.max() > 0.01
    assert torch.allclose(kl_rows(clean, noisy, head, chunk), wanted, atol=1e-6)


def test_never_more_rows_than_a_chunk(backbone, rows):
    """Only chunks meet the head: 40 rows by 16 are 16, 16 and 8, for P and then for Q."""
    head = Watched(backbone.model.get_output_embeddings())
    kl_rows(*rows, head, chunk=16)
    assert head.rows == [16, 16, 16, 16, 8, 8]


def test_variants_equal_one_by_one(backbone, rows):
    """Several variants share the clean distribution: 1 + 3 head runs per chunk, and the numbers of separate calls."""
    clean, noisy = rows
    variants = torch.stack([noisy, clean, noisy.flip(0)])
    head = Watched(backbone.model.get_output_embeddings())
    together = kl_rows(clean, variants, head, chunk=1000)
    assert len(head.rows) == 4
    for got, variant in zip(together, variants, strict=True):
        assert torch.allclose(got, kl_rows(clean, variant, head), atol=1e-7)


def test_never_negative_and_zero_between_equals(backbone, rows):
    """KL >= 0 (Gibbs), with rounding too: states that differ in the last bits only, and states that do not differ."""
    clean, noisy = rows
    head = backbone.model.get_output_embeddings()
    assert (kl_rows(clean, noisy, head) > 0).sum() >= 20  # a position sees the changed words from the fifth token on
    assert (kl_rows(clean, clean * (1 + 1e-7), head) >= 0).all()
    assert (kl_rows(clean, clean, head) == 0).all()


def test_half_precision_is_summed_in_fp32(rows):
    """A bf16 head gives bf16 logits; the reference takes the same logits and does all the rest in fp64."""
    clean, noisy = (states.bfloat16() for states in rows)
    head = nn.Linear(32, 259, bias=False).bfloat16()
    head.weight.data = torch.sin(torch.arange(259 * 32.0)).reshape(259, 32).bfloat16()
    log_p, log_q = head(clean).double().log_softmax(-1), head(noisy).double().log_softmax(-1)
    got = kl_rows(clean, noisy, head, chunk=1000)
    assert got.dtype == torch.float32
    assert torch.allclose(got.double(), (log_p.exp() * (log_p - log_q)).sum(-1), atol=1e-5)


def test_shapes():
    """No rows, no numbers; rows that do not fit are refused."""
    head = identity_head()
    assert kl_rows(torch.zeros(0, 3), torch.zeros(2, 0, 3), head).shape == (2, 0)
    with pytest.raises(ValueError, match=r"\(2, 3\).*\(4, 3\)"):
        kl_rows(torch.zeros(2, 3), torch.zeros(4, 3), head)
