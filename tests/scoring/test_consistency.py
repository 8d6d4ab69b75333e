"""Noise-injection consistency: from divergences to a score, by hand."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
from composed import build, config
from hydra.utils import instantiate
from test_methods import records
from tiny_passes import columns

from winnow.errors import UserError
from winnow.scoring.passes.divergence import NoiseDivergence
from winnow.scoring.scores import Scores

consistency = partial(build, "method/consistency")


def divergences(betas, flags=None, **given):
    """A noise pass with the given divergences by column name."""
    flags = flags or [None] * len(next(iter(given.values())))
    counts = {"tokens": 9, "noised_tokens": 4, "prompt_tokens": 7, "answer_tokens": 3}
    given |= {name: [None if flag else value for flag in flags] for name, value in counts.items()}
    return {"noise": columns(NoiseDivergence(betas).schema, **given, flag=flags)}


def test_by_hand():
    """Draws 1, 2, 6: mean 3, population deviation sqrt((4 + 1 + 9) / 3) = sqrt(14/3). The answer's 0.5, 0.5, 2: 1."""
    tables = divergences((10.0,), kl_beta_10=[[1.0, 2.0, 6.0]], kl_answer_beta_10=[[0.5, 0.5, 2.0]])
    scores = consistency().score(tables, records(1))
    assert scores.score[0] == pytest.approx(3.0)
    assert scores.components["kl_draw_std"][0] == pytest.approx(math.sqrt(14 / 3))
    assert scores.components["kl_answer"][0] == pytest.approx(1.0)
    assert {name: scores.components[f"{name}_tokens"][0] for name in ("scored", "noised", "prompt", "answer")} == {
        "scored": 9,
        "noised": 4,
        "prompt": 7,
        "answer": 3,
    }


def test_n_as_the_paper_words_it():
    """10 tokens: a prompt of 7, of which 4 are the record's own, and 3 of the answer. Nine of them predict, with a mean
    KL of 3, sum 27; the record itself has 4 + 3 = 7 tokens: 27 / 7. The deviation is scaled alike."""
    tables = divergences((10.0,), kl_beta_10=[[1.0, 2.0, 6.0]], kl_answer_beta_10=[[0.5, 0.5, 2.0]])
    scores = consistency(average_over="record").score(tables, records(1))
    assert scores.score[0] == pytest.approx(27 / 7)
    assert scores.components["kl_draw_std"][0] == pytest.approx(math.sqrt(14 / 3) * 9 / 7)
    assert scores.components["kl_answer"][0] == pytest.approx(1.0)
    assert "token of the record" in scores.descriptions["score"]
    with pytest.raises(UserError, match="method.average_over=tokens is unknown"):
        consistency(average_over="tokens")


def test_low_is_wanted():
    """Scores 3, 1 and 2: the best of three is the second record."""
    tables = divergences((10.0,), kl_beta_10=[[3.0], [1.0], [2.0]], kl_answer_beta_10=[[0.0]] * 3)
    method = consistency(draws=1)
    scores = method.score(tables, records(3))
    table = scores.table(records(3), {"method": "consistency", "settings": {}})
    top = build("selection/top", count=1)
    assert top.select(table, Scores.about(table)["higher_is_better"], method.filters).chosen == [1]


def test_flagged_and_infinite_records_have_no_score():
    """A record without a value, and one whose logits overflowed: null with a reason. The neighbour keeps its value."""
    tables = divergences(
        (10.0,),
        flags=["empty_instruction_and_input", None, None],
        kl_beta_10=[[], [math.inf, 1.0], [1.0, 3.0]],
        kl_answer_beta_10=[[], [1.0, 1.0], [1.0, 1.0]],
    )
    scores = consistency(draws=2).score(tables, records(3))
    assert scores.flag == ["empty_instruction_and_input", "non_finite_divergence", None]
    assert np.isnan(scores.score[:2]).all() and scores.score[2] == pytest.approx(2.0)


def test_no_record_with_a_value():
    """A pool of flagged records only has no draws to count."""
    tables = divergences((10.0,), flags=["empty_answer"], kl_beta_10=[[]], kl_answer_beta_10=[[]])
    assert consistency().score(tables, records(1)).flag == ["empty_answer"]


def test_one_pass_for_a_sweep():
    """Jobs that name the same betas ask for the same pass, and each reads its own column."""
    tables = divergences(
        (1.0, 10.0), kl_beta_1=[[1.0]], kl_beta_10=[[7.0]], kl_answer_beta_1=[[0.0]], kl_answer_beta_10=[[0.0]]
    )
    weak, strong = (consistency(beta=beta, betas=[10, 1], draws=1) for beta in (1, 10))
    assert weak.passes == strong.passes
    assert weak.score(tables, records(1)).score[0] == 1.0 and strong.score(tables, records(1)).score[0] == 7.0


def test_configuration():
    """The paper's setting, and the run's seed."""
    method = instantiate(config("method=consistency", "seed=3").method)
    assert method.passes["noise"] == NoiseDivergence((10.0,), "gaussian", 3, "scalar", 3)
    assert not method.filters


def test_beta_must_be_computed():
    with pytest.raises(UserError, match="method.beta=2 is not among"):
        consistency(beta=2, betas=[1, 10])
