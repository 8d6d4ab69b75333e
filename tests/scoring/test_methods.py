"""Methods: pure functions from columns to scores, checked by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from composed import build
from tiny_passes import columns

from winnow.data.records import Record
from winnow.errors import UserError
from winnow.scoring.methods.baselines import Oracle
from winnow.scoring.passes.likelihood import Likelihood
from winnow.scoring.passes.token_count import TokenCount
from winnow.scoring.scores import Scores, answer_losses

ifd = partial(build, "method/ifd")
perplexity = partial(build, "method/perplexity")
random = partial(build, "method/random")


def records(n, outputs=None):
    return [Record(f"r{i}", i, "do", "", (outputs or ["x"] * n)[i], (), "test", {}) for i in range(n)]


def likelihood(rows, skipped=0, flags=None):
    """A likelihood pass with the given token losses per record."""
    counts = [len(row) + skipped for row in rows]
    return columns(Likelihood.schema, nll=rows, skipped=[skipped] * len(rows), answer_tokens=counts, flag=flags)


def test_ifd_by_hand():
    """Losses (1, 2) given the prompt and (2, 4) without: means 1.5 and 3. As losses 1.5 / 3 = 0.5, as perplexities
    exp(1.5 - 3) = exp(-1.5)."""
    tables = {"conditioned": likelihood([[1.0, 2.0]]), "direct": likelihood([[2.0, 4.0]])}
    assert ifd().score(tables, records(1)).score[0] == pytest.approx(0.5)
    assert ifd(ratio="perplexity").score(tables, records(1)).score[0] == pytest.approx(math.exp(-1.5))


def test_both_terms_average_the_same_tokens():
    """The conditioned window held two answer tokens, the direct one three: the third is left out of both.
    (1 + 2) / 2 over (2 + 4) / 2 = 0.5, not (1 + 2) / 2 over (2 + 4 + 9) / 3."""
    tables = {"conditioned": likelihood([[1.0, 2.0]]), "direct": likelihood([[2.0, 4.0, 9.0]])}
    scores = ifd().score(tables, records(1))
    assert scores.score[0] == pytest.approx(0.5)
    assert scores.components["answer_tokens"][0] == 2


def test_first_token_rules():
    """Without BOS a bare answer's first token has no likelihood. Conditioned (7, 1, 2), direct (-, 2, 4).
    skip: (1 + 2) / 2 = 1.5 and (2 + 4) / 2 = 3. score, the published way: (7 + 1 + 2) / 3 and 3."""
    tables = {"conditioned": likelihood([[7.0, 1.0, 2.0]]), "direct": likelihood([[2.0, 4.0]], skipped=1)}
    skip, skipping, _ = answer_losses(tables, "skip")
    score, scoring, _ = answer_losses(tables, "score")
    assert (skipping[0], scoring[0]) == (2, 2)  # answer tokens that both means cover
    assert skip["conditioned"][0] == pytest.approx(1.5) and skip["direct"][0] == pytest.approx(3.0)
    assert score["conditioned"][0] == pytest.approx(10 / 3) and score["direct"][0] == pytest.approx(3.0)


def test_one_token_answer_without_context_is_null_with_a_reason():
    """Nothing is left to average in s(A); the row keeps its place and the neighbours their values."""
    tables = {
        "conditioned": likelihood([[1.0, 2.0], [5.0], [3.0, 3.0]]),
        "direct": likelihood([[4.0], [], [6.0]], skipped=1),
    }
    scores = ifd(first_token="skip").score(tables, records(3))
    assert scores.flag == [None, "no_scored_answer_token", None]
    assert np.isnan(scores.score[1])
    assert scores.score[[0, 2]] == pytest.approx([2 / 4, 3 / 6])


def test_flags_of_passes_become_flags_of_scores():
    """A failed record is null, never 0."""
    tables = {
        "conditioned": likelihood([[1.0], []], flags=[None, "prompt_fills_window"]),
        "direct": likelihood([[2.0], [2.0]]),
    }
    scores = ifd().score(tables, records(2))
    assert scores.flag == [None, "prompt_fills_window"] and np.isnan(scores.score[1])
    assert np.isnan(scores.components["answer_tokens"][1])


def test_one_bad_loss_stays_in_its_row():
    """A loss that is not a number is null with its own reason, and the records after it keep their values."""
    tables = {
        "conditioned": likelihood([[1.0], [float("nan"), 1.0], [3.0], [float("inf")]]),
        "direct": likelihood([[2.0], [2.0, 2.0], [4.0], [1.0]]),
    }
    scores = ifd().score(tables, records(4))
    assert scores.flag == [None, "non_finite_loss", None, "non_finite_loss"]
    assert scores.score[[0, 2]] == pytest.approx([0.5, 0.75])


def test_zero_denominator_is_null():
    """s(A) = 0 has no ratio."""
    tables = {"conditioned": likelihood([[1.0]]), "direct": likelihood([[0.0]])}
    assert ifd().score(tables, records(1)).flag == ["zero_direct_loss"]


def test_perplexity_by_hand():
    """exp of the mean of (ln 2, ln 8) is 4."""
    tables = {"conditioned": likelihood([[math.log(2), math.log(8)]])}
    assert perplexity().score(tables, records(1)).score[0] == pytest.approx(4.0)
    assert not perplexity(prefer="low").score(tables, records(1)).higher_is_better


def test_length_counts_the_whole_answer(tokenizer):
    """The count is the answer's own, not what the window left of it."""
    table = columns(TokenCount.schema, answer_tokens=[900, 0], flag=[None, "empty_answer"])
    scores = build("method/length").score({"count": table}, records(2))
    assert scores.score[0] == 900 and scores.flag[1] == "empty_answer"


