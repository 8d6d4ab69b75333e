"""Random insertion: m random words are put in at random places."""

from __future__ import annotations

import random

from winnow.data.schemas import Row
from winnow.perturb.noising.base import Noising
from winnow.perturb.noising.words import WORDS


class Insertion(Noising):
    """n + m words: the n in their order, and m words of `words.WORDS` among, before or behind them."""

    def change(self, words: list[str], m: int, draws: random.Random, raw: Row) -> list[str] | None:
        new = set(draws.sample(range(len(words) + m), m))  # places of the new words in the result
        old = iter(words)
        return [draws.choice(WORDS) if place in new else next(old) for place in range(len(words) + m)]
