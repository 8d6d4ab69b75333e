"""Selection: the budget, the filters, and a reason for every record."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from composed import build
from vector_pool import table

from winnow import draws
from winnow.errors import UserError
from winnow.scoring.filters import Range

top = partial(build, "selection/top")


def test_share_counts_valid_records():
    """10 records, 2 null and 1 above the filter: 7 are valid, int(7 * 0.3) = 2 are kept: the two best."""
    scores = [0.1, 0.9, None, 0.5, 1.2, 0.8, None, 0.3, 0.2, 0.7]
    flags = ["x" if score is None else None for score in scores]
    got = top(ratio=0.3, budget="valid").select(
        table(scores, flags), True, [Range("score", max=1.0, reason="ifd_above_1")]
    )
    assert got.n_valid == 7 and got.budget == 2
    assert got.chosen == [1, 5] and got.cut == 0.8
    reasons = {d["row"]: d["reason"] for d in got.decisions}
    assert (
        reasons[4] == "ifd_above_1" and reasons[2] == "x" and reasons[1] == "selected" and reasons[0] == "beyond_budget"
    )
    assert {d["row"]: d["rank"] for d in got.decisions}[1] == 1


@pytest.mark.parametrize(("ratio", "taken"), [(0.29, 29), (0.57, 57), (0.299, 29), (1.0, 100)])
def test_a_share_is_the_decimal_number_that_is_written(ratio, taken):
    """0.29 of 100 is 29, where a product of floats is 28.999999999999996."""
    assert len(top(ratio=ratio).select(table([1.0] * 100), True).chosen) == taken


@pytest.mark.parametrize("valid", [250, 220, 30])
def test_share_of_the_pool_is_the_same_for_every_method(valid):
    """0.12 of 250 records is 30, whatever a method's filters leave: all 250, 220 (of which 0.12 would be 26), or 30."""
    flags = ["ifd_above_1"] * (250 - valid) + [None] * valid
    scores = [None if flag else 1.0 for flag in flags]
    got = top(ratio=0.12).select(table(scores, flags), True)
    assert (got.n_valid, got.budget, len(got.chosen), got.shortfall()) == (valid, 30, 30, None)


def test_a_share_that_is_more_than_the_valid_records_takes_them_and_says_so():
    """0.5 of 10 records is 5; 3 are valid."""
    got = top(ratio=0.5).select(table([1.0] * 3 + [None] * 7, [None] * 3 + ["empty_answer"] * 7), True)
    assert got.chosen == [0, 1, 2] and got.budget == 5
    assert got.shortfall().startswith("Selection: only 3 of the 5 records asked for, because no more than 3 of 10")


def test_share_of_the_answer_tokens():
    """Answers of 4, 1, 3, 2 and 10 tokens, 20 in all; 0.4 of them is 8. Best first that is 4, 5, 8: three records. With
    count=6 the sums 5 and 8 are 1 and 2 away: two records. A filter takes nothing off the 20."""
    values, lengths = table([5.0, 4.0, 3.0, 2.0, None], [None] * 4 + ["x"]), np.array([4.0, 1, 3, 2, 10])
    rule = top(ratio=0.4, budget="answer_tokens")
    assert list(rule.passes) == ["count"]
    got = rule.select(values, True, lengths=lengths)
    assert got.chosen == [0, 1, 2] and got.budget == 3 and got.manifest()["budget_in"] == "answer_tokens"
    nearest = top(count=6, budget="answer_tokens").select(values, True, lengths=lengths)
    assert nearest.chosen == [0, 1] and nearest.shortfall() is None
    with pytest.raises(UserError, match="selection.count=11, but only 10 of 20 answer tokens are valid"):
        top(count=11, budget="answer_tokens").select(values, True, lengths=lengths)


def test_answer_tokens_that_a_rule_cannot_give_are_said():
    """Eight copies of 10 tokens in one class: of the 40 asked for, the limit leaves 10."""
    values, vectors = table([1.0] * 8), np.tile(np.array([[1, 0]], np.float32), (8, 1))
    rule = build("selection/consistency", ratio=0.5, budget="answer_tokens", centre=False, instructions=None)
    got = rule.select(values, True, vectors=vectors, lengths=np.full(8, 10.0))
    assert got.chosen == [0] and got.manifest()["tokens"] == {"wanted": 40, "reached": 10}
    assert got.shortfall().startswith("Selection: only 10 of the 40 answer tokens asked for, because the rule diverse")
    full = top(ratio=0.5, budget="answer_tokens").select(values, True, lengths=np.full(8, 10.0))
    assert len(full.chosen) == 4 and full.shortfall() is None


def test_filter_keeps_the_right_side():
    """A known trap: keeping IFD >= 1 in place of <= 1. Exactly 1 stays unless the bounds are open."""
    values = table([0.5, 1.0, 1.5])
    assert Range("score", max=1.0).keeps(values).tolist() == [True, True, False]
    assert Range("score", max=1.0, open=True).keeps(values).tolist() == [True, False, False]
    assert Range("score", min=0.5, open=True).keeps(values).tolist() == [False, True, True]