def test_random_depends_on_seed_and_record_alone():
    """The same in any order; another seed, another draw; mean of 2,000 uniform draws within 5 standard errors
    (0.2887 / sqrt(2000) = 0.0065) of one half."""
    some = records(2000)
    forward = random(seed=1).score({}, some).score
    backward = random(seed=1).score({}, some[::-1]).score
    assert (forward == backward[::-1]).all()
    assert (forward != random(seed=2).score({}, some).score).all()
    assert abs(forward.mean() - 0.5) < 5 * 0.0065


def test_oracle_ranks_every_clean_record_first():
    """A draw in [0, 1) with a defect and in [1, 2) without one. A pool that does not say is refused."""
    some = [replace(one, raw={"defect": "swapped" if one.row % 3 else None}) for one in records(30)]
    scores = Oracle("oracle", 0).score({}, some)
    assert [value >= 1 for value in scores.score] == [one.row % 3 == 0 for one in some] and scores.higher_is_better
    assert len(set(scores.score)) == 30 and scores.score.max() < 2
    assert (Oracle("oracle", 1).score({}, some).score != scores.score).all()
    with pytest.raises(UserError, match="method=oracle needs a pool with known defects, but row 0 has no `defect`"):
        Oracle("oracle", 0).score({}, records(2))


def test_full_leaves_out_what_cannot_be_trained_on():
    assert build("method/full").score({}, records(2, ["x", ""])).flag == [None, "empty_answer"]


def test_a_score_table_tells_a_changed_byte(tmp_path):
    """Parquet's own checksums: the lowest bit of a score's eight bytes, in a file with no other checksum beside it."""
    scores = Scores(np.random.default_rng(0).random(1000), [None] * 1000, {}, True)
    path = tmp_path / "scores.parquet"
    scores.write(scores.table(records(1000), {}), path)
    assert Scores.read(path)["score"].to_pylist() == scores.score.tolist()
    content = bytearray(path.read_bytes())
    content[content.index(scores.score[500].tobytes())] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"scores\.parquet is no score table of winnow .* run the stage `score` again"):
        Scores.read(path)


@pytest.mark.parametrize(
    ("method", "key", "value"),
    [
        ("ifd", "ratio", "x"),
        ("ifd", "first_token", "first"),
        ("aifd", "first_token", "first"),
        ("perplexity", "prefer", "x"),
        ("sifd", "kept", 50),
        ("tshirt", "kept", 0),
    ],
)
def test_unknown_options_are_told_before_anything_is_computed(method, key, value):
    attacks = {"attacks": {"checklist": build("attack/checklist")}} if method == "aifd" else {}
    with pytest.raises(UserError, match=f"method.{key}={value}"):
        build(f"method/{method}", **{key: value}, **attacks)
