"""diversity.json: what a subset covers of its pool, in numbers small enough for a page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from sklearn.decomposition import PCA

from winnow.selection.budget import Budget, draw
from winnow.selection.rule import Selection
from winnow.selection.vectors import directions, nearest_cosines, present
from winnow.store.files import write_json

DRAWS = 5  # random subsets of equal size that the subset is compared with
COMPARED = 5000  # records whose nearest neighbour is looked for in each subset
SHOWN = 5000  # points on the map
BINS = 50  # at most; fewer for a small subset


def write_diversity(folder: Path, vectors: np.ndarray | None, selection: Selection, rule: Budget) -> int | None:
    """Write `diversity.json`, and return how many classes the subset covers.

    vectors: (records, width), NaN rows where there is none. Without vectors there is no such file; one that an earlier
    selection left in the folder is deleted, and None is returned.
    """
    path = folder / "diversity.json"
    if vectors is None:
        path.unlink(missing_ok=True)
        return None
    ids = [decision["id"] for decision in selection.decisions]
    content = diversity(directions(vectors, rule.centre), selection, ids, rule.seed)
    write_json(path, content, indent=None)
    return content["classes"]["selected"]


def diversity(points: np.ndarray, selection: Selection, ids: Sequence[str], seed: int = 0) -> dict:
    """The content of `diversity.json`.

        classes     per class: records in the pool, eligible, selected, quota; how many classes subset and pool have
        neighbours  histogram of  max over j in S, j != i, of cos(v_i, v_j)  for i in S: the subset, and the mean of 5
                    random subsets of as many eligible records; with their medians
        map         the pool on its first two principal components, and which records are selected

    points: (records, width) of unit length in the order of the decisions, NaN rows where there is none. selection: has
    classes.
    Random subsets and, above 5,000 records, the points of the map are drawn from (seed, record id).
    """
    classes = selection.classes
    eligible = np.array([i for i, one in enumerate(selection.decisions) if one["rank"] is not None], np.int64)
    chosen = np.array(selection.chosen, np.int64)
    label = np.array([-1 if one["class"] is None else one["class"] for one in selection.decisions])
    subsets = [_drawn(eligible, ids, len(chosen), seed + turn) for turn in range(DRAWS)]
    return {
        "classes": {
            "pool": sum(one["pool"] > 0 for one in classes),
            "eligible": sum(one["valid"] > 0 for one in classes),
            "selected": sum(one["selected"] > 0 for one in classes),
            "random": float(np.mean([len(np.unique(label[subset])) for subset in subsets])),
            "by_class": classes,
        },
        "neighbours": _neighbours(points, chosen, subsets, ids, seed) if len(chosen) > 1 else None,
        "map": _map(points, chosen, ids, seed),
    }


def _drawn(places: np.ndarray, ids: Sequence[str], count: int, seed: int) -> np.ndarray:
    """`count` of the places, drawn by record id, in file order."""
    if count >= len(places):
        return places
    keys = np.array([draw(seed, f"compare:{ids[i]}") for i in places])
    return np.sort(places[np.argsort(keys, kind="stable")[:count]])


def _neighbours(
    points: np.ndarray, chosen: np.ndarray, subsets: Sequence[np.ndarray], ids: Sequence[str], seed: int
) -> dict:
    found = []
    for subset in (chosen, *subsets):
        asked = _drawn(np.arange(len(subset)), [ids[i] for i in subset], COMPARED, seed)
        rows = points[subset]
        found.append(np.clip(nearest_cosines(rows[asked], rows, asked), -1, 1))
    own, others = found[0], found[1:]
    low = np.floor(min(values.min() for values in found) * 20) / 20
    edges = np.linspace(low, 1, int(np.clip(2 * np.sqrt(len(own)), 10, BINS)) + 1)
    counts = [np.histogram(values, edges)[0] / len(values) for values in found]
    return {
        "edges": edges.round(6).tolist(),
        "subset": counts[0].round(6).tolist(),
        "random": np.mean(counts[1:], axis=0).round(6).tolist(),
        "subset_median": float(np.median(own)),
        "random_median": float(np.median(np.concatenate(others))),
    }


def _map(points: np.ndarray, chosen: np.ndarray, ids: Sequence[str], seed: int) -> dict | None:
    there = np.flatnonzero(present(points))
    if len(there) < 3 or points.shape[1] < 2:
        return None
    rows = points[there]
    # Works on the width x width covariance: no copy of the points, and the same in any run.
    fitted = PCA(2, svd_solver="covariance_eigh").fit(rows)
    shown = _drawn(np.arange(len(there)), [ids[i] for i in there], SHOWN, seed)
    places = fitted.transform(rows[shown])
    selected = np.isin(there[shown], chosen)
    return {
        "x": places[:, 0].astype(float).round(4).tolist(),
        "y": places[:, 1].astype(float).round(4).tolist(),
        "selected": selected.tolist(),
        "explained": fitted.explained_variance_ratio_.astype(float).round(4).tolist(),
        "n_pool": len(there),
    }
