"""Selection by quality and diversity: quotas, the limit, the top-up, the ablations, and the stage that runs it."""

from __future__ import annotations

import json
from functools import partial

import numpy as np
import pytest
from composed import build, config, on_tiny, places
from vector_pool import clustered, on_circle, table

from winnow import pipeline
from winnow.errors import UserError
from winnow.scoring.filters import Range
from winnow.selection.rule import Candidates
from winnow.selection.vectors import directions

diverse = partial(build, "selection/consistency")


def pick(angles, classes, budget, **options):
    """What the rule decides on records at these angles, best first, with the classes given."""
    candidates = Candidates(len(angles), on_circle(*angles), np.array(classes))
    return diverse(count=1, **options).pick(candidates, budget)


COPIES = {"angles": [0, 1, 2, 90, 130, 170], "classes": [0, 0, 0, 1, 1, 1]}


def test_top_up_by_hand():
    """Class 0 lies within 2 degrees (cosine above 0.999), class 1 is 40 degrees apart (cosine 0.77). Budget 4: quotas 2
    and 2. Class 0 has one record to give, 0; class 1 gives 3 and 4. The fourth place goes to the best of the rest that
    the limit lets through: 5, not 1 or 2."""
    picks = pick(**COPIES, budget=4)
    assert picks.taken == [0, 3, 4, 5] and picks.quotas.tolist() == [2, 2]
    assert picks.similar == {1: 0, 2: 0} and not picks.reasons


def test_the_limit_compares_the_instructions():
    """COPIES' classes, but instructions at 0, 40, 80 | 90, 91, 170 degrees: class 0 keeps all three, in class 1 the
    second is a copy of the first. Quotas of 2 and 2: 0, 1, 3 and 5."""
    candidates = Candidates(
        6, on_circle(*COPIES["angles"]), np.array(COPIES["classes"]), compared=on_circle(0, 40, 80, 90, 91, 170)
    )
    picks = diverse(count=1).pick(candidates, 4)
    assert picks.taken == [0, 1, 3, 5] and picks.similar == {4: 3}


def test_a_record_without_an_instruction_is_like_no_other():
    """Vectors of the classes at 0, 1 and 2 degrees, instructions none, 0 and 1: the third is a copy of the second, the
    first stays. A vector that is missing must not hide a likeness of the others."""
    vectors = on_circle(0, 1, 2)
    compared = np.concatenate([np.full((1, 2), np.nan, np.float32), on_circle(0, 1)])
    rule = diverse(count=2, classes=1, centre=False)
    got = rule.select(table([0.9, 0.8, 0.7]), True, vectors=vectors, compared=compared)
    assert got.chosen == [0, 1] and got.decisions[2]["reason"] == "too_similar"
    assert set(rule.passes) == {"embedding", "instructions"}
    assert set(diverse(count=2, intra_class=False).passes) == {"embedding"}


def test_instructions_are_compared_as_they_are():
    """At 0, 20 and 40 degrees the second is a copy of the first (cosine 0.94). `centre` is of the classes' vectors:
    without their mean the three instructions would point three ways."""
    rule = diverse(count=3, classes=1, centre=True)
    got = rule.select(table([0.9, 0.8, 0.7]), True, vectors=on_circle(0, 120, 240), compared=on_circle(0, 20, 40))
    assert got.chosen == [0, 2]


def test_a_class_without_an_eligible_record():
    """Three records near 0 degrees, two near 180 whose scores a filter takes."""
    rule = diverse(count=2, classes=2, centre=False, intra_class=False, filters=[Range("score", min=0.0)])
    got = rule.select(table([3.0, 2.0, 1.0, -1.0, -2.0]), True, vectors=on_circle(0, 1, 2, 180, 181))
    assert got.classes == [
        {"class": 0, "pool": 3, "valid": 3, "selected": 2, "quota": 2},
        {"class": 1, "pool": 2, "valid": 0, "selected": 0, "quota": 0},
    ]


def test_without_top_up():
    """As above, and the fourth place stays empty."""
    picks = pick(**COPIES, budget=4, top_up=False)
    assert picks.taken == [0, 3, 4] and picks.reason(5) == "class_quota_full" and picks.reason(1) == "too_similar"


def test_what_quotas_leave_out_of_a_short_subset_is_said_with_its_remedy():
    """Four copies, then four unlike records, budget 4: quotas 2 and 2, taken 0, 4 and 5. The top-up would take 6."""
    vectors = np.concatenate([on_circle(0, 1, 2, 3), on_circle(90, 150, 210, 270)])
    rule = diverse(count=4, classes=2, centre=False, top_up=False, instructions=None)
    rule.classify = lambda points, ids: np.repeat([0, 1], 4)
    got = rule.select(table(np.linspace(1, 0.3, 8).tolist()), True, vectors=vectors)
    assert got.chosen == [0, 4, 5] and got.manifest()["reasons"] == {"too_similar": 3, "class_quota_full": 2}
    assert "set selection.top_up=true or raise selection.limit" in got.shortfall()


