"""Selection by bins: quotas by hand, small bins, the cap, the top-up, the ablations."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from composed import build, config
from hydra.utils import instantiate
from vector_pool import clustered, on_circle, table

from winnow.errors import UserError
from winnow.selection.clusters import bins
from winnow.selection.rule import Candidates

adg = partial(build, "selection/adg", classes=100, centre=True, seed=0)


def pick(classes, budget, **options):
    """What the rule decides on records in these bins, best first."""
    return adg(count=1, **options).pick(Candidates(len(classes), None, np.array(classes)), budget)


# 20 records: bin 0 has 10, bin 1 has 6, bin 2 has 2, bin 3 has 2; best first, the bins in turn.
LABELS = [0, 1, 0, 2, 0, 1, 0, 3, 0, 1, 0, 2, 0, 1, 0, 3, 0, 1, 0, 1]


def test_quotas_by_hand():
    """Budget 8 of 20: floor(10 * 0.4) = 4, floor(6 * 0.4) = 2, none from bins of 2. Taken: the first four of bin 0,
    places 0, 2, 4 and 6, and the first two of bin 1, 1 and 5. Six of eight: floor and small bins leave two."""
    picks = pick(LABELS, 8)
    assert picks.quotas.tolist() == [4, 2, 0, 0] and picks.taken == [0, 1, 2, 4, 5, 6]
    reasons = [picks.reason(place) for place in (3, 7, 8, 9, 19)]
    assert reasons == ["bin_too_small", "bin_too_small", "class_quota_full", "class_quota_full", "class_quota_full"]


def test_top_up():
    """The two places left go to the best of the others, 3 and 7, small bins or not."""
    picks = pick(LABELS, 8, top_up=True)
    assert picks.taken == [0, 1, 2, 3, 4, 5, 6, 7] and picks.reason(8) == "beyond_budget"


def test_at_least_one_and_the_cap():
    """Budget 2 of 12 records in four bins of three: floor(3 * 2 / 12) = 0, so one each; four exceed the budget of two,
    and the best-ranked two of them stay: the first of bin 3 and the first of bin 1."""
    picks = pick([3, 3, 1, 2, 0, 3, 1, 1, 2, 2, 0, 0], 2)
    assert picks.quotas.tolist() == [1, 1, 1, 1] and picks.taken == [0, 2]


def test_smallest():
    """With 2 as the smallest bin, bins 2 and 3 give one each: max(1, floor(2 * 0.4))."""
    assert pick(LABELS, 8, smallest=2).taken == [0, 1, 2, 3, 4, 5, 6, 7]


def test_middle_by_hand():
    """The same quotas, 4 of 10 and 2 of 6, from the middle of each bin: members (10 - 4) // 2 = 3 to 6 of bin 0, places
    6, 8, 10, 12, and (6 - 2) // 2 = 2 to 3 of bin 1, places 9 and 13. The bins of two give all, 3, 7, 11 and 15. Ten
    exceed the budget of eight: the best-ranked stay. Without small bins and with a budget of 7, quotas 4 and 2 leave
    one place; the top-up takes what is nearest to the middle of the ranking, between 7 and 8: 4, as far as 11. With 3
    of seven, bins of four and three give one each: (4 - 1) // 2 = 1, the second of places 0, 2, 4 and 5, and the second
    of 1, 3 and 6. The middle is 3: the top-up takes 4, nearer than 1."""
    assert pick(LABELS, 8, part="middle").taken == [3, 6, 7, 8, 9, 10, 11, 12]
    two = [0, 1, 0, 0, 1, 0, 0, 1, 0, 0, 1, 0, 0, 1, 0, 1]
    assert pick(two, 7, part="middle").taken == [5, 6, 7, 8, 9, 10]
    assert pick(two, 7, part="middle", top_up=True).taken == [4, 5, 6, 7, 8, 9, 10]
    odd = [0, 1, 0, 1, 0, 0, 1]
    assert pick(odd, 3, part="middle").taken == [2, 3]
    assert pick(odd, 3, part="middle", top_up=True).taken == [2, 3, 4]


def test_bottom_is_the_other_end():
    """order=bottom takes each bin's lowest scores: with negated scores the best are the same records."""
    scores, vectors = clustered(200, seed=1)
    negative = table(-scores["score"].to_numpy())
    low = adg(ratio=0.2, classes=8, order="bottom").select(scores, True, vectors=vectors).chosen
    assert low == adg(ratio=0.2, classes=8).select(negative, True, vectors=vectors).chosen
    high = adg(ratio=0.2, classes=8).select(scores, True, vectors=vectors).chosen
    middle = adg(ratio=0.2, classes=8, part="middle").select(scores, True, vectors=vectors).chosen
    assert not set(low) & set(high) and not set(middle) & set(high) and not set(middle) & set(low)
    mean = [np.mean(scores["score"].to_numpy()[chosen]) for chosen in (low, middle, high)]
    assert mean[0] < mean[1] < mean[2]


