"""Classes of a pool by k-means on its vectors, and how a budget is shared out among classes."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import numpy as np
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits

from winnow.selection.vectors import present

ITERATIONS = 100  # at most (ours)


def classes(points: np.ndarray, ids: Sequence[str], k: int, seed: int) -> np.ndarray:
    """(records,) class of each record, 0 the largest; -1 for a record without a vector.

    k-means on vectors of unit length, so that classes and the limit on likeness use one measure:
    |u - v|^2 = 2 - 2 cos(u, v). The paper clusters the hidden states H and says nothing of their length.

    points: (records, width) of unit length, NaN rows where there is none. ids: fix the order in which k-means sees the
    records, so that the order of the file changes nothing. k: number of classes; fewer where there are fewer different
    vectors.
    """
    return _fitted(
        points,
        ids,
        # The rows are a copy already; k-means may shift them.
        lambda n: KMeans(min(k, n), n_init=1, max_iter=ITERATIONS, random_state=seed, copy_x=False),
    )


def bins(points: np.ndarray, ids: Sequence[str], k: int, seed: int, mean_size: int = 10) -> np.ndarray:
    """(records,) bin of each record, 0 the largest; -1 for a record without a vector: the bins of ADG.

    Mini-batch k-means with the published code's settings: batches of min(1000, n / 10), three starts, 100 rounds.
    mean_size: no more bins than leave so many records to a bin on average (ours), so that the 1,000 bins of a pool of
    50,000 do not become single records in a small one. points, ids, k: as for `classes`.
    """

    def means(n: int) -> MiniBatchKMeans:
        number, batch = max(1, min(k, n // mean_size)), max(1, min(1000, n // 10))
        # The library's own choice of the starting sample; given, because it warns where it has to raise it.
        sample = min(n, 3 * max(batch, number))
        return MiniBatchKMeans(
            number, random_state=seed, batch_size=batch, n_init=3, max_iter=ITERATIONS, init_size=sample
        )

    return _fitted(points, ids, means)


def _fitted(points: np.ndarray, ids: Sequence[str], means: Callable) -> np.ndarray:
    """Classes by the estimator that `means` makes for n rows, numbered by size."""
    there = np.flatnonzero(present(points))
    by_id = there[np.argsort(np.array(ids)[there], kind="stable")]
    rows = points[by_id]
    # Several threads add up in an order of their own; one makes the classes the same on every machine of a kind.
    with warnings.catch_warnings(), threadpool_limits(1, user_api="openmp"):
        warnings.filterwarnings("ignore", "Number of distinct clusters", ConvergenceWarning)
        found = means(len(rows)).fit_predict(rows)
    _, first, label, size = np.unique(found, return_index=True, return_inverse=True, return_counts=True)
    number = np.empty(len(size), np.int64)
    number[np.lexsort((first, -size))] = np.arange(len(size))
    result = np.full(len(points), -1, np.int64)
    result[by_id] = number[label]
    return result


def quotas(labels: np.ndarray, budget: int) -> np.ndarray:
    """(classes,) how many records each class may give: proportional to its size, by largest remainder.

        q_c = floor(budget * n_c / n), plus 1 for the classes with the largest remainders until the sum is the budget

    labels: (records,) class of each eligible record, best record first: of equal remainders, the class whose best
    record ranks higher is served first. No quota exceeds its class.
    """
    size = np.bincount(labels)
    share, remainder = np.divmod(budget * size, len(labels))
    best = np.full(len(size), len(labels))
    np.minimum.at(best, labels, np.arange(len(labels)))
    share[np.lexsort((best, -remainder))[: budget - share.sum()]] += 1
    return share


def within_quotas(labels: np.ndarray, places: Sequence[int], quota: np.ndarray) -> list[int]:
    """The first `quota[c]` of `places` in each class c, in the order given. labels: class by place."""
    left = quota.copy()
    taken = []
    for place in places:
        if left[labels[place]] > 0:
            left[labels[place]] -= 1
            taken.append(place)
    return taken
