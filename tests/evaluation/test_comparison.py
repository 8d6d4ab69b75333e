"""Paired tests: by hand, against scipy, and by simulation."""

from __future__ import annotations

import itertools
import json
import math
import os
import re
import time
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import ttest_rel

from winnow.errors import UserError
from winnow.evaluation import comparison
from winnow.evaluation.comparison import (
    compare_items,
    compare_results,
    holm,
    letters,
    mcnemar,
    measurement,
    measurements,
    pair,
    ratio_stderr,
    verdict,
)
from winnow.store.files import write_json

TRIALS = int(os.environ.get("WINNOW_ALARM_TRIALS", "500"))  # 2,000 take four times as long
ERROR = math.sqrt(0.05 * 0.95 / TRIALS)  # of a rate of 5% over the trials


def one(a, b=None, task="t", weight=1.0):
    """A term of `a` over `b`, by default of plain values."""
    a = np.asarray(a, dtype=float)
    keys = [(task, i, f"{task} {i}") for i in range(len(a))]
    return (weight, keys, a, np.ones(len(a)) if b is None else np.asarray(b, dtype=float))


def model(*terms, high=True):
    return measurement("t/acc", list(terms), high)


def test_a_mean_is_the_paired_t_test():
    """d = 1, 2, 3, 4: mean 2.5, variance 5/3, standard error sqrt(5/3 / 4) = 0.6455 with 3 degrees of freedom."""
    ours, theirs = [3.0, 2.5, 7.0, 4.0], [2.0, 0.5, 4.0, 0.0]
    found = compare_items([model(one(ours))], [model(one(theirs))])
    assert found.difference == 2.5 and found.stderr == pytest.approx(math.sqrt(5 / 12)) and found.runs == (1, 1)
    wanted = ttest_rel(ours, theirs)
    assert found.p == pytest.approx(wanted.pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(wanted.confidence_interval(0.95)))
    assert found.verdict == "win" and found.test == "paired t"
    turned = compare_items([model(one(theirs), high=False)], [model(one(ours), high=False)])
    assert turned.difference == -2.5 and turned.verdict == "win"


@pytest.mark.parametrize(("wins", "losses", "p", "said"), [(8, 1, 20 / 512, "win"), (5, 0, 2 / 32, "tie")])
def test_right_or_wrong_is_the_exact_mcnemar_test(wins, losses, p, said):
    """Of 9 items that one model alone has right, 8 or more or 1 or fewer: 2 (1 + 9) / 2^9. All of 5: 2 / 2^5, a tie,
    where the t test on 20 items says t = 5 / sqrt(5 - 25/20) / sqrt(20/19) = 2.52, p = 0.021; the interval then holds
    0."""
    ours = [1] * wins + [0] * losses + [1] * (20 - wins - losses)
    theirs = [0] * wins + [1] * losses + [1] * (20 - wins - losses)
    found = compare_items([model(one(ours))], [model(one(theirs))])
    assert found.test == "exact McNemar" and found.p == pytest.approx(p) and found.verdict == said
    assert (found.low <= 0 <= found.high) == (said == "tie")
    classes = [2 * np.array(side) for side in (ours, theirs)]  # micro-F1 of classes: 2 TP over 2
    again = compare_items(*([model(one(side, np.full(20, 2)))] for side in classes))
    assert again.p == found.p and again.test == "exact McNemar"


def test_items_are_matched_in_whatever_order_they_come():
    """Of 20 items one side has the first ten right and the other the first four: six wins, p = 2 / 2^6, though the
    other side lists its items from the last to the first."""
    weight, keys, right, total = one([1] * 4 + [0] * 16)
    found = compare_items([model(one([1] * 10 + [0] * 10))], [model((weight, keys[::-1], right[::-1], total))])
    assert found.test == "exact McNemar" and found.p == pytest.approx(2 / 64)


def test_rounding_is_no_difference():
    """Three tasks, every item worth 0.1, 0.2 and 0.3, on the other side 0.3, 0.2 and 0.1: both averages are 0.2 but for
    the order of the sum, and over items nothing varies."""
    ours, theirs = (
        model(*(one([value] * 2, task=name, weight=1 / 3) for name, value in zip("xyz", values, strict=True)))
        for values in ((0.1, 0.2, 0.3), (0.3, 0.2, 0.1))
    )
    found = compare_items([ours], [theirs])
    assert ours.value != theirs.value and (found.difference, found.p, found.verdict) == (0, 1, "tie")


