"""The sampler draws from the tempered, top-p-filtered distribution, exactly, and as a function of its uniforms
alone."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.stats import chisquare

from winnow.backbone.sampling import UNIFORMS, next_tokens, uniforms


def draws(logits, n, seed=0, **options):
    """n tokens from one row of logits, every one with uniforms of its own."""
    uniform = torch.rand(n, UNIFORMS, generator=torch.Generator().manual_seed(seed))
    return next_tokens(logits.expand(n, -1), uniform, **options)


def test_a_deterministic_trainer_samples(monkeypatch):
    """torch has no deterministic sums of fp32 on a GPU and forbids others: here it warns, and forbids again after."""
    modes, cumsum = [], torch.Tensor.cumsum
    monkeypatch.setattr(
        torch.Tensor, "cumsum", lambda *given: modes.append(torch.get_deterministic_debug_mode()) or cumsum(*given)
    )
    for mode in (2, 0):
        torch.set_deterministic_debug_mode(mode)
        try:
            draws(torch.randn(40, generator=torch.Generator().manual_seed(1)), 200, top_p=0.3)
            assert torch.get_deterministic_debug_mode() == mode
        finally:
            torch.set_deterministic_debug_mode(0)
    assert set(modes[: len(modes) // 2]) == {1} and set(modes[len(modes) // 2 :]) == {0}


@pytest.mark.parametrize("temperature", [0.7, 1.0, 1.4])
@pytest.mark.parametrize("top_p", [0.3, 0.9, 1.0])
def test_frequencies(temperature, top_p):
    """Chi-square of 20,000 draws against softmax(l / T) restricted to the top-p set and normalised, worked out in fp64
    by sorting. At p = 0.3 most rows are refused three times and end in the sort, so all of the sampler is met. Nine
    tests at a level of 1e-4: under the right distribution one of them fails with probability below 1e-3, and the seed
    is fixed.
    """
    logits = torch.randn(40, generator=torch.Generator().manual_seed(1)) * 2
    q = (logits.double() / temperature).softmax(-1)
    order = q.argsort(descending=True)
    before = torch.cat([torch.zeros(1).double(), q[order].cumsum(0)[:-1]])
    inside = order[before < top_p]
    found = torch.bincount(draws(logits, 20000, temperature=temperature, top_p=top_p), minlength=40)
    outside = torch.ones(40, dtype=torch.bool)
    outside[inside] = False
    assert found[outside].sum() == 0
    wanted = (q[inside] / q[inside].sum() * 20000).numpy()
    seen, rare = found[inside].numpy(), wanted < 5  # the usual rule for a chi-square: at least 5 expected
    if rare.any():
        seen, wanted = [*seen[~rare], seen[rare].sum()], [*wanted[~rare], wanted[rare].sum()]
    if len(seen) > 1:
        assert chisquare(seen, wanted).pvalue > 1e-4


def test_by_hand():
    """q = 0.5, 0.3, 0.2 in the order of the vocabulary, top-p 0.7: the set is {0, 1}. u = 0.4 falls on 0 and 0.6 on 1,
    both accepted. 0.9 falls on 2, which is refused; the next uniform, 0.1, falls on 0. Three refusals: the sorted set
    has masses 0.5 and 0.3 of 0.8, so that 0.6 is on 0 (below 0.625) and 0.7 on 1."""
    logits = torch.tensor([0.5, 0.3, 0.2]).log()
    uniform = torch.tensor(
        [[0.4, 0, 0, 0], [0.6, 0, 0, 0], [0.9, 0.1, 0, 0], [0.9, 0.9, 0.9, 0.6], [0.9, 0.9, 0.9, 0.7]]
    )
    assert next_tokens(logits.expand(5, -1), uniform, top_p=0.7).tolist() == [0, 1, 0, 0, 1]


def test_top_p_that_only_the_likeliest_token_reaches():
    """The likeliest token is always in the set, whatever p."""
    assert (draws(torch.tensor([0.0, 1.0, 2.0]), 50, top_p=1e-6) == 2).all()


def test_top_k_comes_before_top_p():
    """Masses 0.4, 0.3, 0.2, 0.1. Of the two likeliest, 4/7 and 3/7, p = 0.5 leaves one. Over all four, p = 0.5 leaves
    two. k = 3 alone leaves three."""
    logits = torch.tensor([0.4, 0.3, 0.2, 0.1]).log()
    assert set(draws(logits, 500, top_k=2, top_p=0.5).tolist()) == {0}
    assert set(draws(logits, 500, top_p=0.5).tolist()) == {0, 1}
    assert set(draws(logits, 500, top_k=3).tolist()) == {0, 1, 2}


def test_tokens_tied_at_the_edge_are_all_in_the_set():
    """Masses 0.5, 0.2, 0.2, 0.1 and p = 0.6: one of the two equal tokens reaches it, so both are in, sorted or not."""
    logits = torch.tensor([0.5, 0.2, 0.2, 0.1]).log()
    assert set(draws(logits, 500, top_p=0.6).tolist()) == {0, 1, 2}
    assert set(draws(logits, 500, top_k=3, top_p=0.6).tolist()) == {0, 1, 2}


def test_temperature_zero_is_the_likeliest_token():
    logits = torch.randn(7, 30, generator=torch.Generator().manual_seed(2))
    assert torch.equal(next_tokens(logits, torch.rand(7, UNIFORMS), temperature=0), logits.argmax(-1))


def test_rows_do_not_see_each_other():
    """Each of 60 rows alone draws what it draws among the others; other logits, other refusals."""
    source = torch.Generator().manual_seed(3)
    logits, uniform = torch.randn(60, 500, generator=source) * 3, torch.rand(60, UNIFORMS, generator=source)
    together = next_tokens(logits, uniform, 1.4, 0.5)
    alone = torch.cat([next_tokens(logits[i : i + 1], uniform[i : i + 1], 1.4, 0.5) for i in range(60)])
    assert torch.equal(together, alone)


def test_uniforms_are_the_records_own():
    """A longer answer begins with the same numbers; seed, record and draw each change them; they are in [0, 1), and the
    mean of 4,000 is within five standard errors, 5 sqrt(1/12/4000), of 1/2."""
    one = uniforms(0, "r", 0, 1000)
    assert torch.equal(uniforms(0, "r", 0, 10), one[:10])
    for other in (uniforms(1, "r", 0, 1000), uniforms(0, "s", 0, 1000), uniforms(0, "r", 1, 1000)):
        assert (one != other).float().mean() > 0.99
    assert one.min() >= 0 and one.max() < 1 and abs(one.mean() - 0.5) < 5 * math.sqrt(1 / 12 / 4000)
