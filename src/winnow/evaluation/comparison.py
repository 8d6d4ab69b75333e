"""Paired tests of two models, item by item, on the samples of their evaluations.

Every metric here is a weighted sum of ratios over items, M = sum over terms of w * sum(a) / sum(b):

    acc, acc_norm, exact_match, pass@1    a = the item's value, b = 1
    bits_per_byte                         a = -l / ln 2 for the log-likelihood l in nats, b = UTF-8 bytes
    micro_f1, entity_f1, relation_f1      a = 2 TP, b = 2 TP + FP + FN
    a group of tasks                      one ratio over the items of all its tasks
    an average                            the terms of its members, each with its share of the weight

To first order (delta method, "linearised") item i contributes c_i = w (a_i - R b_i) / sum(b) to its term's ratio R, and
sum(c) = 0. For two models d_i = c_i - c'_i, and the k items of a task give the difference M - M' the variance

    v = k / (k - 1) * sum(d_i^2),    k - 1 degrees of freedom

which for a mean is the paired t test. Tasks are independent; conditions of one NLU data set (`sst2/clean`,
`sst2/opposite`) ask the same records, so that a record's contributions to all of them are summed first.

Seeds: the runs of a side differ, and so do their items. Let s^2 be the variance of the metric over the S runs of a
side, and u = k / (k - 1) * sum over items of the variance of c_i over these runs (the part of s^2 from the items). Then

    variance = max(0, v - u / S - u' / S') + s^2 / S + s'^2 / S'

with v of the contributions' means over the runs, and degrees of freedom by Welch and Satterthwaite. This is the
hierarchical bootstrap (seeds of each side, then items, which both sides share) in closed form, except that the
interaction of seed and item counts once, and three times in the bootstrap. The bootstrap's own percentiles are far too
narrow for three seeds; docs/verdicts.md has the numbers. A side with one run takes s^2 and u of the other side. If both
have one run, the seeds are unknown, and the test compares these two models only.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from string import ascii_lowercase
from typing import Any

import networkx
import numpy as np
from scipy.stats import binomtest
from scipy.stats import t as student

from winnow.errors import UserError
from winnow.store.files import SEAL, SUM, damage, has_sum

LEVEL = 0.05  # of every test
ROUNDING = 1e-12  # a difference below it is none
WIN, TIE, LOSS = "win", "tie", "loss"

Key = tuple[str, int, str]  # task, document, hash of the document
Term = tuple[float, list[Key], np.ndarray, np.ndarray]  # weight, items, a, b


@dataclass(frozen=True)
class Measurement:
    """One metric of one model, item by item.

    keys: all items, each once, sorted. population, contribution: (units,) number of the task or data set, and c summed
    over what was asked of one document. right: (items,) whether each is right, where the metric is a share of right
    answers; otherwise None.
    """

    metric: str
    value: float
    higher_is_better: bool
    keys: tuple[Key, ...]
    population: np.ndarray
    contribution: np.ndarray
    right: np.ndarray | None


@dataclass(frozen=True)
class Comparison:
    """The difference of two sides with its 95% interval. p: two-sided. test: `exact McNemar`, `paired t` or `seeds and
    items`. runs: of each side. verdict: win, tie or loss of the first side. unpaired: how far the interval would reach
    to each side had the two answered different items, by their own spread over items."""

    ours: float
    theirs: float
    difference: float
    stderr: float
    low: float
    high: float
    p: float
    test: str
    items: int
    runs: tuple[int, int]
    verdict: str
    unpaired: float


def measurements(
    result: Mapping[str, Any], averages: Mapping[str, Sequence[str]] | None = None
) -> tuple[dict[str, Measurement], dict[str, str]]:
    """({metric: its items}, {metric without a test: reason}) of a result of `evaluate_model`.

    averages: of the suite. Raises UserError for a file of samples that is missing or broken.
    """
    if not result["metrics"]:
        return {}, {}
    rows = _read_samples(result["samples"])
    measured, untested = {}, {}
    for key, entry in result["metrics"].items():
        try:
            terms = _terms(key, rows, result.get("groups") or {}, averages or {})
            measured[key] = measurement(key, terms, entry["higher_is_better"])
            if not math.isclose(measured[key].value, entry["value"], rel_tol=1e-6, abs_tol=1e-9):
                raise _Untestable(f"its items give {measured[key].value:.6g}, the evaluation says {entry['value']:.6g}")
        except _Untestable as error:
            measured.pop(key, None)
            untested[key] = str(error)
    return measured, untested


def compare_results(
    ours: Mapping[str, Any], theirs: Mapping[str, Any], averages: Mapping[str, Sequence[str]]
) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """({metric: comparison as JSON}, {metric without a test: reason}) of two results of `evaluate_model`."""
    (mine, why), (others, other_why) = measurements(ours, averages), measurements(theirs, averages)
    tested = {key: asdict(compare_items([mine[key]], [others[key]])) for key in mine if key in others}
    untested = {key: other_why.get(key, "the other model has no value") for key in mine if key not in others}
    return tested, untested | why


class _Untestable(Exception):
    """The reason why a metric has no test."""


def measurement(metric: str, terms: Sequence[Term], higher_is_better: bool) -> Measurement:
    """A metric from the items of its terms."""
    value, contributions, units, keys = 0.0, [], [], []
    for weight, items, a, b in terms:
        total = b.sum()
        ratio = a.sum() / total if total else 0.0
        value += weight * ratio
        contributions.append(weight * (a - ratio * b) / (total or 1.0))
        units += [(task.partition("/")[0], document) for task, document, _ in items]
        keys += items
    names = sorted(set(units))
    place = {name: number for number, name in enumerate(names)}
    summed = np.bincount([place[one] for one in units], np.concatenate(contributions), len(names))
    population = np.unique([name for name, _ in names], return_inverse=True)[1]
    if np.bincount(population).min() < 2:
        raise _Untestable("it has a task with a single item")
    right = None
    if len(terms) == 1 and terms[0][0] == 1:
        _, items, a, b = terms[0]
        if b[0] and (b == b[0]).all() and np.isin(a / b[0], (0, 1)).all():
            right = (a / b[0])[sorted(range(len(items)), key=items.__getitem__)] == 1
    return Measurement(metric, float(value), higher_is_better, tuple(sorted(set(keys))), population, summed, right)


def compare_items(ours: Sequence[Measurement], theirs: Sequence[Measurement]) -> Comparison:
    """The first side against the second; each is one metric of one model, or of the same method with several seeds.

    One run a side and right or wrong answers: exact McNemar test, and the interval of the paired t test, stretched to 0
    where the exact test finds no difference. Otherwise the t test of the module's docstring.

    Raises UserError where the sides have different items.
    """
    first = ours[0]
    for other in (*ours[1:], *theirs):
        _check_items(first, other)
    values = [np.array([one.value for one in side]) for side in (ours, theirs)]
    difference = float(values[0].mean() - values[1].mean())
    if abs(difference) < ROUNDING:
        difference = 0.0
    stacks = [np.array([one.contribution for one in side]) for side in (ours, theirs)]  # (runs, units)
    contribution = stacks[0].mean(0) - stacks[1].mean(0)
    k = np.bincount(first.population)
    interaction = [
        np.bincount(first.population, stack.var(0, ddof=1)) if len(stack) > 1 else None for stack in stacks
    ]  # of seed and item, in the metric of one run
    interaction = [interaction[1 - i] if one is None else one for i, one in enumerate(interaction)]
    extra = sum(one / len(side) for one, side in zip(interaction, values, strict=True) if one is not None)
    own = np.bincount(first.population, contribution**2)
    alone = [
        np.bincount(first.population, stack.mean(0) ** 2) - (0 if one is None else one / len(stack))
        for stack, one in zip(stacks, interaction, strict=True)
    ]
    seeds = _spread_over_seeds(values)
    stderr, degrees, reach = _reach(k, [np.maximum(0.0, own - extra)], seeds)
    unpaired = _reach(k, [np.maximum(0.0, one) for one in alone], seeds)[2]
    p = float(2 * student.sf(abs(difference) / stderr, degrees)) if stderr else float(difference == 0)
    low, high = difference - reach, difference + reach
    test = "paired t" if len(ours) == len(theirs) == 1 else "seeds and items"
    if test == "paired t" and first.right is not None and theirs[0].right is not None:
        test, p = "exact McNemar", mcnemar(first.right, theirs[0].right)
        if p >= LEVEL:
            low, high = min(low, 0.0), max(high, 0.0)
    return Comparison(
        ours=float(values[0].mean()),
        theirs=float(values[1].mean()),
        difference=difference,
        stderr=stderr,
        low=low,
        high=high,
        p=p,
        test=test,
        items=len(first.keys),
        runs=(len(ours), len(theirs)),
        verdict=verdict(difference, p, first.higher_is_better),
        unpaired=unpaired,
    )


def _reach(
    k: np.ndarray, squares: Sequence[np.ndarray], seeds: Sequence[tuple[float, int]]
) -> tuple[float, float, float]:
    """(standard error, Satterthwaite's degrees of freedom, half the interval's width). k: units of each population.
    squares: the sum of their squared contributions, of each side or of the difference. seeds: the spread over them."""
    parts = [*seeds]
    for one in squares:
        parts += zip((k / (k - 1) * one).tolist(), (k - 1).tolist(), strict=True)
    variance = sum(part for part, _ in parts)
    if not variance:
        return 0.0, math.inf, 0.0
    degrees = variance**2 / sum(part * part / freedom for part, freedom in parts)
    return math.sqrt(variance), degrees, float(student.isf(LEVEL / 2, degrees)) * math.sqrt(variance)


def _spread_over_seeds(values: Sequence[np.ndarray]) -> list[tuple[float, int]]:
    """(variance of the difference of means over seeds, degrees of freedom), a component for each independent estimate.
    values: the metric of each run, a side each."""
    spread = [(float(side.var(ddof=1)), len(side)) for side in values if len(side) > 1]
    if len(spread) == 1:
        ((variance, runs),) = spread
        return [(variance * sum(1 / len(side) for side in values), runs - 1)]
    return [(variance / runs, runs - 1) for variance, runs in spread]


def mcnemar(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Exact two-sided p of McNemar's test: of the items that one model alone has right, each side's number is
    Binomial(total, 1/2). It never exceeds its level; with few such items it stays well below it."""
    wins, losses = int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
    return float(binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0


def verdict(difference: float, p: float, higher_is_better: bool) -> str:
    """win, tie (p of 5% or more) or loss."""
    if p >= LEVEL or difference == 0:
        return TIE
    return WIN if (difference > 0) == higher_is_better else LOSS


def holm(p: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values: sorted, max over j <= i of (m - j + 1) p_(j), at most 1."""
    values = np.asarray(p, dtype=float)
    order = np.argsort(values, kind="stable")
    adjusted = np.minimum(1.0, np.maximum.accumulate((len(values) - np.arange(len(values))) * values[order]))
    result = np.empty(len(values))
    result[order] = adjusted
    return result.tolist()


def letters(names: Sequence[str], different: set[frozenset[str]]) -> dict[str, str]:
    """Compact letter display (Piepho 2004): two names share a letter if and only if they do not differ significantly,
    so that a letter is a largest group without a difference. names: best first; `a` is the letter of the best."""
    alike = networkx.Graph()
    alike.add_nodes_from(names)
    alike.add_edges_from(pair for pair in itertools.combinations(names, 2) if frozenset(pair) not in different)
    groups = list(networkx.find_cliques(alike))
    groups.sort(key=lambda group: sorted(map(names.index, group)))
    marks = [*ascii_lowercase, *(f"({number})" for number in range(27, len(groups) + 1))]
    return {name: "".join(mark for mark, group in zip(marks, groups, strict=False) if name in group) for name in names}


def _read_samples(path: str | None) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """{(task, filter): rows} of a `samples.jsonl`."""
    if path is None:
        raise UserError("The evaluation has no samples, which a comparison item by item needs; evaluate again.")
    rows: dict[tuple[str, str], list[dict[str, Any]]] = {}
    try:
        if (Path(path).parent / SEAL).exists() and (fault := damage(Path(path).parent)):
            raise ValueError(fault)
        if Path(path + SUM).exists() and not has_sum(Path(path)):
            raise ValueError("its checksum is another")
        with Path(path).open(encoding="utf-8") as lines:
            for line in lines:
                row = json.loads(line)
                rows.setdefault((row["task"], row["filter"]), []).append(row)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path}: the samples of an evaluation cannot be read ({error}); run the stage `evaluate` again."
        ) from None
    return rows


def _terms(
    key: str,
    rows: Mapping[tuple[str, str], Sequence[Mapping[str, Any]]],
    groups: Mapping[str, Sequence[str]],
    averages: Mapping[str, Sequence[str]],
) -> list[Term]:
    if key.startswith("average/"):
        members = averages.get(key.removeprefix("average/"))
        if members is None:
            raise _Untestable("its members are unknown")
        parts = [term for member in members for term in _terms(member, rows, groups, averages)]
        return [(weight / len(members), *rest) for weight, *rest in parts]  # type: ignore[misc]
    task, _, label = key.rpartition("/")
    metric, _, kind = label.partition(",")
    items = [
        row
        for (name, own), some in rows.items()
        if name in groups.get(task, [task]) and kind in ("", own)
        for row in some
        if metric in row["metrics"]
    ]
    if not items:
        raise _Untestable("the samples hold no value per item")
    keys = [(row["task"], row["doc_id"], f"{row['doc_hash']} {row.get('prompt_hash')}") for row in items]
    if len(set(keys)) < len(keys):
        raise _Untestable("its items were answered more than once")
    pairs = np.array([pair(metric, row["metrics"][metric]) for row in items], dtype=float)
    return [(1.0, keys, pairs[:, 0], pairs[:, 1])]


def ratio_stderr(pairs: Sequence[tuple[float, float]]) -> float | None:
    """Standard error of R = sum(a) / sum(b) over k items (a, b), for which the harness has no closed form: to first
    order sqrt(k / (k - 1) * sum((a - R b)^2)) / sum(b). None for fewer than two items or nothing to count."""
    k, total = len(pairs), sum(b for _, b in pairs)
    if k < 2 or total == 0:
        return None
    ratio = sum(a for a, _ in pairs) / total
    return math.sqrt(k / (k - 1) * sum((a - ratio * b) ** 2 for a, b in pairs)) / total


def pair(metric: str, value: Any) -> tuple[float, float]:
    """(a, b) of one item."""
    match value:
        case bool() | int() | float():
            return float(value), 1.0
        case [float() | int() as nats, int() as size] if metric == "bits_per_byte":
            return -nats / math.log(2), size
        case [int() as tp, int() as fp, int() as fn] if metric.endswith("_f1"):
            return 2 * tp, 2 * tp + fp + fn
        case [*parts] if parts and all(isinstance(one, bool) for one in parts):  # IFEval's instructions of one prompt
            return sum(parts), len(parts)
    raise _Untestable("no test is known for its values per item")


def _check_items(one: Measurement, other: Measurement) -> None:
    if one.keys == other.keys:
        return
    for task in dict.fromkeys(task for task, _, _ in (*one.keys, *other.keys)):
        own, others = ({key for key in side.keys if key[0] == task} for side in (one, other))
        if own != others:
            raise UserError(
                f"{one.metric}: the models have different items of the task {task}: {len(own)} items and "
                f"{len(others)}, {len(own & others)} of them the same; evaluate both with the same suite and template."
            )
