"""What a run says on the screen."""

from __future__ import annotations

from winnow.stages.score import unscored


def test_records_without_a_score_are_counted_with_their_reasons():
    """Six reasons, one of them of two records, and one record with a score: five reasons are shown."""
    flags = ["empty_answer", "a", "b", "c", None, "empty_answer", "d", "e"]
    expected = "7 of 8 records have no score: empty_answer (2); a (1); b (1); c (1); d (1); and 1 more."
    assert unscored(flags) == expected
    assert unscored([None, "a"]) == "1 of 2 records have no score: a (1)."
    assert unscored([None, None]) is None