def test_bits_per_byte_by_hand():
    """Bytes 1 and 3. Bits 2 and 4: R = 6/4, c = (2 - 1.5)/4, (4 - 4.5)/4. Bits 1 and 3: R = 1, c = 0. So d = 1/8, -1/8,
    variance 2/1 * 2/64 = 1/16, t = 0.5 / 0.25 = 2; with one degree of freedom p = 1 - 2 atan(2) / pi. Unpaired, the
    variances are 2/1 * 2/64 and 0: t(0.975) of one degree of freedom, 12.706, times 1/4."""
    ours, theirs = model(one([2, 4], [1, 3]), high=False), model(one([1, 3], [1, 3]), high=False)
    found = compare_items([ours], [theirs])
    assert (found.ours, found.theirs, found.difference, found.stderr) == (1.5, 1.0, 0.5, 0.25)
    assert found.p == pytest.approx(1 - 2 * math.atan(2) / math.pi)
    assert found.unpaired == pytest.approx(12.7062 / 4, abs=1e-4)
    zero = model(one([0, 0], [1, 3]), high=False)  # a model without error: what is left is the metric's own
    assert compare_items([ours], [zero]).stderr == pytest.approx(ratio_stderr([(2, 1), (4, 3)]))


def test_micro_f1_by_hand():
    """(TP, FP, FN) = (2, 0, 0), (1, 1, 1): F = 6/8, c = (4 - 3)/8, (2 - 3)/8. (0, 2, 2), (1, 1, 1): F = 2/8, c = -1/8,
    1/8. d = 1/4, -1/4; variance 2 * 2/16 = 1/4."""
    ours, theirs = model(one([4, 2], [4, 4])), model(one([0, 2], [4, 4]))
    found = compare_items([ours], [theirs])
    assert (found.difference, found.stderr, found.test) == (0.5, 0.5, "paired t")
    nothing = model(one([0, 0], [4, 4]))
    assert compare_items([ours], [nothing]).stderr == pytest.approx(ratio_stderr([(4, 4), (2, 4)]))


def test_an_average_takes_its_tasks_as_independent():
    """Standard errors 0.6455 (4 items) and 0.5 (2 items) of two tasks: their mean has sqrt(0.4167 + 0.25) / 2; degrees
    of freedom by Welch and Satterthwaite, (5/12 + 1/4)^2 / ((5/12)^2 / 3 + (1/4)^2 / 1) = 3.692."""
    ours = model(one([3.0, 2.5, 7.0, 4.0], task="x", weight=0.5), one([4, 2], [4, 4], task="y", weight=0.5))
    theirs = model(one([2.0, 0.5, 4.0, 0.0], task="x", weight=0.5), one([0, 2], [4, 4], task="y", weight=0.5))
    found = compare_items([ours], [theirs])
    assert found.difference == pytest.approx((2.5 + 0.5) / 2)
    assert found.stderr == pytest.approx(math.sqrt(5 / 12 + 1 / 4) / 2) and found.items == 6
    degrees = (5 / 12 + 1 / 4) ** 2 / ((5 / 12) ** 2 / 3 + (1 / 4) ** 2)
    from scipy.stats import t

    assert found.p == pytest.approx(2 * t.sf(1.5 / found.stderr, degrees))


def test_items_that_several_metrics_ask_count_once():
    """An average of two metrics of one task, as IFEval's of its four."""
    ours, theirs = (model(one(a, weight=0.5), one([1, 0], weight=0.5)) for a in ([1, 1], [0, 1]))
    assert compare_items([ours], [theirs]).items == 2 == len(ours.keys)


def test_a_metric_that_one_side_alone_can_test_keeps_a_reason(monkeypatch):
    monkeypatch.setattr(comparison, "measurements", lambda result, averages: result)
    mine = model(one([1, 0]))
    found = compare_results(({"a": mine, "b": mine}, {"c": "mine"}), ({}, {"a": "theirs"}), {})
    assert found == ({}, {"a": "theirs", "b": "the other model has no value", "c": "mine"})


