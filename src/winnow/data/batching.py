"""Batches of about equal work: neighbours in length share a batch, under a budget of tokens."""

from __future__ import annotations

from collections.abc import Sequence


def token_budget_batches(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Indices grouped so that (records in the batch) x (longest of them) <= budget, longest first.

    lengths: tokens per record. budget: tokens per batch, padding counted; a record longer than the budget gets a
    batch of its own. Longest first, so that a shortage of memory shows in the first batch and not in the last.
    """
    if budget < 1:
        raise ValueError(f"budget must be at least 1 token, found {budget}")
    batches: list[list[int]] = []
    width = 0
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if batches and (len(batches[-1]) + 1) * width <= budget:
            batches[-1].append(index)
        else:
            batches.append([index])
            width = lengths[index]
    return batches


def pad_right(rows: Sequence[Sequence[int]], fill: int) -> list[list[int]]:
    """Rows of one length. Causal models need no mask for padding on the right: nothing looks to the right."""
    width = max(len(row) for row in rows)
    return [list(row) + [fill] * (width - len(row)) for row in rows]
