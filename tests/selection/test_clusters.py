"""Classes, quotas, and the vectors that both rest on."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from winnow.selection import vectors as vectors_module
from winnow.selection.clusters import classes, quotas, within_quotas
from winnow.selection.vectors import directions, nearest_cosines, unlike


def blobs(sizes=(12, 7, 4), seed=0):
    """Unit vectors around the axes of space, so many around each, and the axis of each."""
    axis = np.repeat(np.arange(len(sizes)), sizes)
    noise = 0.05 * np.random.default_rng(seed).normal(size=(len(axis), 5))
    return directions((np.eye(5)[axis] + noise).astype(np.float32), centre=False), axis


def test_classes_are_the_blobs_largest_first():
    """Three groups 90 degrees apart and 3 degrees wide: k-means with k = 3 finds them; 12 > 7 > 4 numbers them."""
    points, axis = blobs()
    assert classes(points, [f"r{i:02d}" for i in range(len(axis))], 3, 0).tolist() == axis.tolist()


def test_classes_do_not_depend_on_the_order_of_the_file():
    """Permuted records with their ids: every id keeps its class, also where k does not fit the groups."""
    points, _ = blobs((20, 20, 20))
    ids = np.array([f"r{i:02d}" for i in range(60)])
    order = np.random.default_rng(1).permutation(60)
    plain = classes(points, ids, 7, 0)
    assert classes(points[order], ids[order], 7, 0).tolist() == plain[order].tolist()
    assert len(set(plain)) == 7 and classes(points, ids, 7, 1).tolist() != plain.tolist()  # another seed, others


def test_fewer_vectors_than_classes():
    """Six vectors of which three differ, and a record without any: three classes and -1, without a warning."""
    points = np.vstack([np.repeat(np.eye(3, dtype=np.float32), 2, axis=0), np.full((1, 3), np.nan, np.float32)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = classes(points, list("abcdefg"), 100, 0)
    assert found[6] == -1 and found[0] == found[1] and found[2] == found[3] and len(set(found[:6].tolist())) == 3


def test_quotas_by_hand():
    """Classes of 5, 3 and 2, budget 5: shares 2.5, 1.5, 1. The floors give 4; the fifth goes to one of the two
    remainders of one half: to the class whose best record comes first, here class 1. Budget 4: shares 2, 1.2, 0.8:
    floors 2, 1, 0, and the largest remainder is class 2's."""
    labels = np.array([1, 0, 0, 0, 0, 0, 1, 1, 2, 2])
    assert quotas(labels, 5).tolist() == [2, 2, 1]
    assert quotas(labels, 4).tolist() == [2, 1, 1]


@pytest.mark.parametrize("seed", range(20))
def test_quotas_sum_to_the_budget_and_fit_their_class(seed):
    """For any classes (some empty) and any budget: the sum is the budget, no quota exceeds its class, and each lies
    within one record of the exact share."""
    generator = np.random.default_rng(seed)
    labels = generator.choice(13, size=int(generator.integers(1, 300)), p=generator.dirichlet(np.full(13, 0.3)))
    size = np.bincount(labels)
    for budget in {0, 1, len(labels) // 10, len(labels) // 2, len(labels) - 1, len(labels)}:
        quota = quotas(labels, budget)
        assert quota.sum() == budget and (quota <= size).all() and (quota >= 0).all()
        assert (np.abs(quota - budget * size / len(labels)) < 1).all()


def test_within_quotas_takes_the_first_of_each_class():
    assert within_quotas(np.array([0, 0, 1, 0, 1]), [0, 1, 2, 3, 4], np.array([2, 1])) == [0, 1, 2]


def test_directions():
    """(3, 4) has length 5. Centred: the mean of (1, 0) and (3, 0) is (2, 0), which leaves -1 and 1; the row without a
    vector takes no part, and a row equal to the mean stays zero."""
    assert directions(np.array([[3, 4]], np.float32), False).tolist() == [pytest.approx([0.6, 0.8])]
    rows = directions(np.array([[1, 0], [np.nan, np.nan], [3, 0], [2, 0]], np.float32), True)
    assert rows[[0, 2, 3]].tolist() == [[-1, 0], [1, 0], [0, 0]] and np.isnan(rows[1]).all()


def plain_walk(points, limit, wanted):
    kept, skipped = [], set()
    for i, row in enumerate(points):
        if len(kept) == wanted:
            break
        if kept and (points[kept] @ row).max() > limit:
            skipped.add(i)
        else:
            kept.append(i)
    return kept, skipped


@pytest.mark.parametrize("wanted", [None, 40, 1])
def test_walk_in_blocks_equals_the_plain_walk(monkeypatch, wanted):
    """300 rows in blocks of 32 against kept ones in blocks of 16 decide as row by row against all kept ones; the twin
    is kept, comes before, exceeds the limit, and no kept row before is more alike."""
    monkeypatch.setattr(vectors_module, "WALKED", 32)
    monkeypatch.setattr(vectors_module, "COMPARED", 16)
    points = directions(np.random.default_rng(0).normal(size=(300, 4)).astype(np.float32), False)
    kept, similar = unlike(points, 0.9, wanted)
    expected, skipped = plain_walk(points, 0.9, wanted)
    assert kept == expected and set(similar) == skipped and (wanted is not None or 0 < len(kept) < 300)
    for i, twin in similar.items():
        before = [j for j in kept if j < i]
        cosines = points[before] @ points[i]
        assert twin in before and points[twin] @ points[i] > 0.9
        assert points[twin] @ points[i] == pytest.approx(cosines.max(), abs=1e-6)


def test_nearest_cosines_in_blocks(monkeypatch):
    """Against the full 100 x 100 matrix with its diagonal left out."""
    monkeypatch.setattr(vectors_module, "WALKED", 16)
    monkeypatch.setattr(vectors_module, "COMPARED", 32)
    points = directions(np.random.default_rng(0).normal(size=(100, 6)).astype(np.float32), False)
    full = points @ points.T
    np.fill_diagonal(full, -np.inf)
    asked = np.arange(0, 100, 3)
    assert nearest_cosines(points[asked], points, asked) == pytest.approx(full.max(axis=1)[asked], abs=1e-6)
