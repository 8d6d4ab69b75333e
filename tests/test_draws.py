"""The one function behind every seeded draw."""

from __future__ import annotations

import hashlib

import pytest
import torch

from winnow import draws


def test_a_key_is_the_beginning_of_sha256():
    """SHA-256 of "abc" is ba7816bf 8f01cfea ... (FIPS 180-4, appendix B.1): its first 8 bytes, big end first. Parts are
    joined by colons."""
    assert draws.key("abc") == 0xBA7816BF8F01CFEA
    assert draws.uniform("abc") == 0xBA7816BF8F01CFEA / 2**64
    assert draws.digest(3, "a", 0) == hashlib.sha256(b"3:a:0").digest()


def test_keys_do_not_collide():
    """50 x 20 pairs are 1,000 keys, and the order of the parts matters."""
    assert len({draws.key(0, step, index) for step in range(50) for index in range(20)}) == 1000
    assert len({draws.key(0, 1, 2), draws.key(0, 2, 1), draws.key(1, 2, 0)}) == 3


def test_uniform_numbers_are_uniform():
    """The mean of 4,000 draws is 1/2 within 4 standard errors of 1 / sqrt(12 * 4000) = 0.0046."""
    numbers = [draws.uniform(0, f"record {i}") for i in range(4000)]
    assert sum(numbers) / 4000 == pytest.approx(0.5, abs=0.0183)
    assert 0 <= min(numbers) < 0.01 and 0.99 < max(numbers) < 1


def test_a_generator_is_a_function_of_its_key():
    one, same, other = (torch.rand(3, generator=draws.generator("a", seed)) for seed in (0, 0, 1))
    assert torch.equal(one, same) and not torch.equal(one, other)
