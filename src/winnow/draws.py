"""Seeded draws: every random number is a function of a key, such as (seed, record id, draw), and of nothing else.

No draw depends on batches, order, processes, the device or a generator that someone else moved on.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def digest(*parts: str | int) -> bytes:
    """32 bytes: SHA-256 of the parts as text, joined by colons."""
    return hashlib.sha256(":".join(map(str, parts)).encode()).digest()


def key(*parts: str | int) -> int:
    """A 64-bit number, 0 .. 2^64 - 1: the first 8 bytes of the digest. A seed for a generator of any library."""
    return int.from_bytes(digest(*parts)[:8], "big")


def uniform(*parts: str | int) -> float:
    """A number in [0, 1): key / 2^64."""
    return key(*parts) / 2**64


def generator(*parts: str | int) -> torch.Generator:
    """A torch generator on the CPU, whatever the device: a GPU would draw other numbers."""
    import torch

    return torch.Generator("cpu").manual_seed(key(*parts))
