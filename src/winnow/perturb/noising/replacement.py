"""Random replacement: the words at m random places give way to random words."""

from __future__ import annotations

import random

from winnow.data.schemas import Row
from winnow.perturb.noising.base import Noising
from winnow.perturb.noising.words import WORDS


class Replacement(Noising):
    """n words, exactly m of them different: a word is never replaced by itself, in whatever case (ours)."""

    def change(self, words: list[str], m: int, draws: random.Random, raw: Row) -> list[str] | None:
        if not words:
            return None
        changed = list(words)
        for place in sorted(draws.sample(range(len(words)), m)):
            old = words[place].casefold()
            changed[place] = draws.choice([word for word in WORDS if word.casefold() != old])
        return changed
