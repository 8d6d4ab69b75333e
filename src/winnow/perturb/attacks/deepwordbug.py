"""DeepWordBug: typing errors.

One word at a time: two neighbours swapped, a character replaced, left out, or put in. The whole instruction may differ
from the original in at most 30 edits. Source: Gao et al. 2018 (arXiv 1801.04354), with PromptBench's settings.
"""

from __future__ import annotations

from typing import Any

from winnow.perturb.attacks.base import WordAttack
from winnow.perturb.attacks.resources import Resources


class DeepWordBug(WordAttack):
    """max_edit_distance: Levenshtein distance, in characters, of the whole instruction from the original."""

    level, needs, ranking = "character", ("stop_words",), "unk"

    def __init__(self, max_edit_distance: int, **shared: Any) -> None:
        super().__init__(**shared)
        self.max_edit_distance = max_edit_distance

    def transformation(self, resources: Resources) -> Any:
        from textattack import transformations as of

        return of.CompositeTransformation(
            [
                of.WordSwapNeighboringCharacterSwap(),
                of.WordSwapRandomCharacterSubstitution(),
                of.WordSwapRandomCharacterDeletion(),
                of.WordSwapRandomCharacterInsertion(),
            ]
        )

    def constraints(self, resources: Resources) -> list[Any]:
        from winnow.perturb.attacks.search import AtMostEdits

        return [AtMostEdits(self.max_edit_distance)]
