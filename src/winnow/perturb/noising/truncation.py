"""Random truncation: m words are dropped at the front or at the rear."""

from __future__ import annotations

import random

from winnow.data.schemas import Row
from winnow.perturb.noising.base import Noising


class Truncation(Noising):
    """n - m words stay: the first or the last ones, by a fair coin. At least one word must stay (ours)."""

    def change(self, words: list[str], m: int, draws: random.Random, raw: Row) -> list[str] | None:
        if m >= len(words):
            return None
        return words[m:] if draws.random() < 0.5 else words[:-m]