def test_stderr_of_a_ratio():
    """Two items of 8 bits, 1 and 3 bytes: R = 16/4 = 4, residuals 8 - 4 and 8 - 12: sqrt(2/1 * (16 + 16)) / 4 = 2.
    Micro-F1: a = 2, 2 and b = 2, 6: F = 4/8, sqrt(2/1 * (1 + 1)) / 8 = 0.25. For classes, with b = 2 everywhere, it is
    the accuracy's own: hits 1, 1, 0, 0 give sqrt(4/3 * 4 * 1) / 8 = sqrt(0.25 / 3). One item has no spread."""
    bits = [pair("bits_per_byte", (-8 * math.log(2), size)) for size in (1, 3)]
    assert ratio_stderr(bits) == pytest.approx(2.0) and ratio_stderr(bits[:1]) is None

    def f1(*counts):
        return ratio_stderr([pair("micro_f1", one) for one in counts])

    assert f1((1, 0, 0), (1, 2, 2)) == pytest.approx(0.25)
    assert f1((1, 0, 0), (1, 0, 0), (0, 1, 1), (0, 1, 1)) == pytest.approx(math.sqrt(0.25 / 3))
    assert f1((1, 0, 0)) is None and f1(*[(0, 0, 0)] * 3) is None


def test_conditions_of_one_data_set_ask_the_same_records():
    """What a record gains under one noise it loses under the other: the average does not vary over records at all. As
    independent tasks it would have an error."""
    gain = np.array([0.3, 0.1, 0.5, 0.7])

    def side(shift, names):
        terms = [one(0.5 + sign * shift, task=name, weight=0.5) for sign, name in zip((1, -1), names, strict=True)]
        return model(*terms)

    same, apart = ("sst2/clean", "sst2/opposite"), ("sst2", "lap14")
    assert compare_items([side(gain, same)], [side(0 * gain, same)]).stderr == pytest.approx(0)
    assert compare_items([side(gain, apart)], [side(0 * gain, apart)]).stderr > 0.05


def test_seeds_by_hand():
    """Three seeds of 0.1, 0.2, 0.3 on every item against three of 0: no variance over items; over seeds s^2 = 0.01, of
    the mean 0.01 / 3. t = 0.2 / sqrt(0.01 / 3) = 2 sqrt(3); with 2 degrees of freedom p = 1 - t / sqrt(2 + t^2) =
    1 - sqrt(12 / 14) = 0.074. Against one run, which takes the spread of the others: 0.01 (1 / 3 + 1), t = sqrt(3),
    p = 1 - sqrt(3 / 5). With items alone this would be certain."""
    ours, zero = [model(one([value] * 5)) for value in (0.1, 0.2, 0.3)], [model(one([0.0] * 5))]
    found = compare_items(ours, zero * 3)
    assert found.difference == pytest.approx(0.2) and found.stderr == pytest.approx(math.sqrt(0.01 / 3))
    assert found.p == pytest.approx(1 - math.sqrt(12 / 14)) and found.verdict == "tie"
    assert found.runs == (3, 3) and found.test == "seeds and items"
    assert found.unpaired == pytest.approx(found.high - found.difference)  # the seeds' part is the same without pairs
    assert compare_items(ours, zero).p == pytest.approx(1 - math.sqrt(3 / 5))
    assert compare_items(ours[:1], zero).p == 0


def test_what_seed_and_item_make_together_counts_once():
    """Of two seeds one has c = 1/4, -1/4, the other c = 3/4, -3/4; the other side has none. Both metrics are 1/2,
    so s^2 = 0. v = 2 * 2 (1/2)^2 = 1; u = 2 * (1/8 + 1/8) = 1/2, of which the mean of two has 1/4."""
    ours = [model(one([1.0, 0.0])), model(one([2.0, -1.0]))]
    zero = [model(one([0.0, 0.0]))] * 2
    assert compare_items(ours, zero).stderr == pytest.approx(math.sqrt(3 / 4))
    assert compare_items(zero, ours).stderr == pytest.approx(math.sqrt(3 / 4))
    found = compare_items(ours, zero)  # the other side has no spread, so pairing gains nothing
    assert found.unpaired == pytest.approx(found.high - found.difference)