@pytest.mark.parametrize("seed", range(4))
def test_every_bin_gives_its_best(seed):
    """Over random pools: from each bin of at least three max(1, floor(n_b * budget / n)) records, and no record left in
    a bin scores above one taken from it; the subset never exceeds the budget."""
    scores, vectors = clustered(230, seed=seed)
    got = adg(ratio=0.3, classes=9).select(scores, True, vectors=vectors)
    assert len(got.chosen) <= got.budget == 69
    for one in got.classes:
        members = [d for d in got.decisions if d["class"] == one["class"]]
        quota = 0 if len(members) < 3 else max(1, len(members) * 69 // 230)
        taken = [d["score"] for d in members if d["selected"]]
        assert len(taken) == quota == one["quota"] == one["selected"]
        assert not taken or min(taken) > max(d["score"] for d in members if not d["selected"])
    full = adg(ratio=0.3, classes=9, top_up=True).select(scores, True, vectors=vectors)
    assert len(full.chosen) == 69 and set(got.chosen) <= set(full.chosen) and full.shortfall() is None


def test_shortfall_is_said():
    """20 records, 8 asked for, 6 given: the run says why, and what helps."""
    scores = table(np.linspace(1, 0, 20))
    vectors = on_circle(*(90 * label + i * 0.01 for i, label in enumerate(LABELS)))
    rule = adg(count=8, classes=4)
    rule.classify = lambda points, ids: np.array(LABELS)
    got = rule.select(scores, True, vectors=vectors)
    told = got.shortfall()
    assert "only 6 of the 8 records asked for" in told and "4 are in bins too small" in told and "top_up=true" in told
    assert got.manifest()["reasons"] == {"class_quota_full": 10, "bin_too_small": 4}


def test_order_of_the_file_does_not_matter():
    """Permuted records with their vectors: the same ids for the same reasons."""
    scores, vectors = clustered(150)
    moved = np.random.default_rng(3).permutation(150)
    rule = adg(ratio=0.3, classes=6)
    first, other = (
        rule.select(scores, True, vectors=vectors),
        rule.select(scores.take(moved), True, vectors=vectors[moved]),
    )
    told, permuted = ({d["id"]: (d["reason"], d["class"]) for d in made.decisions} for made in (first, other))
    assert told == permuted


def test_bins_follow_the_pool():
    """Three clouds far apart, asked for three bins: no bin mixes two clouds. A thousand bins asked for of 200 records:
    20, ten records to a bin on average. Records without a vector are in none."""
    scores, vectors = clustered(200, groups=3, spread=0.01)
    ids = scores["id"].to_pylist()
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    labels = bins(unit, ids, 3, 42)
    for label in np.unique(labels):
        assert (unit[labels == label] @ unit[labels == label][0]).min() > 0.9
    assert np.array_equal(labels, bins(unit, ids, 3, 42)) and (np.diff(np.bincount(labels)) <= 0).all()
    assert len(np.unique(bins(unit, ids, 1000, 42))) <= 20
    assert not np.array_equal(bins(unit, ids, 20, 42), bins(unit, ids, 20, 43))
    unit[:5] = np.nan
    assert (bins(unit, ids, 8, 42)[:5] == -1).all()


def test_tiny_pools():
    """Fewer records than a bin should have: one bin."""
    assert bins(on_circle(0, 10, 200), ["a", "b", "c"], 1000, 42).tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("options", "told"), [({"part": "end"}, "selection.part=end"), ({"smallest": 0}, "smallest=0")]
)
def test_bad_settings(options, told):
    with pytest.raises(UserError, match=told):
        adg(count=1, **options)


def test_configurations():
    """The published code's 1,000 bins with seed 42, and the two ablations beside it."""
    best, middle, bottom = (
        instantiate(config(f"selection={name}").selection) for name in ("adg", "adg_middle", "adg_bottom")
    )
    assert (best.classes, best.seed, best.smallest, best.centre, best.top_up) == (1000, 42, 3, False, False)
    assert (best.part, best.order, middle.part, middle.order) == ("best", "top", "middle", "top")
    assert (bottom.part, bottom.order) == ("best", "bottom") and best.passes["embedding"].region == "instruction"
