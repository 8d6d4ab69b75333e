"""False alarms and power of the paired tests, beside the tests that they replace. Prints the table of docs/verdicts.md.

    python experiments/benchmarks/verdict_power.py

Two models answer the same items; what an item is like (its difficulty, its length) they share, the rest is their own.
Trials are drawn from a seed. Unpaired: |difference| > 1.96 times the root of the two metrics' squared errors.
Percentiles: the plain hierarchical bootstrap, seeds of each side, then items, 400 draws.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from winnow.evaluation.comparison import Measurement, compare_items, measurement

TRIALS = 10_000  # a fifth of it over seeds
DRAWS = 400
Sides = tuple[list[Measurement], list[Measurement]]


def model(a: np.ndarray, b: np.ndarray | None = None) -> Measurement:
    """One model with the metric sum(a) / sum(b)."""
    keys = [("t", i, str(i)) for i in range(len(a))]
    return measurement("t/m", [(1.0, keys, a.astype(float), np.ones(len(a)) if b is None else b)], True)


def bits_per_byte(generator: np.random.Generator, shift: float) -> Sides:
    """400 answers of 20 to 400 bytes, 0.9 bits per byte with a spread of 0.3 that both models share, and of 0.05 of
    each model's own."""
    size = generator.integers(20, 400, 400).astype(float)
    shared = generator.normal(0.9, 0.3, 400)
    ours, theirs = (model(size * (shared + generator.normal(own, 0.05, 400)), size) for own in (shift, 0))
    return [ours], [theirs]


def accuracy(generator: np.random.Generator, shift: float) -> Sides:
    """400 questions; a tenth is answered as a coin falls, the others are right or wrong for both."""
    shared, open_ = generator.random(400) < 0.5, generator.random(400) < 0.1
    ours, theirs = (
        model(np.where(open_, generator.random(400) < 0.5 + own, shared)) for own in (10 * shift, 0)
    )  # the shift is that of the accuracy over all questions
    return [ours], [theirs]


def micro_f1(generator: np.random.Generator, shift: float) -> Sides:
    """200 documents of 1 to 7 entities, of which a share that hangs on the document is found, 0.8 are invented."""
    gold, easy = generator.integers(1, 8, 200), generator.beta(4, 2, 200)
    sides = []
    for own in (shift, 0):
        tp = generator.binomial(gold, np.clip(easy + own, 0, 1))
        sides.append([model(2 * tp, (2 * tp + generator.poisson(0.8, 200) + gold - tp).astype(float))])
    return sides[0], sides[1]


def three_seeds(generator: np.random.Generator, shift: float) -> Sides:
    """400 answers as in bits_per_byte, three seeds of each side: a seed moves the whole metric four times as far as its
    items do, which is what two random subsets of Alpaca showed (0.0011 with a paired item error of 0.0002)."""
    size = generator.integers(20, 400, 400).astype(float)
    shared = generator.normal(0.9, 0.3, 400)
    sides = []
    for own in (shift, 0):
        method = shared + generator.normal(own, 0.01, 400)
        runs = [method + generator.normal(0, 0.005) + generator.normal(0, 0.02, 400) for _ in range(3)]
        sides.append([model(size * run, size) for run in runs])
    return sides[0], sides[1]


def unpaired(sides: Sides) -> bool:
    """Whether the first runs of the sides differ, taken as independent evaluations."""
    one, other = sides[0][0], sides[1][0]
    k = len(one.contribution)
    error = math.sqrt(sum(k / (k - 1) * side.contribution @ side.contribution for side in (one, other)))
    return abs(one.value - other.value) > 1.96 * error


def percentiles(sides: Sides, generator: np.random.Generator) -> bool:
    """Whether 0 lies outside of the plain hierarchical bootstrap's 95%, on the linearised items."""
    k = len(sides[0][0].contribution)
    items = generator.multinomial(k, np.full(k, 1 / k), DRAWS)  # (draws, items): how often each is drawn
    means = []
    for side in sides:
        drawn = np.stack([one.value + items @ one.contribution for one in side], 1)  # (draws, seeds)
        picks = generator.integers(0, len(side), (DRAWS, len(side)))
        means.append(np.take_along_axis(drawn, picks, 1).mean(1))
    low, high = np.percentile(means[0] - means[1], [2.5, 97.5])
    return not low <= 0 <= high


def items_alone(sides: Sides) -> bool:
    """Whether the paired test over the items of the first runs sees a difference."""
    return compare_items(sides[0][:1], sides[1][:1]).p < 0.05


def rates(draw: Callable[[np.random.Generator, float], Sides], shift: float, seed: int) -> list[str]:
    """Shares of the trials in which the tests see a difference: paired, unpaired, and over seeds also a test of items
    alone and the bootstrap's percentiles."""
    generator, over_seeds = np.random.default_rng(seed), draw is three_seeds
    trials, seen = TRIALS // 5 if over_seeds else TRIALS, np.zeros(4)
    for _ in range(trials):
        sides = draw(generator, shift)
        seen[:2] += compare_items(*sides).p < 0.05, unpaired(sides)
        if over_seeds:
            seen[2:] += items_alone(sides), percentiles(sides, generator)
    told = [f"{100 * rate:.1f}%" for rate in seen / trials]
    return told if over_seeds else [*told[:2], "", ""]


def main() -> None:
    """The table as Markdown."""
    print("| statistic | difference | paired | unpaired | items alone | bootstrap percentiles |")
    print("| --- | --- | ---: | ---: | ---: | ---: |")
    cases = ((bits_per_byte, 0.01), (accuracy, 0.03), (micro_f1, 0.05), (three_seeds, 0.015))
    for number, (draw, shift) in enumerate(cases):
        for one in (0, shift):
            name = draw.__name__.replace("_", " ")
            print(f"| {name} | {one:g} | {' | '.join(rates(draw, one, number))} |", flush=True)


if __name__ == "__main__":
    main()