def test_seeds_as_a_hierarchical_bootstrap_has_it():
    """The closed form against the bootstrap itself: draw S - 1 of the S seeds of each side, then k - 1 of the k items,
    which both sides share, with replacement (one less than there are makes the variance unbiased, Rao and Wu 1988).
    Here a seed moves all items nearly alike: what it does to single items the bootstrap counts more than once."""
    generator = np.random.default_rng(0)
    size = generator.integers(5, 50, 200)
    item = generator.normal(1.5, 0.4, 200)
    sides = [
        [size * (item + generator.normal(0.02, 0.02) + generator.normal(0, 0.02, 200)) for _ in range(seeds)]
        for seeds in (4, 5)
    ]
    found = compare_items(*([model(one(bits, size)) for bits in side] for side in sides))
    draws = []
    for _ in range(4000):
        at = generator.integers(0, 200, 199)
        means = []
        for side in sides:
            some = generator.integers(0, len(side), len(side) - 1)
            means.append(np.mean([side[i][at].sum() / size[at].sum() for i in some]))
        draws.append(means[0] - means[1])
    assert found.stderr == pytest.approx(np.std(draws), rel=0.08)


def of_means(generator, shift):
    difficulty = generator.normal(0, 1, 60)
    return [one(difficulty + generator.normal(own, 0.3, 60)) for own in (shift, 0)]


def of_ratios(generator, shift):
    size = generator.integers(20, 400, 80)
    difficulty = generator.normal(0.9, 0.3, 80)
    return [one(size * (difficulty + generator.normal(own, 0.05, 80)), size) for own in (shift, 0)]


def of_micro_f1(generator, shift):
    """Entities of a document: each side finds a share of them that hangs on the document, and invents some."""
    gold = generator.integers(1, 8, 120)
    easy = generator.beta(4, 2, 120)
    sides = []
    for own in (shift, 0):
        tp = generator.binomial(gold, np.clip(easy + own, 0, 1))
        fp = generator.poisson(0.8, 120)
        sides.append(one(2 * tp, 2 * tp + fp + gold - tp))
    return sides


def of_averages(generator, shift):
    first, second = of_means(generator, shift), of_ratios(generator, shift)
    return [[(0.5, *one(x[2], task="x")[1:]), (0.5, *y[1:])] for x, y in zip(first, second, strict=True)]


@pytest.mark.parametrize(
    ("draw", "shift"), [(of_means, 0.15), (of_ratios, 0.02), (of_micro_f1, 0.08), (of_averages, 0.1)]
)
def test_false_alarms_and_power(draw, shift):
    """Without a difference 5% of the tests say that there is one, within three binomial errors of the trials; of a
    difference the paired test finds far more than the unpaired one, whose error is the root of the two metrics' own
    squared errors."""

    def run(seed, shift):
        alarms = unpaired = 0
        generator = np.random.default_rng(seed)
        for _ in range(TRIALS):
            sides = [model(*(side if isinstance(side, list) else [side])) for side in draw(generator, shift)]
            found = compare_items(sides[:1], sides[1:])
            alarms += found.p < 0.05
            k = len(sides[0].contribution)
            own = sum(k / (k - 1) * side.contribution @ side.contribution for side in sides)
            unpaired += abs(found.difference) > 1.96 * math.sqrt(own)
        return alarms / TRIALS, unpaired / TRIALS

    false, unpaired = run(1, 0)
    assert abs(false - 0.05) < 3 * ERROR and unpaired < 0.05 + 3 * ERROR
    power, unpaired = run(2, shift)
    assert power > 0.5 and power > 1.4 * unpaired


def test_false_alarms_of_right_and_wrong():
    """The exact test never exceeds 5%: of n items that one side alone has right, w are ours in comb(n, w) of 2^n cases.
    With five or fewer no case is an alarm; with six 2 / 2^6."""
    rates = []
    for n in range(1, 61):
        ours = np.arange(n) < np.arange(n + 1)[:, None]
        alarms = [math.comb(n, w) for w in range(n + 1) if mcnemar(ours[w], ~ours[w]) < 0.05]
        rates.append(sum(alarms) / 2**n)
    assert max(rates) <= 0.05 and rates[:6] == [0, 0, 0, 0, 0, 2 / 64] and min(rates[5:]) > 0


