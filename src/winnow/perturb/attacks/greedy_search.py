"""search=greedy: raise the loss of the answer under the backbone, within a budget of queries.

Imported after `resources.import_textattack` only: it builds on TextAttack's classes.
"""

from __future__ import annotations

import math
from functools import partial

import textattack
from textattack.constraints import Constraint
from textattack.search_methods import GreedyWordSwapWIR
from textattack.shared import AttackedText


class GreedyWords(GreedyWordSwapWIR):
    """TextAttack's greedy search with word-importance ranking, on texts in which words may have moved.

    It visits words by their place in the original; where a space was put into a word, the later ones have moved, so
    places are carried over (ours). Half of the query budget ranks words, as far as it goes from the first one on, so
    that the rest is left to change some (ours). steps: words changed in the last search. proposed: as in
    `RandomWordSwap`.
    """

    def __init__(self, ranking: str, query_budget: int) -> None:
        super().__init__(wir_method=ranking, truncate_words_to=query_budget // 2)
        self.steps, self.proposed = 0, False

    def attach(self, attack: textattack.Attack) -> None:
        """To be called once the attack is built around the search."""
        self.get_transformations = partial(self._moved, attack.get_transformations)

    def _moved(self, get_transformations, current_text: AttackedText, **kwargs) -> list[AttackedText]:
        kept = get_transformations(current_text, shifted_idxs=True, **kwargs)
        self.proposed |= bool(kept)
        return kept

    def perform_search(self, initial_result):
        self.steps, self.proposed = 0, False
        if not math.isfinite(initial_result.score):
            return initial_result
        best = super().perform_search(initial_result)
        self.steps = steps(best.attacked_text)
        return best


class AtMostWords(Constraint):
    """No more than `words` words changed; a word that was split in two counts once."""

    def __init__(self) -> None:
        super().__init__(compare_against_original=True)
        self.words = 1

    def _check_constraint(self, transformed_text: AttackedText, reference_text: AttackedText) -> bool:
        return steps(transformed_text) <= self.words


def steps(text: AttackedText) -> int:
    """Words changed on the way from the original to `text`: one per step."""
    count = 0
    while "previous_attacked_text" in text.attack_attrs:
        text, count = text.attack_attrs["previous_attacked_text"], count + 1
    return count
