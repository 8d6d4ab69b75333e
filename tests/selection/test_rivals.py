"""The rivals: k-center, facility location, DEITA's filter and the stratified sample."""

from __future__ import annotations

import itertools
import math
from functools import partial

import numpy as np
import pytest
from composed import build
from vector_pool import clustered, on_circle

from winnow.errors import UserError
from winnow.selection.rule import Candidates
from winnow.selection.rules import facility_location as facility
from winnow.selection.rules.facility_location import stochastic_greedy
from winnow.selection.rules.k_center import farthest_first
from winnow.selection.vectors import directions

facility_location = partial(build, "selection/facility_location")
deita = partial(build, "selection/deita")


def test_k_center_on_a_line():
    """Points at 0, 1, 2, 6, 10. From 0 the farthest is 10. Then the distances to the nearest of 0 and 10 are 1, 2, 4
    (6 is 4 from 10), so 6 is next; then 2 (distance 2 from 0), then 1."""
    points = np.array([[0.0], [1.0], [2.0], [6.0], [10.0]], np.float32)
    assert farthest_first(points, 5) == [0, 4, 3, 2, 1]


def test_k_center_ties_go_to_the_better_record():
    """Records 1 and 2 lie 90 degrees from record 0 on either side: the one that ranks first is taken. Copies of a taken
    record come last, in ranking order."""
    assert build("selection/k_center", count=1).pick(Candidates(3, on_circle(0, 90, -90)), 2).taken == [0, 1]
    assert farthest_first(on_circle(30, 30, 75, 30), 4) == [0, 2, 1, 3]


def test_k_center_is_within_twice_the_best_radius():
    """Gonzalez' bound, against every choice of 3 of 12 points."""
    points = np.random.default_rng(0).normal(size=(12, 2)).astype(np.float32)
    distance = np.linalg.norm(points[:, None] - points[None], axis=2)

    def radius(chosen):
        return distance[:, list(chosen)].min(axis=1).max()

    best = min(radius(chosen) for chosen in itertools.combinations(range(12), 3))
    assert best <= radius(farthest_first(points, 3)) <= 2 * best


def cover(points, chosen):
    """f(S) as its formula says, in fp64."""
    return np.maximum(points.astype(np.float64) @ points[list(chosen)].astype(np.float64).T, 0).max(axis=1).sum()


@pytest.mark.parametrize("seed", range(5))
def test_facility_location_against_brute_force(monkeypatch, seed):
    """All candidates drawn is plain greedy: every step takes a best next record, and the end is at least 1 - 1/e of the
    best of all choices of 3 of 11 records. Four candidates are compared at a time."""
    monkeypatch.setattr(facility, "COMPARED", 4)
    points = directions(np.random.default_rng(seed).normal(size=(11, 3)).astype(np.float32), False)
    taken = stochastic_greedy(points, 3, 11, np.random.default_rng(0))
    for step in range(3):
        options = [cover(points, [*taken[:step], j]) for j in range(11) if j not in taken[:step]]
        assert cover(points, taken[: step + 1]) == pytest.approx(max(options), rel=1e-5)
    best = max(cover(points, chosen) for chosen in itertools.combinations(range(11), 3))
    assert (1 - 1 / math.e) * best <= cover(points, taken) <= best + 1e-5


def test_facility_location_by_hand():
    """Records at 0, 10 and 20 degrees and one at 180: alone, 10 degrees covers most of the first three (1 + 2 cos 10 =
    2.97 against 1 + cos 10 + cos 20 = 2.92). The second place goes to 180, whose likeness to 10 is below 0."""
    picks = facility_location(count=1).pick(Candidates(4, on_circle(0, 10, 20, 180)), 2)
    assert picks.taken == [1, 3]


def test_facility_location_takes_the_better_ranked_of_equals():
    """40 copies, of which 32 are compared at a time, all drawn and 35 drawn: the first of those that are there."""
    points = np.tile(on_circle(0), (40, 1))
    assert stochastic_greedy(points, 3, 40, np.random.default_rng(0)) == [0, 1, 2]
    drawn = np.random.default_rng(0).choice(40, 3, replace=False)
    assert stochastic_greedy(points, 1, 3, np.random.default_rng(0)) == [min(drawn)] != [drawn[0]]


