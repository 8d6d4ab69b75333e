"""BertAttack: words that a language model expects in the same place.

Up to 48 candidates per place, all from one reading of the original instruction; the sentence encoder must see a
similarity of at least 0.8. Source: Li et al. 2020 (arXiv 2004.09984), with PromptBench's settings.
"""

from __future__ import annotations

from typing import Any

from winnow.perturb.attacks.base import WordAttack
from winnow.perturb.attacks.resources import Resources


class BertAttack(WordAttack):
    """max_candidates: words per place; min_similarity: cosine of the sentence encoder to the original instruction."""

    level, needs, ranking = "word", ("stop_words", "context", "sentences"), "unk"

    def __init__(self, max_candidates: int, min_similarity: float, **shared: Any) -> None:
        super().__init__(**shared)
        self.max_candidates, self.min_similarity = max_candidates, min_similarity

    def transformation(self, resources: Resources) -> Any:
        return resources.context(self.max_candidates)

    def constraints(self, resources: Resources) -> list[Any]:
        return [resources.sentences(self.min_similarity)]
