"""Random shuffling: m words are cut from the front or the rear and put back as one block further inside."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from winnow.perturb.noising.base import Noising


class Shuffling(Noising):
    """The n words stay, in another order.

    Of all places between two of the remaining n - m words, for a block from the front and for one from the rear, one is
    drawn that gives other words than before. Where there is none (two words), the block may go to the other end (ours).
    """

    def change(self, words: list[str], m: int, draws: random.Random, raw: Mapping[str, Any]) -> list[str] | None:
        rest = len(words) - m
        cuts = ((words[:m], words[m:], rest), (words[-m:], words[:-m], 0))  # block, what remains, the other end
        inner = [left[:at] + block + left[at:] for block, left, _ in cuts for at in range(1, rest)]
        ends = [left[:at] + block + left[at:] for block, left, at in cuts]
        for orders in (inner, ends):
            different = [order for order in orders if order != words]
            if different:
                return draws.choice(different)
        return None
