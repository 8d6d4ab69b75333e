"""Random shuffling: m words are cut from the front or the rear and put back as one block further inside."""

from __future__ import annotations

import random
from collections.abc import Iterator

from winnow.data.schemas import Row
from winnow.perturb.noising.base import Noising


class Shuffling(Noising):
    """The n words stay, in another order.

    Of all places between two of the remaining n - m words, for a block from the front and for one from the rear, one is
    drawn that gives other words than before. Where there is none (two words), the block may go to the other end (ours).
    """

    def change(self, words: list[str], m: int, draws: random.Random, raw: Row) -> list[str] | None:
        rest = len(words) - m
        if rest < 1:
            return None
        front, rear = (words[:m], words[m:]), (words[-m:], words[:-m])  # block, what remains
        # Places that change nothing; those of a block from the rear are counted from the rear.
        same = set(_harmless(*front)), {rest - at for at in _harmless(*(part[::-1] for part in rear))}
        inner = [(side, at) for side in (0, 1) for at in range(1, rest) if at not in same[side]]
        ends = [(side, at) for side, at in ((0, rest), (1, 0)) if at not in same[side]]
        if not (inner or ends):
            return None
        side, at = draws.choice(inner or ends)
        block, left = (front, rear)[side]
        return left[:at] + block + left[at:]


def _harmless(block: list[str], left: list[str]) -> Iterator[int]:
    """The places in `left` where `block`, cut from before it, gives the same words as before.

    left[:at] + block = block + left[:at] holds exactly where both are repetitions of one block, the root (Lyndon and
    Schuetzenberger 1962).
    """
    root = _root(block)
    at = root
    while left[at - root : at] == block[:root]:
        yield at
        at += root


def _root(block: list[str]) -> int:
    """Length of the shortest block that `block` is a repetition of."""
    n = len(block)
    return next(size for size in range(1, n + 1) if n % size == 0 and block == block[:size] * (n // size))