def test_limit_is_kept_when_the_budget_cannot_be_filled():
    """Four of the six are unlike: with a budget of 5 the top-up ends at four."""
    assert pick(**COPIES, budget=5).taken == [0, 3, 4, 5]


def test_quota_full_by_hand():
    """No near copies. Classes of 4 and 2, budget 3: quotas 2 and 1. Taken: 0, 1 and 4; the places 2 and 3 rank higher
    than 4, but their class is full; 5 comes after the last that was taken."""
    picks = pick([0, 40, 80, 120, 200, 240], [0, 0, 0, 0, 1, 1], 3)
    assert picks.taken == [0, 1, 4]
    assert [picks.reason(place) for place in (2, 3, 5)] == ["class_quota_full", "class_quota_full", "beyond_budget"]


def test_quotas_alone():
    """inter_class only: classes 0 and 1 give two each, copies or not."""
    assert pick(**COPIES, budget=4, intra_class=False).taken == [0, 1, 3, 4]


def test_limit_alone():
    """intra_class only: the ranking without near copies of the same class; 1 degree across classes is no matter."""
    assert pick([0, 1, 2, 90], [0, 0, 1, 1], 3, inter_class=False).taken == [0, 2, 3]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("options", [{}, {"top_up": False}, {"inter_class": False}, {"limit": 0.6}])
def test_no_two_kept_records_of_a_class_exceed_the_limit(seed, options):
    """Over random pools; and every record called too similar names a selected one of its class above the limit."""
    scores, vectors = clustered(250, seed=seed)
    rule = diverse(ratio=0.3, classes=10, **options)
    got = rule.select(scores, True, vectors=vectors)
    points = directions(vectors, True)
    place = {decision["id"]: i for i, decision in enumerate(got.decisions)}
    for one in got.decisions:
        peers = [i for i in got.chosen if got.decisions[i]["class"] == one["class"] and i != place[one["id"]]]
        if one["selected"] and peers:
            assert (points[peers] @ points[place[one["id"]]]).max() <= rule.limit + 1e-6
        assert ("similar_to" in one) == (one["reason"] == "too_similar")
        if "similar_to" in one:
            twin = place[one["similar_to"]]
            assert twin in peers and points[twin] @ points[place[one["id"]]] > rule.limit - 1e-6
    assert any(one["reason"] == "too_similar" for one in got.decisions)


def test_quotas_and_counts_in_the_manifest():
    """200 records, budget 60: the quotas sum to 60, each class without copies gives its quota, and the columns of the
    class table sum to the pool, the valid and the selected records. Every record has a reason."""
    scores, vectors = clustered(200)
    got = diverse(count=60, classes=9, intra_class=False).select(scores, True, vectors=vectors)
    manifest = got.manifest()
    assert sum(one["quota"] for one in manifest["classes"]) == 60 == manifest["n_selected"]
    assert all(one["selected"] == one["quota"] for one in manifest["classes"])
    assert [sum(one[key] for one in manifest["classes"]) for key in ("pool", "valid", "selected")] == [200, 200, 60]
    assert sum(manifest["reasons"].values()) == 140 and got.shortfall() is None
    assert manifest["rule"]["intra_class"] is False and manifest["rule"]["name"] == "diverse"


def test_shortfall_is_said():
    """50 copies of one vector and of its opposite: two records are unlike, 20 were asked for."""
    vectors = np.repeat(on_circle(0, 180), 50, axis=0)
    got = diverse(count=20, classes=2).select(table(np.arange(100) / 100), True, vectors=vectors)
    assert len(got.chosen) == 2 and "only 2 of the 20 records asked for, because 98" in got.shortfall()


def test_quality_only_is_the_plain_budget():
    """Both switches off: the choice of `Budget`, record for record, and its cut."""
    scores, vectors = clustered(120)
    plain = build("selection/top", ratio=0.2).select(scores, True)
    got = diverse(ratio=0.2, inter_class=False, intra_class=False, classes=5).select(scores, True, vectors=vectors)
    assert got.chosen == plain.chosen and got.cut == plain.cut is not None


def test_diversity_only_does_not_look_at_the_scores():
    """order=random: other scores, the same subset; another seed, another one."""
    scores, vectors = clustered(120)
    other = table(np.random.default_rng(5).permutation(120) / 120)
    rule = diverse(ratio=0.2, order="random", classes=5)
    chosen = rule.select(scores, True, vectors=vectors).chosen
    assert rule.select(other, False, vectors=vectors).chosen == chosen
    assert diverse(ratio=0.2, order="random", classes=5, seed=1).select(scores, True, vectors=vectors).chosen != chosen


