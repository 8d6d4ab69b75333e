"""Planted defects: the AUC is the Mann-Whitney statistic, by hand."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from composed import build
from vector_pool import table

from winnow.selection.detection import detection
from winnow.selection.rule import DUPLICATE
from winnow.stages.select import _detect

SCORES = [0.9, 0.5, 0.1, 0.5, 0.95, None]  # of the records a to f
KINDS = [None, None, None, "vague", "garbled", "garbled"]


def decided(scores, dropped=()):
    """What a selection decides on records with these scores: those at the places `dropped` are filtered."""
    return [
        {"score": score, "rank": None if score is None or i in dropped else i + 1, "reason": "beyond_budget"}
        for i, score in enumerate(scores)
    ]


def test_auc_by_hand() -> None:
    """Clean scores 0.9, 0.5, 0.1. The pairs that clean wins, for higher is better:
    d (0.5): beats it 0.9, ties 0.5, loses 0.1 -> 1 + 1/2 + 0 = 1.5 of 3 = 0.5;
    e (0.95): none -> 0 of 3;  f (null, ranks last): all -> 3 of 3.
    garbled = (0 + 3) / 6 = 0.5, overall = (1.5 + 0 + 3) / 9 = 0.5."""
    assert detection(decided(SCORES), KINDS, higher_is_better=True) == {
        "overall": {"auc": pytest.approx(4.5 / 9), "n_defect": 3, "n_clean": 3},
        "by_kind": {"garbled": {"auc": pytest.approx(0.5), "n": 2}, "vague": {"auc": pytest.approx(0.5), "n": 1}},
    }


def test_lower_is_better_turns_scores_around_but_not_the_nulls() -> None:
    """With low wanted, d (0.5): 0.1 beats it, 0.5 ties, 0.9 loses -> 1.5 of 3; e (0.95): all three are lower
    -> 3 of 3;  f (null) still last -> 3 of 3. Overall 7.5 / 9, garbled 6 / 6."""
    found = detection(decided(SCORES), KINDS, higher_is_better=False)
    assert found["overall"]["auc"] == pytest.approx(7.5 / 9)
    assert found["by_kind"]["garbled"]["auc"] == pytest.approx(1.0)


def test_filtered_records_rank_last_and_tie_with_nulls() -> None:
    """Dropping e (garbled) and a (clean): last are a, e, f; clean b 0.5, c 0.1. d: b ties, c and a lose ->
    0.5 of 3;  e: b and c win, a ties -> 2.5;  f: the same 2.5. Overall 5.5 / 9, garbled 5 / 6."""
    found = detection(decided(SCORES, dropped=(0, 4)), KINDS, higher_is_better=True)
    assert found["overall"]["auc"] == pytest.approx(5.5 / 9)
    assert found["by_kind"]["garbled"]["auc"] == pytest.approx(5 / 6)
    assert found["by_kind"]["vague"]["auc"] == pytest.approx(0.5 / 3)


def test_a_constant_score_is_chance() -> None:
    """All pairs tie: 1/2 each."""
    assert detection(decided([1.0] * 4), [None, None, "x", "y"], True)["overall"]["auc"] == 0.5


@pytest.mark.parametrize(("kind", "counts"), [(None, (0, 2)), ("vague", (2, 0))])
def test_one_class_alone_has_no_auc(kind: str | None, counts: tuple[int, int]) -> None:
    """There is no pair to compare, so the AUC is null, not a number."""
    found = detection(decided([1.0, 2.0]), [kind, kind], True)
    assert found["overall"] == {"auc": None, "n_defect": counts[0], "n_clean": counts[1]}


def test_what_is_not_a_score() -> None:
    """NaN ranks last, as no score does; a record without a label must not pass as clean."""
    scores = table([float("nan"), -1.0], ["non_finite_score", None])
    decisions = build("selection/top", count=1).select(scores, True).decisions
    assert detection(decisions, ["kind", None], True)["overall"]["auc"] == 1.0
    with pytest.raises(ValueError, match="shorter"):
        detection(decided([1.0]), [], True)


def test_a_later_copy_does_not_count(tmp_path) -> None:
    """The record a twice, and b, which is defective and ranks last: the AUC is 1, though the copy of a has no rank."""
    records = [SimpleNamespace(id=one, raw={"defect": kind}) for one, kind in (("a", None), ("a", "copy"), ("b", "x"))]
    decisions = [
        {"score": 2.0, "rank": 1, "reason": "selected"},
        {"score": 2.0, "rank": None, "reason": DUPLICATE},
        {"score": 1.0, "rank": 2, "reason": "beyond"},
    ]
    assert _detect(tmp_path, SimpleNamespace(records=records), True, decisions) == 1
    assert json.loads((tmp_path / "detection.json").read_text())["overall"] == {"auc": 1, "n_defect": 1, "n_clean": 1}


def test_an_empty_cell_is_no_defect() -> None:
    """As a pool of CSV labels its clean records."""
    found = detection(decided(SCORES), [kind or "" for kind in KINDS], higher_is_better=True)
    assert found == detection(decided(SCORES), KINDS, higher_is_better=True)
