"""Scores from gradients, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from composed import build
from tiny_passes import columns

from winnow.scoring.passes.gradient import LoraGradient


def table(vectors, rate=None, norms=None):
    """A row for each vector; None is a record without a gradient."""
    rates = [None if one is None else rate for one in vectors]
    flags = ["no_answer" if one is None else None for one in vectors]
    return columns(LoraGradient.schema, vector=vectors, norm=norms, rate=rates, flag=flags)


def test_gradnorm_is_the_norm():
    scores = build("method/gradnorm").score({"gradient": table([[1.0], None], norms=[2.5, None])}, [])
    assert scores.score[0] == 2.5 and np.isnan(scores.score[1]) and scores.flag == [None, "no_answer"]
    assert scores.higher_is_better


@pytest.mark.parametrize(("over", "expected"), [("mean", [0.55, 0.5]), ("max", [0.9, 0.75])])
def test_less_by_hand(over, expected):
    """Two epochs at the rates 3e-5 and 1e-5, so 3/4 and 1/4. Targets: (1, 0), (0, 1) and one without a gradient, which
    does not count, in both epochs.

    Record (1, 0), then (0.6, 0.8): cosines 1 and 0, then 0.6 and 0.8. Weighted: 0.75 + 0.15 = 0.9 and 0.2, mean 0.55.
    Record (0, 1), then (1, 0): 0 and 1, then 1 and 0. Weighted: 0.25 and 0.75, mean 0.5.
    """
    target = [[1.0, 0.0], [0.0, 1.0], None]
    tables = {
        "epoch_0": table([[1.0, 0.0], [0.0, 1.0], None], 3e-5),
        "epoch_1": table([[0.6, 0.8], [1.0, 0.0], None], 1e-5),
        "target_0": table(target, 3e-5),
        "target_1": table(target, 1e-5),
    }
    method = build("method/less", over=over, preparation=_Epochs(2))
    scores = method.score(tables, [])
    assert scores.score[:2] == pytest.approx(expected, abs=1e-3)  # vectors have 16 bits
    assert math.isnan(scores.score[2]) and scores.flag == [None, None, "no_answer"]


def test_less_needs_a_gradient_in_every_epoch():
    """The second record has one in the first epoch alone."""
    tables = {
        "epoch_0": table([[1.0, 0.0], [0.0, 1.0]], 1e-5),
        "epoch_1": table([[1.0, 0.0], None], 1e-5),
        "target_0": table([[1.0, 0.0]], 1e-5),
        "target_1": table([[1.0, 0.0]], 1e-5),
    }
    scores = build("method/less", preparation=_Epochs(2)).score(tables, [])
    assert scores.flag == [None, "no_answer"] and scores.score[0] == 1 and math.isnan(scores.score[1])


class _Epochs:
    def __init__(self, checkpoints: int) -> None:
        self.checkpoints = checkpoints


def test_less_asks_for_a_pass_an_epoch_and_pool():
    """4 epochs [paper]: Adam's steps of the pool's records, plain gradients of the target's, of 8,192 entries."""
    method = build("method/less")
    assert [(one.checkpoint, one.adam) for one in method.passes.values()] == [(i, True) for i in range(4)]
    assert [(one.checkpoint, one.adam) for one in method.target_passes.values()] == [(i, False) for i in range(4)]
    assert {one.dimensions for one in method.passes.values()} == {8192}
