"""What differs between two descriptions of settings: what a file was made with, and what the run asks for."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

SHOWN = 3  # differences in a sentence

Differences = dict[str, tuple[Any, Any]]


def flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, leaf) pairs of nested mappings, in order."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> Differences:
    """Dotted key -> (value before, value now), where the two differ; an absent value counts as None."""
    old, new = (dict(flatten(json.loads(json.dumps(tree)))) for tree in (before, now))
    return {key: (old.get(key), new.get(key)) for key in {**new, **old} if old.get(key) != new.get(key)}


def difference_summary(changes: Differences) -> str:
    """The first differences, for a sentence."""
    phrases = [f"{key}: {_short(before)} there, {_short(now)} here" for key, (before, now) in changes.items()]
    more = len(phrases) - SHOWN
    return "; ".join(phrases[:SHOWN]) + (f"; and {more} more" if more > 0 else "")


def _short(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