def test_ends():
    """top keeps the wanted end, whatever its direction; bottom the other."""
    values = table([1.0, 2.0, 3.0, 4.0])
    assert top(count=1).select(values, True).chosen == [3]
    assert top(count=1).select(values, False).chosen == [0]
    assert top(count=1, order="bottom").select(values, True).chosen == [0]


def test_count_takes_precedence():
    """`selection.count=2` beside the default ratio does what it says."""
    assert top(ratio=0.9, count=2).select(table([1.0, 2.0, 3.0]), True).chosen == [1, 2]


def test_ties_go_by_file_order():
    assert top(count=2).select(table([1.0] * 4), True).chosen == [0, 1]


def test_all_of_it():
    """`full` is not asked for a share, and a record that cannot be selected is not missed."""
    assert top(ratio=0.1).select(table([1.0] * 5), True, takes_all=True).chosen == [0, 1, 2, 3, 4]
    got = top(ratio=0.1).select(table([1.0, None], [None, "empty_answer"]), True, takes_all=True)
    assert (got.chosen, got.budget, got.shortfall()) == ([0], 1, None)


def test_a_random_order_is_not_that_of_the_method_random():
    """The same seed and records: 20 of 200 share 2 on average with either end of another draw, and not all 20."""
    values = table([draws.uniform(0, f"r{i:03d}") for i in range(200)])
    drawn, high, low = (
        set(top(count=20, order=order, seed=0).select(values, True).chosen) for order in ("random", "top", "bottom")
    )
    assert len(drawn & high) < 9 and len(drawn & low) < 9


def test_smaller_budget_lies_inside_larger():
    """The top 5% of 200 lies inside the top 10%."""
    scores = np.random.default_rng(0).normal(size=200).tolist()
    small, large = (set(top(ratio=r).select(table(scores), True).chosen) for r in (0.05, 0.1))
    assert len(small) == 10 and len(large) == 20 and small < large


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"ratio": 0}, "ratio=0 must be above 0"),
        ({"ratio": 1.5}, "ratio=1.5 must be above 0 and at most 1"),
        ({"ratio": -0.1}, "ratio=-0.1"),
        ({"count": 0}, "count=0"),
        ({"count": 2.5}, "count=2.5 is not a whole number"),
        ({"ratio": None}, "selection.ratio or selection.count; both are null"),
        ({"ratio": 0.5, "order": "up"}, "order=up"),
        ({"budget": "tokens"}, "budget=tokens is unknown; choose one of records, valid, answer_tokens"),
    ],
)
def test_bad_settings(options, told):
    with pytest.raises(UserError, match=told):
        top(**options)


def test_budget_that_rounds_to_nothing_or_asks_too_much():
    with pytest.raises(UserError, match="no record at all"):
        top(ratio=0.1).select(table([1.0] * 5), True)
    assert top(count=5).select(table([1.0] * 5), True).chosen == [0, 1, 2, 3, 4]
    with pytest.raises(UserError, match="only 5 of 5"):
        top(count=6).select(table([1.0] * 5), True)


def test_filter_on_an_unknown_column():
    with pytest.raises(UserError, match="no column words"):
        top(ratio=0.5, filters=[Range("words", min=1)]).select(table([1.0] * 5), True)


def test_a_record_is_selected_once():
    """Records 0, 2 and 3 are the same: of the four best, two are copies. Dropped, 3 of 5 are valid and the first copy
    stands for all; kept, all 5 are valid."""
    values = table([3.0, 1.0, 3.0, 3.0, 2.0], id=["a", "b", "a", "a", "c"])
    got = top(count=2).select(values, True)
    assert (got.chosen, got.n_valid) == ([0, 4], 3)
    assert [one["reason"] for one in got.decisions] == [
        "selected",
        "beyond_budget",
        "duplicate",
        "duplicate",
        "selected",
    ]
    assert got.manifest()["reasons"] == {"duplicate": 2, "beyond_budget": 1}
    assert top(count=2).select(values, True, takes_all=True).chosen == [0, 1, 4]
    assert top(count=2).select(values, True, keep_duplicates=True).chosen == [0, 2]
    with pytest.raises(UserError, match=r"only 3 of 5 records are valid \(2 duplicate\)"):
        top(count=4).select(values, True)


def test_a_ratio_that_filters_shrink_is_said():
    """Scores 0 to 19, those of 8 and more filtered: half of the 8 valid ones is 4, and of the pool would be 10. Where a
    filter takes one record of 20, 5%, or the budget is a number or a share of the pool, there is nothing to say."""
    values = table([float(i) for i in range(20)])
    got = top(ratio=0.5, budget="valid", filters=[Range("score", max=7, reason="too_high")]).select(values, True)
    assert got.filtered().startswith(
        "Selection: selection.ratio=0.5 counts the 8 valid records of 20, so that it selects 4 and not 10: too_high "
        "took 12."
    )
    assert top(ratio=0.5, budget="valid", filters=[Range("score", max=18)]).select(values, True).filtered() is None
    assert top(count=4, filters=[Range("score", max=7)]).select(values, True).filtered() is None
    assert top(ratio=0.2, filters=[Range("score", max=7)]).select(values, True).filtered() is None