PAGE = (Path(__file__).parents[2] / "docs" / "verdicts.md").read_text(encoding="utf-8")
COLUMNS = ("as many", "the backbone", "one run")  # of its table of false alarms over seeds


@pytest.mark.parametrize("over_seeds", [0.0, 0.1])
@pytest.mark.parametrize(("seeds", "against"), [*itertools.product((2, 3), COLUMNS), (5, "the backbone")])
def test_false_alarms_over_seeds(seeds, against, over_seeds):
    """The methods differ on each item, the runs of a method from each other as a whole and on each item, and nothing
    lies between the methods: the rate of alarms lies in the range that the page has, within three binomial errors of
    either end. The backbone is one model for every seed. A test over the items of one run each gives far more where
    seeds matter."""
    (row,) = re.findall(rf"^\| {[..., 'one', 'two', 'three', 'four', 'five'][seeds]} \|(.+)\|$", PAGE, re.MULTILINE)
    low, high = (float(one) / 100 for one in re.findall(r"[\d.]+", row.split("|")[COLUMNS.index(against)]))
    generator, alarms, items_only = np.random.default_rng(4), 0, 0
    for _ in range(TRIALS):
        difficulty = generator.normal(0, 1, 60)
        sides = []
        for number in (seeds, seeds if against == "as many" else 1):
            own = difficulty + generator.normal(0, 0.1, 60)
            runs = [own + generator.normal(0, over_seeds) + generator.normal(0, 0.1, 60) for _ in range(number)]
            sides.append([model(one(run)) for run in runs])
        if against == "the backbone":
            sides[1] = [model(one(own))] * seeds
        alarms += compare_items(*sides).p < 0.05
        items_only += over_seeds > 0 and compare_items(sides[0][:1], sides[1][:1]).p < 0.05
    below, above = (3 * math.sqrt(rate * (1 - rate) / TRIALS) for rate in (low, high))
    assert low - below <= alarms / TRIALS <= high + above
    assert not over_seeds or items_only / TRIALS > 0.4