def test_facility_location_draws(monkeypatch):
    """400 records, 40 wanted, epsilon 0.1: 400 / 40 * ln 10 = 23.03, so 24 candidates a step. No record twice, the same
    seed the same subset, and on clustered records a better cover than 40 random ones, close to plain greedy's."""
    _, vectors = clustered(400, groups=30)
    points = directions(vectors, True)
    taken = facility_location(count=1).pick(Candidates(400, points), 40).taken
    assert len(set(taken)) == 40 and taken == facility_location(count=1).pick(Candidates(400, points), 40).taken
    assert taken != facility_location(count=1, seed=1).pick(Candidates(400, points), 40).taken
    greedy = cover(points, stochastic_greedy(points, 40, 400, np.random.default_rng(0)))
    random = cover(points, np.random.default_rng(0).choice(400, 40, replace=False))
    assert 0.95 * greedy < cover(points, taken) and random < cover(points, taken)
    monkeypatch.setattr(facility, "stochastic_greedy", lambda points, count, drawn, generator: [count, drawn])
    assert facility_location(count=1, epsilon=0.1).pick(Candidates(400, points), 40).taken == [40, 24]


def test_deita_by_hand():
    """Best first at 0, 20, 40, 60 degrees; the limit 0.9 is 25.8 degrees. 20 is too like 0. 40 is too like 20, but 20
    was not taken, so it counts for nothing (comparing with rejected records, as the published code does inside a batch,
    would drop it) and 40 is taken; 60 is too like 40."""
    picks = deita(count=1).pick(Candidates(4, on_circle(0, 20, 40, 60)), 3)
    assert picks.taken == [0, 2] and picks.similar == {1: 0, 3: 2}


def test_deita_stops_at_the_budget():
    """What comes after the last one that was taken is beyond the budget, alike or not."""
    picks = deita(count=1).pick(Candidates(4, on_circle(0, 90, 91, 180)), 2)
    assert picks.taken == [0, 1] and [picks.reason(i) for i in (2, 3)] == ["beyond_budget", "beyond_budget"]


def test_stratified_by_hand():
    """Classes of 4 and 2, budget 3: two and one, the first of each."""
    picks = build("selection/stratified", count=1, order="top").pick(
        Candidates(6, on_circle(*range(6)), np.array([0, 0, 0, 1, 0, 1])), 3
    )
    assert picks.taken == [0, 1, 3] and picks.quotas.tolist() == [2, 1] and picks.reason(2) == "class_quota_full"


@pytest.mark.parametrize("rule", ["deita", "facility_location", "k_center", "stratified"])
def test_rivals_in_the_frame(rule):
    """Each fills the budget, gives every record a reason and a class, names a selected twin where it skips, repeats
    itself, and does not depend on the order of the file."""
    scores, vectors = clustered(200, spread=0.6)
    chooser = build(f"selection/{rule}", ratio=0.2, classes=8, order="top")
    got = chooser.select(scores, True, vectors=vectors)
    assert len(got.chosen) == got.budget == 40 and sum(one["selected"] for one in got.classes) == 40
    assert all(one["reason"] and one["class"] is not None for one in got.decisions)
    selected = {one["id"] for one in got.decisions if one["selected"]}
    assert all(one["similar_to"] in selected for one in got.decisions if "similar_to" in one)
    assert chooser.select(scores, True, vectors=vectors).decisions == got.decisions
    moved = np.random.default_rng(3).permutation(200)
    other = chooser.select(scores.take(moved), True, vectors=vectors[moved])
    assert {one["id"] for one in other.decisions if one["selected"]} == selected


def test_bad_epsilon():
    with pytest.raises(UserError, match="epsilon=0 must lie between"):
        facility_location(ratio=0.1, epsilon=0)
