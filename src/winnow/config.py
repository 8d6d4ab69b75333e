"""Targets that configuration files need and no other module owns."""

from __future__ import annotations


def nothing() -> None:
    """The target of every `none` choice: the group builds nothing."""
    return
