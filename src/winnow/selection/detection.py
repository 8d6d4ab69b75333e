"""How well a ranking finds the planted defects of a labelled pool: area under the ROC curve, over all defects
and by kind."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score


def detection(
    rows: Sequence[Mapping[str, Any]],
    defects: Mapping[Hashable, str | None],
    higher_is_better: bool,
    dropped: Collection[Hashable] = (),
) -> dict[str, Any]:
    """AUC = P(clean ranks above defective) + 1/2 P(tie), over all pairs of a clean and a defective record: 1
    when every defective record ranks below every clean one, 0.5 by chance (the Mann-Whitney statistic).

    `rows` are the records, with the keys `id` and `score`, `defects` maps an id to the kind of its planted defect,
    or None or "" (an empty cell) for a clean record, `dropped` holds ids that a filter took out. Records without a
    score and dropped ones could not be selected, so they rank last, tied with one another.

    Returns `{"overall": {"auc", "n_defect", "n_clean"}, "by_kind": {kind: {"auc", "n"}}}`; each kind is
    compared with all clean records. An `auc` is None when there is no clean or no defective record to
    compare.

    Raises KeyError for a record without a label."""
    dropped = frozenset(dropped)
    score = np.array([row["score"] for row in rows], dtype=float)
    out = ~np.isfinite(score) | [row["id"] in dropped for row in rows]
    preference = np.where(out, -np.inf, score if higher_is_better else -score)
    kinds = [defects[row["id"]] or None for row in rows]
    # Only the order counts; ranks turn the minus infinities of "last" into numbers that the metric accepts.
    ranks = np.unique(preference, return_inverse=True)[1]
    clean = np.array([kind is None for kind in kinds], dtype=bool)

    def auc(bad: np.ndarray) -> float | None:
        if not clean.any() or not bad.any():
            return None
        compared = clean | bad
        return float(roc_auc_score(clean[compared], ranks[compared]))

    by_kind = {}
    for kind in sorted({kind for kind in kinds if kind is not None}):
        bad = np.array([own == kind for own in kinds], dtype=bool)
        by_kind[kind] = {"auc": auc(bad), "n": int(bad.sum())}
    overall = {"auc": auc(~clean), "n_defect": int((~clean).sum()), "n_clean": int(clean.sum())}
    return {"overall": overall, "by_kind": by_kind}
