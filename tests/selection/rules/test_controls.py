"""The controls: random subsets with a rule's answer lengths, or with its answer tokens."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from composed import build, config
from hydra.utils import instantiate
from vector_pool import clustered, table

from winnow.errors import UserError
from winnow.tracking.names import AROUND, identity

top = partial(build, "selection/top")
length_matched = partial(build, "selection/length_matched")
equal_tokens = partial(build, "selection/equal_tokens")


def test_length_matched_by_hand():
    """Lengths 1 2 3 4 and 11 12 13 14, two parts with the edge at the median 7.5. The best three have lengths 1, 11 and
    12: one other of the lower part and two of the upper one, which has exactly two others, 13 and 14."""
    scores, lengths = [9.0, 1, 1, 1, 8, 7, 1, 1], np.array([1.0, 2, 3, 4, 11, 12, 13, 14])
    found = length_matched(around=top(count=3), bins=2, count=3).select(table(scores), True, lengths=lengths)
    assert found.chosen[1:] == [6, 7] and found.chosen[0] in (1, 2, 3) and found.shortfall() is None
    rule = found.manifest()["rule"]
    assert rule["lengths"] == {"edges": [7.5], "wanted": [1, 2], "taken": [1, 2]}
    assert (
        rule["name"] == "length_matched"
        and rule["around"]["class"] == "winnow.selection.budget.Budget"
        and rule["bins"] == 2
    )
    reasons = {decision["row"]: decision["reason"] for decision in found.decisions}
    assert [reasons[row] for row in (0, 4, 5)] == ["taken_by_the_rule"] * 3 and found.cut is None


def test_a_length_on_an_edge_belongs_to_the_upper_part():
    """Lengths 1 to 5, two parts with the edge at 3: the rule's record of 3 is of the upper part, as are 4 and 5."""
    found = length_matched(around=top(count=1), bins=2, count=1).select(
        table([1.0, 1, 9, 1, 1]), True, lengths=np.arange(1.0, 6)
    )
    assert found.manifest()["rule"]["lengths"] == {"edges": [3.0], "wanted": [0, 1], "taken": [0, 1]}
    assert found.chosen[0] in (3, 4)


def test_length_matched_takes_the_nearest_where_it_lacks():
    """Three parts of three: the longest three are all of the upper part, so that the three of the middle one stand for
    them; with two parts (edge 5: lengths 1 to 4 and 5 to 9) two of the upper part are left, and one of the lower."""
    scores, lengths = [1.0] * 6 + [7.0, 8, 9], np.arange(1.0, 10)
    found = length_matched(around=top(count=3), bins=3, count=3).select(table(scores), True, lengths=lengths)
    assert found.chosen == [3, 4, 5]
    assert found.shortfall().startswith("Selection: 3 of the 3 records are of another length")
    assert found.manifest()["rule"]["lengths"]["taken"] == [0, 3, 0]
    two = length_matched(around=top(count=3), bins=2, count=3).select(table(scores), True, lengths=lengths)
    assert two.chosen[1:] == [4, 5] and two.chosen[0] < 4
    with pytest.raises(UserError, match="other records than the 5 that the rule budget takes, and only 4 are left"):
        length_matched(around=top(count=5), count=5).select(table(scores), True, lengths=lengths)


@pytest.mark.parametrize(
    "around", [top(count=30), top(count=30, order="bottom"), build("selection/consistency", count=30, classes=5)]
)
def test_length_matched_has_the_same_histogram_of_other_records(around):
    """Whatever the rule: none of its records, and as many of each part, but where the score follows the length and the
    rule empties a part; the mean length is nearer to the rule's than to the pool's."""
    generator = np.random.default_rng(0)
    lengths = np.round(np.exp(generator.normal(4, 1, 300)))
    scores = (np.log(lengths) + generator.normal(0, 2, 300)).tolist()
    _, vectors = clustered(300, 5)
    rule = length_matched(around=around, count=30, seed=1)
    found = rule.select(table(scores), True, vectors=vectors, lengths=lengths)
    own = around.select(table(scores), True, vectors=vectors).chosen
    assert len(found.chosen) == len(own) == 30 and not set(found.chosen) & set(own)
    told = found.manifest()["rule"]["lengths"]
    moved = sum(max(0, want - have) for want, have in zip(told["wanted"], told["taken"], strict=True))
    assert sum(told["taken"]) == 30 and moved <= (0 if around.name == "diverse" else 14)
    assert bool(moved) == (found.shortfall() is not None)
    gap = abs(lengths[found.chosen].mean() - lengths[own].mean())
    assert gap < 0.5 * abs(lengths.mean() - lengths[own].mean()) + 5
    other = length_matched(around=around, count=30, seed=2).select(
        table(scores), True, vectors=vectors, lengths=lengths
    )
    assert other.chosen != found.chosen


