"""Noise on embeddings: its mean, its spread, and that it is a function of (seed, record, draw)."""

from __future__ import annotations

import math

import pytest
import torch

from winnow import draws
from winnow.perturb.embedding_noise import add_noise, embedding_noise, region_statistics, sent, unit_noise


@pytest.fixture
def region():
    """400 tokens of width 64, with a mean well away from 0."""
    return 0.7 + torch.sin(torch.arange(400 * 64, dtype=torch.float32) * 12.9898).reshape(400, 64)


def test_statistics_by_hand():
    """Entries 1, 3, 5, 7: mean 4, population variance (9 + 1 + 1 + 9) / 4 = 5. By dimension (1, 5) and (3, 7): means 3
    and 5, deviations 2 and 2."""
    embeddings = torch.tensor([[1.0, 3.0], [5.0, 7.0]])
    mean, deviation = region_statistics(embeddings)
    assert mean.item() == pytest.approx(4.0) and deviation.item() == pytest.approx(math.sqrt(5))
    mean, deviation = region_statistics(embeddings, "per_dimension")
    assert mean.tolist() == [3.0, 5.0] and deviation.tolist() == [2.0, 2.0]


def test_nothing_waits_for_noise_on_its_way_to_a_gpu(monkeypatch):
    """From pinned memory the CPU goes on; on the CPU the values are the same tensor."""
    asked, values = [], torch.ones(2)
    assert sent(values, values.device) is values
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda own: asked.append("pinned") or own)
    monkeypatch.setattr(torch.Tensor, "to", lambda own, device, **given: asked.append((device.type, given)) or own)
    sent(values, torch.device("cuda"))
    assert asked == ["pinned", ("cuda", {"non_blocking": True})]


@pytest.mark.parametrize("family", ["gaussian", "uniform"])
def test_mean_and_spread(region, family):
    """mu + sigma eps over N = 25,600 entries has mean mu and deviation sigma, within 5 standard errors: sigma / sqrt N
    for the mean; for the deviation at most sigma / sqrt(2 N), the Gaussian's (the uniform's is smaller)."""
    noise = embedding_noise(region, "a record", 0, family=family)
    mu, sigma, n = region.mean().item(), region.std(correction=0).item(), region.numel()
    assert mu > 0.5
    assert noise.mean().item() == pytest.approx(mu, abs=5 * sigma / math.sqrt(n))
    assert noise.std().item() == pytest.approx(sigma, abs=5 * sigma / math.sqrt(2 * n))


def test_the_shift_is_there_and_scales_with_beta(region):
    """The mean of e~ - e is beta (mu + sigma eps_mean) for the same eps: beta times that of beta = 1, and so about beta
    mu; a noise without the mean would leave it at 0 within 5 beta sigma / sqrt N."""
    noise = embedding_noise(region, "a record", 0)
    mu, error = region.mean().item(), 5 * region.std().item() / math.sqrt(region.numel())
    for beta in (0.5, 1.0, 3.0, 10.0):
        shift = (add_noise(region, noise, beta) - region).mean().item()
        assert shift == pytest.approx(beta * noise.mean().item(), rel=1e-4)
        assert shift == pytest.approx(beta * mu, abs=beta * error) and shift > beta * error


def test_per_dimension():
    """Second dimension constant: mu = 3 and sigma = 0 there, so the noise is 3 exactly; the first one has sigma = 2."""
    embeddings = torch.tensor([[1.0, 3.0], [5.0, 3.0]])
    noise = embedding_noise(embeddings, "r", 0, statistics="per_dimension")
    eps = unit_noise((2, 2), draws.generator(0, "r", 0))
    assert noise[:, 1].tolist() == [3.0, 3.0]
    assert torch.allclose(noise[:, 0], 3.0 + 2.0 * eps[:, 0])


def test_a_single_token_is_no_special_case():
    """One token per dimension: sigma = 0, mu = e, so e~ = (1 + beta) e. The sample deviation would be no number."""
    embeddings = torch.tensor([[0.5, -2.0]])
    noise = embedding_noise(embeddings, "r", 0, statistics="per_dimension")
    assert torch.allclose(add_noise(embeddings, noise, 10.0), 11.0 * embeddings)
    assert embedding_noise(embeddings, "r", 0).isfinite().all()


def test_uniform_is_bounded():
    """U(-sqrt 3, sqrt 3): mean 0 and variance 1 within 5 standard errors of 40,000 draws (1 / 200 for the mean; for the
    variance sqrt((9/5 - 1) / 40,000) = 0.0045), and nothing outside, where a Gaussian has 8% of its mass."""
    eps = unit_noise((40_000,), draws.generator(0, "r", 0), "uniform")
    assert eps.abs().max() <= math.sqrt(3)
    assert abs(eps.mean().item()) < 5 / 200 and abs(eps.var().item() - 1) < 5 * 0.0045
    assert (unit_noise((40_000,), draws.generator(0, "r", 0)).abs() > math.sqrt(3)).float().mean().item() > 0.07


def test_a_function_of_seed_record_and_draw(region):
    """Whatever the state of the global generator; and a change of any of the three is another noise."""
    torch.manual_seed(1)
    first = embedding_noise(region, "r", 0, seed=5)
    torch.manual_seed(2)
    torch.rand(7)
    assert torch.equal(first, embedding_noise(region, "r", 0, seed=5))
    for record, draw, seed in (("s", 0, 5), ("r", 1, 5), ("r", 0, 6)):
        assert (embedding_noise(region, record, draw, seed) != first).float().mean() > 0.99


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_beta_zero_changes_nothing(region, dtype):
    """e + 0 x noise is e, bit for bit, in the dtype it came in."""
    embeddings = region.to(dtype)
    same = add_noise(embeddings, embedding_noise(embeddings, "r", 0), 0.0)
    assert same.dtype == dtype and torch.equal(same, embeddings)


def test_unknown_names(region):
    with pytest.raises(ValueError, match="cauchy"):
        embedding_noise(region, "r", 0, family="cauchy")
    with pytest.raises(ValueError, match="median"):
        embedding_noise(region, "r", 0, statistics="median")