def test_low_against_high_end():
    """order=bottom of a score is order=top of its negative."""
    scores, vectors = clustered(120)
    negative = table(-scores["score"].to_numpy())
    high = diverse(ratio=0.2, classes=5).select(negative, True, vectors=vectors).chosen
    assert diverse(ratio=0.2, classes=5, order="bottom").select(scores, True, vectors=vectors).chosen == high


@pytest.mark.parametrize("order", ["top", "random"])
def test_order_of_the_file_does_not_matter(order):
    """Permuted records, with their vectors: the same ids are taken for the same reasons. Twice the same: equal."""
    scores, vectors = clustered(150)
    moved = np.random.default_rng(3).permutation(150)
    rule = diverse(ratio=0.3, classes=6, order=order)
    first = rule.select(scores, True, vectors=vectors)
    again = rule.select(scores, True, vectors=vectors)
    other = rule.select(scores.take(moved), True, vectors=vectors[moved])
    told, same, permuted = (
        {d["id"]: (d["reason"], d["class"], d.get("similar_to")) for d in made.decisions}
        for made in (first, again, other)
    )
    assert told == same == permuted and first.shortfall() == other.shortfall()


def test_records_without_a_vector_are_not_eligible():
    """10 records, one flagged, one without a vector: 8 are valid, int(10 * 0.5) = 5 are taken, none of the two."""
    _, vectors = clustered(10, groups=2)
    flags = [None] * 10
    flags[3] = "empty_answer"
    vectors[[3, 6]] = np.nan
    got = diverse(ratio=0.5, classes=2, limit=1.0).select(table(np.arange(10.0), flags), True, vectors=vectors)
    assert (got.n_valid, got.budget, len(got.chosen)) == (8, 5, 5)
    assert (got.decisions[3]["reason"], got.decisions[6]["reason"]) == ("empty_answer", "no_vector")
    assert got.decisions[6]["class"] is None and got.decisions[6]["rank"] is None


def test_full_takes_everything():
    """A method that takes all is not held to quotas or the limit."""
    got = diverse(ratio=0.1).select(table(np.arange(6.0)), True, takes_all=True, vectors=np.ones((6, 3), np.float32))
    assert got.chosen == list(range(6))


def test_bad_settings():
    with pytest.raises(UserError, match="limit=1.2 must be a cosine"):
        diverse(ratio=0.1, limit=1.2)
    with pytest.raises(UserError, match="classes=0"):
        diverse(ratio=0.1, classes=0)
    with pytest.raises(UserError, match="diverse compares vectors; give it a pass as selection.embedding"):
        diverse(ratio=0.5).select(table([1.0, 2.0]), True)


RULES = ["consistency", "quality_only", "diversity_only", "k_center", "facility_location", "deita", "stratified"]


def test_every_rule_through_the_stage(tiny_folder, tmp_path):
    """Each shipped rule on 40 records of the embedded pool and the tiny backbone: a full budget of int(40 * 0.25), a
    class for every record, and diversity.json. The embedding pass is computed once for all. The report has a section
    about it. A rule without vectors in the same folder leaves neither behind."""
    small = ["data.limit=40", "selection.ratio=0.25", "method=length", "stages=[score,select]"]
    small += [*on_tiny(tiny_folder), *places(tmp_path), "template.max_length=600"]
    subsets = {}
    for rule in RULES:
        results = pipeline.run(config(*small, f"selection={rule}", "selection.classes=6"))
        manifest = json.loads((tmp_path / "run" / "selection.json").read_text())
        subsets[rule] = [d["id"] for d in manifest["decisions"] if d["selected"]]
        assert manifest["n_selected"] == manifest["budget"] == results["selected"] > 0
        assert all(d["rank"] is None or d["class"] is not None for d in manifest["decisions"])
        covered = json.loads((tmp_path / "run" / "diversity.json").read_text())["classes"]["selected"]
        assert results["classes_covered"] == covered > 1
    pipeline.run(config(*small, f"selection={rule}", "selection.classes=6", "stages=[report]"))
    assert "Diversity of the subset" in (tmp_path / "run" / "report.html").read_text()
    assert len({tuple(ids) for ids in subsets.values()}) > 4
    assert len(list((tmp_path / "store" / "passes").iterdir())) == 3  # tokens, vectors of texts, of instructions
    pipeline.run(config(*small, "selection=top", "stages=[select,report]"))
    assert not (tmp_path / "run" / "diversity.json").exists()
    assert "Diversity of the subset" not in (tmp_path / "run" / "report.html").read_text()