def test_equal_tokens_by_hand():
    """The best two have 30 + 25 = 55 tokens. All others have 10: whatever the order, the sum comes within 5 of 55, or
    within 15 where one of the long two is drawn; the walk stops where it is nearest."""
    lengths = np.array([30.0, 25] + [10.0] * 10)
    found = equal_tokens(around=top(count=2), count=2).select(table([9.0, 8] + [1.0] * 10), True, lengths=lengths)
    told = found.manifest()["rule"]["tokens"]
    assert told == {"wanted": 55.0, "taken": lengths[found.chosen].sum()} and abs(told["taken"] - 55) <= 15
    assert found.shortfall() is None
    same = equal_tokens(around=top(count=2), count=2).select(table([9.0] * 12), True, lengths=np.full(12, 10.0))
    assert len(same.chosen) == 2  # 20 tokens are two records


def test_draws_hang_on_the_record_alone():
    """The same records in another order of the file: the same subset."""
    lengths, order = np.arange(10.0, 40.0), np.random.default_rng(0).permutation(30)
    plain, scores = table(np.arange(30.0).tolist()), np.arange(30.0)
    turned = plain.take(order)
    assert turned["score"].to_pylist() == scores[order].tolist()
    for rule in (equal_tokens(around=top(count=5), count=5), length_matched(around=top(count=5), bins=3, count=5)):
        first = rule.select(plain, True, lengths=lengths).chosen
        second = rule.select(turned, True, lengths=lengths[order]).chosen
        assert sorted(order[second]) == first


def test_a_control_of_a_random_order_draws_an_order_of_its_own():
    """20 of 200 records: two independent draws share 2 on average. The rule's are those that it takes alone."""
    scores, lengths = table([1.0] * 200), np.full(200, 10.0)
    rule = top(count=20, order="random", seed=3)
    own = rule.select(scores, True).chosen
    assert (
        len(set(own) & set(equal_tokens(around=rule, count=20, seed=3).select(scores, True, lengths=lengths).chosen))
        < 9
    )
    other = length_matched(around=rule, count=20, seed=4).select(scores, True, lengths=lengths)
    assert sorted(i for i, one in enumerate(other.decisions) if one["reason"] == "taken_by_the_rule") == own


@pytest.mark.parametrize("n", [9, 10])
def test_controls_of_a_budget_in_answer_tokens(n):
    """A third of the answers' tokens is what the rule takes alone: the control matches that subset."""
    scores, lengths = table(np.arange(float(n)).tolist()), np.arange(1.0, n + 1)
    rule = top(ratio=0.33, budget="answer_tokens")
    own = rule.select(scores, True, lengths=lengths).chosen
    found = length_matched(around=rule, bins=1, ratio=0.33, budget="answer_tokens").select(
        scores, True, lengths=lengths
    )
    assert len(found.chosen) == len(own) and not set(found.chosen) & set(own)
    told = (
        equal_tokens(around=rule, ratio=0.33, budget="answer_tokens").select(scores, True, lengths=lengths).manifest()
    )
    assert told["rule"]["tokens"]["wanted"] == lengths[own].sum() and told["tokens"]["wanted"] == int(
        lengths.sum() * 0.33
    )


@pytest.mark.parametrize("rule", ["length_matched", "equal_tokens"])
def test_as_a_user_writes_it(rule):
    """The budget is that of the control, and reaches the rule; any rule can be controlled; its passes are shared, and
    the answers' lengths are counted without a backbone."""
    built = instantiate(config(f"selection={rule}", "selection.ratio=0.3").selection)
    assert (
        built.around.ratio == built.ratio == 0.3 and built.around.name == "budget" and list(built.passes) == ["count"]
    )
    words = (f"selection={rule}", "selection@selection.around=consistency", "selection.count=7")
    other = instantiate(config(*words).selection)
    assert other.around.name == "diverse" and other.around.count == 7 and other.needs_vectors
    assert list(other.passes) == ["embedding", "instructions", "count"]


def test_names_say_what_is_controlled():
    """In a table and in a dashboard the control of ifd is not ifd."""
    choices = {"backbone": "x", "data": "alpaca", "method": "ifd", "selection": "length_matched"}
    assert identity({}, choices, "ifd")["method"] == "length_matched(ifd)"
    other = choices | {"method": "consistency", AROUND: "consistency"}
    assert identity({}, other, "consistency")["method"] == "length_matched(noise_consistency+diversity)"
    assert identity({}, other, "verdict")["method"] == "length_matched(consistency)"  # no paper's table


def test_all_records_leave_nothing_to_draw():
    with pytest.raises(UserError, match="this method takes all records"):
        equal_tokens(around=top(ratio=0.5), ratio=0.5).select(
            table([1.0] * 4), True, takes_all=True, lengths=np.ones(4)
        )
    with pytest.raises(UserError, match=r"selection\.bins=0"):
        length_matched(around=top(ratio=0.5), bins=0, ratio=0.5)