def test_holm_by_hand():
    """0.005 * 4, 0.01 * 3, 0.03 * 2, and 0.04 * 1 = 0.04, which may not be below the one before: 0.06."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]


def test_letters_by_hand():
    """Of three only the ends differ: the middle one shares a letter with each."""
    assert letters(["x", "y", "z"], {frozenset("xz")}) == {"x": "a", "y": "ab", "z": "b"}
    assert letters(["x", "y"], set()) == {"x": "a", "y": "a"}


def test_letters_say_what_differs():
    """Any ten names and any set of differences: two share a letter if and only if they do not differ."""
    names = list("abcdefghij")
    for seed in range(30):
        generator = np.random.default_rng(seed)
        pairs = list(itertools.combinations(names, 2))
        different = {frozenset(pair) for pair in pairs if generator.random() < 0.4}
        found = letters(names, different)
        for x, y in pairs:
            assert bool(set(found[x]) & set(found[y])) == (frozenset((x, y)) not in different)


def test_letters_of_many_names():
    """150 settings on a line, of which those more than 1 apart differ, but for a tenth: a second, not hours."""
    generator = np.random.default_rng(0)
    place = dict(zip(map(str, range(150)), np.sort(generator.uniform(0, 10, 150))[::-1], strict=True))
    far = (pair for pair in itertools.combinations(place, 2) if place[pair[0]] - place[pair[1]] > 1)
    different = {frozenset(pair) for pair in far if generator.random() < 0.9}
    began = time.monotonic()
    found = letters(list(place), different)
    assert time.monotonic() - began < 5 and found["0"].startswith("a") and all(found.values())


def test_verdicts():
    """At 5% and above it is a tie, whatever the difference."""
    assert [verdict(0.1, p, True) for p in (0.049, 0.05)] == ["win", "tie"]
    assert verdict(-0.1, 0.01, True) == "loss" and verdict(-0.1, 0.01, False) == "win"


def test_other_items_are_refused():
    """Five items against four, all four the same."""
    with pytest.raises(UserError, match="items of the task t: 5 items and 4, 4 of them the same"):
        compare_items([model(one([1] * 5))], [model(one([1] * 4))])


def entry(value, high=True):
    return {"value": value, "stderr": None, "n": 2, "higher_is_better": high}


def test_samples_of_an_evaluation(tmp_path):
    """A task with two filters, a group of two tasks (3 of 4 right in all), bits per byte (1 bit over 2 bytes and 3 over
    2), an average, IFEval's lists (3 of 4 instructions), and three metrics without a test, each with its reason."""
    rows = [
        ("gsm", "strict", {"exact_match": 0.0}),
        ("gsm", "strict", {"exact_match": 1.0}),
        ("gsm", "loose", {"exact_match": 1.0}),
        ("gsm", "loose", {"exact_match": 1.0}),
        *[("mmlu_a", "none", {"acc": value}) for value in (1.0, 1.0, 0.0)],
        *[("mmlu_b", "none", {"acc": value}) for value in (1.0,)],
        ("held", "none", {"bits_per_byte": [-math.log(2), 2], "mcc": [1, 0]}),
        ("held", "none", {"bits_per_byte": [-3 * math.log(2), 2], "mcc": [0, 0]}),
        ("if", "none", {"loose": [True, True]}),
        ("if", "none", {"loose": [True, False]}),
    ]
    with (tmp_path / "samples.jsonl").open("w") as file:
        for number, (task, kind, metrics) in enumerate(rows):
            row = {"task": task, "doc_id": number, "filter": kind, "doc_hash": f"h{number}", "metrics": metrics}
            file.write(json.dumps(row) + "\n")
    result = {
        "samples": str(tmp_path / "samples.jsonl"),
        "groups": {"mmlu": ["mmlu_a", "mmlu_b"]},
        "metrics": {
            "gsm/exact_match,strict": entry(0.5),
            "gsm/exact_match,loose": entry(1.0),
            "held/bits_per_byte": entry(1.0, False),
            "held/mcc": entry(0.3),
            "if/loose": entry(0.75),
            "average/all": entry(0.75),
            "average/none": entry(0.75),
            "mmlu_a/acc": entry(0.9),
        },
    }
    found, untested = measurements(result, {"all": ["gsm/exact_match,strict", "held/bits_per_byte"]})
    assert {key: one.value for key, one in found.items()} == {
        "gsm/exact_match,strict": 0.5,
        "gsm/exact_match,loose": 1.0,
        "held/bits_per_byte": pytest.approx(1.0),
        "if/loose": 0.75,
        "average/all": pytest.approx(0.75),
    }
    assert set(untested) == {"held/mcc", "average/none", "mmlu_a/acc"}
    assert untested["mmlu_a/acc"] == "its items give 0.666667, the evaluation says 0.9"
    result["metrics"] = {"mmlu/acc": entry(0.75)}  # the second task has one item, so nothing is known of its spread
    assert measurements(result)[1] == {"mmlu/acc": "it has a task with a single item"}
    write_json(tmp_path / "DONE", {"samples.jsonl": ["0" * 64, 1]})
    with pytest.raises(UserError, match=r"cannot be read \(.*samples\.jsonl is damaged\); run the stage"):
        measurements(result)
    (tmp_path / "DONE").unlink()
    (tmp_path / "samples.jsonl.sha256").write_text("0  samples.jsonl\n")
    with pytest.raises(UserError, match=r"cannot be read \(its checksum is another\)"):
        measurements(result)
    (tmp_path / "samples.jsonl.sha256").unlink()
    with (tmp_path / "samples.jsonl").open("a") as file:  # the last item twice: 4 of 6 instructions
        file.write(json.dumps(row) + "\n")
    result["metrics"] = {"if/loose": entry(4 / 6)}
    assert measurements(result)[1] == {"if/loose": "its items were answered more than once"}
    for broken in ("{half", "[1]"):
        (tmp_path / "samples.jsonl").write_text(broken)
        with pytest.raises(UserError, match=r"samples\.jsonl: the samples of an evaluation cannot be read"):
            measurements(result)
