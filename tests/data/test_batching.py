"""Token-budget batches: a partition, within the budget, longest first."""

from __future__ import annotations

import random

import pytest

from winnow.data.batching import pad_right, token_budget_batches


def test_by_hand():
    """Budget 12. Lengths 7 | 5, 5 (2 x 5 = 10) | 3, 2, 2 (3 x 3 = 9; a fourth would be 12 but there is none).
    Records of two groups, whose prefixes differ, share no batch."""
    assert token_budget_batches([2, 5, 7, 3, 5, 2], 12) == [[2], [1, 4], [3, 0, 5]]
    assert token_budget_batches([2, 2, 2, 2], 12, "abab") == [[0, 2], [1, 3]]


def test_partition_and_budget():
    """Every record once; records x longest within the budget unless a single record exceeds it."""
    draw = random.Random(0)
    for _ in range(50):
        lengths = [draw.randint(1, 300) for _ in range(draw.randint(1, 60))]
        batches = token_budget_batches(lengths, 256)
        assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
        for batch in batches:
            assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= 256


def test_longest_first():
    """The first batch shows whether memory suffices."""
    batches = token_budget_batches([3, 9, 1, 4], 9)
    assert batches[0] == [1]


def test_budget_must_be_positive():
    with pytest.raises(ValueError, match="at least 1"):
        token_budget_batches([1], 0)


def test_pad_right():
    assert pad_right([[1, 2, 3], [4]], 0) == [[1, 2, 3], [4, 0, 0]]
