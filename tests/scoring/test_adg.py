"""Answer divergence: the geometry by hand and by its invariances, and the way from sampled answers to a score."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
from composed import build, config
from hydra.utils import instantiate
from scipy.stats import ortho_group
from test_methods import records
from tiny import tiny_model
from tiny_passes import TRAINER, columns

from winnow.backbone import memory
from winnow.backbone.memory import GB, Room, shapes
from winnow.errors import UserError
from winnow.scoring.methods.adg import gram_geometry, normalised
from winnow.scoring.passes.sampling import SampledAnswers
from winnow.scoring.scores import Scores
from winnow.store.describe import describe

adg = partial(build, "method/adg")

SPLIT = [[1.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 1, 0], [0, 1, 0]]


def geometries(vectors):
    return gram_geometry(vectors @ vectors.transpose(0, 2, 1))


def geometry(vectors):
    dispersion, anisotropy = geometries(np.array([vectors], dtype=float))
    return dispersion[0], anisotropy[0]


def test_by_hand():
    """Five orthonormal vectors: S = Id, Sc = H with eigenvalue 1 four times; t = 4, D = 4/5, I = 1 - 1/4. Equal
    vectors: Sc = 0, so D = I = 0. Two and three at a right angle: Sc has the single eigenvalue 2 * 3 / 5 * 2 = 2.4
    (squared distance 2 between the points, times the between-groups sum 6/5), D = 0.48, and a line has I = 0."""
    assert geometry(np.eye(5)) == pytest.approx((0.8, 0.75))
    assert geometry(np.ones((5, 3))) == (0, 0)
    assert geometry(SPLIT) == pytest.approx((0.48, 0), abs=1e-12)


def test_small_differences_are_not_rounded_away():
    """Four vectors (1, +-e, 0) and (1, 0, +-e), 4 e^2 of centred squares in two equal directions to second order: D =
    e^2, I = 1/2. At e = 1e-4 D is 1e-8, and I still 1/2. Below a trace of 1e-12 nothing is called spread."""
    for e, seen in ((1e-2, True), (1e-4, True), (1e-8, False)):
        dispersion, anisotropy = geometry([[1, e, 0], [1, -e, 0], [1, 0, e], [1, 0, -e]])
        assert dispersion == pytest.approx(e * e if seen else 0, rel=1e-2)
        assert anisotropy == pytest.approx(0.5 if seen else 0, abs=1e-3)


@pytest.mark.parametrize("k", [2, 3, 5, 10])
def test_bounds(k):
    """I <= 1 - 1/(K-1), because K - 1 eigenvalues at most share the trace. The trace is K - |sum of v|^2 / K: at least
    0, at most K - 1 if the cosines do not sum below 0, because |sum of v|^2 is then at least K. Opposite vectors go
    beyond, up to D = 1, so D <= (K-1)/K is asked of entries without a sign."""
    generator = np.random.default_rng(k)
    for width in (k, 3 * k):
        mixed = geometries(generator.normal(size=(300, k, width)))
        positive = geometries(np.abs(generator.normal(size=(300, k, width))))
        for dispersion, anisotropy in (mixed, positive):
            assert (dispersion >= 0).all() and (dispersion <= 1 + 1e-12).all()
            assert (anisotropy >= 0).all() and (anisotropy <= 1 - 1 / (k - 1) + 1e-12).all()
        assert (positive[0] <= (k - 1) / k + 1e-12).all()


@pytest.mark.parametrize("seed", range(3))
def test_invariances(seed):
    """The order of the answers, a rotation of the space and positive factors of the vectors change nothing."""
    generator = np.random.default_rng(seed)
    vectors = generator.normal(size=(20, 5, 12))
    reference = np.array(geometries(vectors))
    changed = [
        vectors[:, generator.permutation(5)],
        vectors @ ortho_group.rvs(12, random_state=seed),
        vectors * generator.uniform(1e-3, 1e3, size=(20, 5, 1)),
    ]
    for other in changed:
        assert np.allclose(geometries(other), reference, atol=1e-10)


def test_normalised_by_hand():
    """Ranks of 1, 3, 3, 7 from 0: 0, 1.5, 1.5, 3, by 3. Mean of 1 and 3 is 2, deviation 1. All equal: 0. NaN stays."""
    assert np.allclose(normalised(np.array([3, 1, np.nan, 7, 3]), "rank"), [0.5, 0, np.nan, 1, 0.5], equal_nan=True)
    assert normalised(np.array([1.0, 3.0]), "zscore").tolist() == [-1, 1]
    assert normalised(np.array([2.0, 2.0]), "zscore").tolist() == [0, 0]
    assert normalised(np.array([5.0, 2.0]), "none").tolist() == [5, 2]
    assert (
        normalised(np.array([4.0]), "rank").tolist() == [0] and np.isnan(normalised(np.array([np.nan]), "rank")).all()
    )


# -- from the pass to the score ----------------------------------------------------------------------------


def answered(sets, drawn=5, usable=None, texts=None, flags=None):
    """A sampling pass whose record i has the answer vectors sets[i]; None for a flagged record."""
    given = {name: [] for name in ("usable", "gram", "answers", "tokens", "finish", "flag")}
    for i, vectors in enumerate(sets):
        ok = [True] * drawn if usable is None else usable[i]
        if vectors is None:
            row = [[], [], [], [], [], (flags or {}).get(i, "no")]
        else:
            v = np.array(vectors, dtype=float) * np.array(ok)[:, None]
            own = [f"answer {k}" for k in range(drawn)] if texts is None else texts[i]
            ends = ["eos"] * (drawn - 1) + ["length"]
            row = [ok, (v @ v.T).flatten().tolist(), own, [4] * drawn, ends, None]
        for values, value in zip(given.values(), row, strict=True):
            values.append(value)
    return {"answers": columns(SampledAnswers.schema, **given)}


def test_score_by_hand():
    """Orthonormal: 0.6 * 0.8 + 0.4 * 0.75 = 0.78. Equal: 0, a score and no flag. The 2 + 3 split: 0.6 * 0.48 =
    0.288."""
    same = [["a"] * 5 if i == 1 else list("abcde") for i in range(3)]
    scores = adg().score(answered([np.eye(5), np.ones((5, 5)), SPLIT], texts=same), records(3))
    assert scores.score == pytest.approx([0.78, 0.0, 0.288]) and scores.flag == [None] * 3
    assert scores.components["distinct_answers"].tolist() == [5, 1, 5]
    assert scores.components["usable_answers"].tolist() == [5, 5, 5]
    assert scores.components["answers_cut"].tolist() == [1, 1, 1]
    assert scores.components["sampled_tokens"].tolist() == [20, 20, 20]


def test_most_divergent_is_wanted():
    method = adg()
    scores = method.score(answered([np.ones((5, 5)), np.eye(5), SPLIT]), records(3))
    table = scores.table(records(3), {"method": "adg", "settings": {}})
    top = build("selection/top", count=1)
    assert top.select(table, Scores.about(table)["higher_is_better"], method.filters).chosen == [1]


def test_fewer_usable_answers():
    """Three orthonormal vectors among unusable ones: D = 2/3, I = 1/2, K' = 3, whichever they are; an unusable answer
    is no zero vector at a right angle to all others. Two are too few and a flagged record keeps its reason: null, no
    number."""
    usable = [
        [True, False, True, False, True],
        [False, False, True, True, True],
        [True, True, False, False, False],
        None,
    ]
    tables = answered([np.eye(5), np.eye(5), np.eye(5), None], usable=usable, flags={3: "prompt_fills_window"})
    scores = adg().score(tables, records(4))
    assert scores.score[:2] == pytest.approx([0.6 * 2 / 3 + 0.2] * 2)
    assert (
        scores.flag == [None, None, "too_few_usable_answers", "prompt_fills_window"]
        and np.isnan(scores.score[2:]).all()
    )
    assert scores.components["usable_answers"][:2].tolist() == [3, 3]
    assert scores.components["answers_cut"][:2].tolist() == [1, 1] and scores.components["sampled_tokens"][0] == 12
    two = adg(min_answers=2).score(tables, records(4))
    assert two.score[2] == pytest.approx(0.6 * 0.5)  # D = 1/2, and a line has I = 0


def test_no_usable_answer_at_all():
    scores = adg().score(answered([np.eye(5)], usable=[[False] * 5]), records(1))
    assert scores.flag == ["too_few_usable_answers"]


def test_permuted_records_permute_scores():
    sets = list(np.random.default_rng(0).normal(size=(6, 5, 8)))
    order = [3, 0, 5, 1, 4, 2]
    for normalise in ("none", "rank", "zscore"):
        method = adg(normalise=normalise)
        one = method.score(answered(sets), records(6)).score
        two = method.score(answered([sets[i] for i in order]), records(6)).score
        assert np.allclose(one[order], two)


def test_smaller_k_from_the_same_pass():
    """K = 3 of 5 drawn: the first three, here orthonormal, D = 2/3 and I = 1/2; the two others equal the first."""
    vectors = np.eye(5)
    vectors[3:] = vectors[0]
    scores = adg(answers=3, sampled=5).score(answered([vectors]), records(1))
    assert scores.score[0] == pytest.approx(0.6 * 2 / 3 + 0.4 / 2)
    assert scores.components["sampled_tokens"][0] == 12 and scores.components["answers_cut"][0] == 0
    assert adg(answers=3, sampled=5).passes == adg(answers=5).passes


def test_normalised_score_by_hand():
    """D of 0.8, 0.48, 0 and I of 0.75, 0, 0. Ranks: D 1, 0.5, 0; I 1, 0.25, 0.25: 1, 0.4 and 0.1."""
    scores = adg(normalise="rank").score(answered([np.eye(5), SPLIT, np.ones((5, 5))]), records(3))
    assert scores.score == pytest.approx([1.0, 0.6 * 0.5 + 0.4 * 0.25, 0.4 * 0.25])
    assert scores.components["dispersion"] == pytest.approx([0.8, 0.48, 0])  # as they are


def test_other_weights():
    scores = adg(dispersion_weight=1, anisotropy_weight=0).score(answered([np.eye(5)]), records(1))
    assert scores.score[0] == pytest.approx(0.8)


def test_vectors_of_any_length():
    """The stored products are of unnormalised vectors."""
    lengths = np.array([1e-3, 1, 7, 50, 1e3])[:, None]
    scores = adg().score(answered([np.eye(5) * lengths]), records(1))
    assert scores.score[0] == pytest.approx(0.78) and math.isfinite(scores.score[0])


def test_configuration():
    """The published code's setting, and the run's seed; what only changes speed is no part of the score's settings."""
    method = instantiate(config("method=adg", "seed=3").method)
    pass_ = method.passes["answers"]
    assert (pass_.answers, pass_.temperature, pass_.top_p, pass_.top_k, pass_.max_new_tokens) == (
        5,
        1.4,
        0.9,
        None,
        256,
    )
    assert (
        pass_.seed == 3
        and (method.dispersion_weight, method.anisotropy_weight) == (0.6, 0.4)
        and method.normalise == "none"
        and not method.filters
    )
    assert method.tokens_per_batch == "auto" and pass_.tokens_per_batch is None
    faster = instantiate(config("method=adg", "seed=3", "method.tokens_per_batch=99").method)
    assert describe(faster) == describe(method) and faster.passes["answers"].tokens_per_batch == 99


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"answers": 1}, "method.answers=1"),
        ({"answers": 5, "sampled": 3}, "at most method.sampled=3"),
        ({"min_answers": 1}, "method.min_answers=1"),
        ({"min_answers": 6}, "at most method.answers=5"),
        ({"normalise": "log"}, "method.normalise=log"),
        ({"temperature": -1}, "method.temperature=-1"),
        ({"top_p": 0}, "method.top_p=0"),
        ({"top_p": 1.2}, "method.top_p=1.2"),
        ({"top_k": 0}, "method.top_k=0"),
        ({"max_new_tokens": 0}, "method.max_new_tokens=0"),
        ({"pooling": "cls"}, "method.pooling=cls must be paper or authors"),
        ({"prompt": "half"}, "method.prompt=half"),
        ({"tokens_per_batch": 0}, "method.tokens_per_batch=0"),
        ({"tokens_per_batch": "much"}, "method.tokens_per_batch=much must be at least 1, or auto"),
    ],
)
def test_bad_settings(options, told):
    with pytest.raises(UserError, match=told):
        adg(**options)


def test_auto_holds_16384_tokens_on_a_cpu_and_what_fits_on_a_gpu(monkeypatch):
    """The tiny model keeps 2 layers of keys and values of 2 heads of 8 numbers, 256 bytes a token in fp32, and has 0.14
    MB of weights. Half of a gigabyte less the weights holds 1,952,851 tokens: 2^18, the most; of 10 MB 19,256: 2^14.
    Less than the weights: 512."""
    model = tiny_model()
    assert shapes(model).cache == 64 and shapes(model).weights == 35_168
    assert memory.fitting_answers(model, TRAINER) == 16384
    for free, tokens in ((GB, 2**18), (10**7, 2**14), (1, 512)):
        monkeypatch.setattr(memory, "room", lambda trainer, free=free: Room(GB, free, "cuda"))
        assert memory.fitting_answers(model, {}) == tokens
