"""Batches of about equal work: neighbours in length share a batch, under a budget of tokens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from typing import TypeVar

Number = TypeVar("Number", int, float)


def token_budget_batches(
    lengths: Sequence[int], budget: int, groups: Sequence[Hashable] | None = None
) -> list[list[int]]:
    """Indices grouped so that (records in the batch) x (longest of them) <= budget, longest first.

    lengths: tokens per record. budget: tokens per batch, padding counted; a record longer than the budget gets a
    batch of its own. groups: records of different groups never share a batch. Longest first, so that a shortage of
    memory shows in the first batch and not in the last.
    """
    if budget < 1:
        raise ValueError(f"budget must be at least 1 token, found {budget}")
    batches: list[list[int]] = []
    open_batch: dict[Hashable, list[int]] = {}
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        group = None if groups is None else groups[index]
        batch = open_batch.get(group)
        if batch and (len(batch) + 1) * lengths[batch[0]] <= budget:
            batch.append(index)
        else:
            open_batch[group] = [index]
            batches.append(open_batch[group])
    return batches


def shared_prefixes(rows: Sequence[Sequence[int]], prefix_lengths: Sequence[int], at_least: int = 8) -> list[int]:
    """How many first tokens of each row are worth running once for many rows.

    prefix_lengths: tokens before the record's own text begins. A prefix counts if it has `at_least` tokens and
    `at_least` rows begin with it (ours); for every other row the answer is 0.
    """
    prefixes = [tuple(row[:length]) for row, length in zip(rows, prefix_lengths, strict=True)]
    frequency = Counter(prefixes)
    return [len(p) if len(p) >= at_least and frequency[p] >= at_least else 0 for p in prefixes]


def pad_right(rows: Sequence[Sequence[Number]], fill: Number) -> list[list[Number]]:
    """Rows of one length. Causal models need no mask for padding on the right: nothing looks to the right."""
    width = max(len(row) for row in rows)
    return [list(row) + [fill] * (width - len(row)) for row in rows]
