"""How well a ranking finds the planted defects of a labelled pool: area under the ROC curve, over all defects
and by kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score

from winnow.selection.rule import DUPLICATE


def detection(
    decisions: Sequence[Mapping[str, Any]], kinds: Sequence[str | None], higher_is_better: bool
) -> dict[str, Any]:
    """AUC = P(clean ranks above defective) + 1/2 P(tie), over all pairs of a clean and a defective record: 1
    when every defective record ranks below every clean one, 0.5 by chance (the Mann-Whitney statistic).

    decisions: see `Selection`. kinds: of the planted defect of each record, None or "" (an empty cell) for a clean
    one. Records without a rank could not be selected, so they rank last, tied with one another; later copies of a
    record do not count.

    Returns `{"overall": {"auc", "n_defect", "n_clean"}, "by_kind": {kind: {"auc", "n"}}}`; each kind is
    compared with all clean records. An `auc` is None when there is no clean or no defective record to
    compare."""
    counted = [(one, kind or None) for one, kind in zip(decisions, kinds, strict=True) if one["reason"] != DUPLICATE]
    kinds = [kind for _, kind in counted]
    score = np.array([one["score"] for one, _ in counted], dtype=float)
    out = np.array([one["rank"] is None for one, _ in counted], dtype=bool)
    preference = np.where(out, -np.inf, score if higher_is_better else -score)
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
