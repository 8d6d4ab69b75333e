"""TextBugger: small misspellings and near synonyms that a reader looks past.

One word at a time: a blank put into it, a character left out, two neighbours swapped (none of these at its first or
last character), a look-alike glyph, or one of the 5 nearest words. The sentence encoder must see a similarity of at
least 0.8. Source: Li et al. 2018 (arXiv 1812.05271), with PromptBench's settings.
"""

from __future__ import annotations

from typing import Any

from winnow.perturb.attacks.base import WordAttack
from winnow.perturb.attacks.resources import Resources


class TextBugger(WordAttack):
    """max_candidates: nearest words; min_similarity: cosine of the sentence encoder to the original instruction."""

    level, needs, ranking = "character", ("stop_words", "synonyms", "sentences"), "delete"

    def __init__(self, max_candidates: int, min_similarity: float, **shared: Any) -> None:
        super().__init__(**shared)
        self.max_candidates, self.min_similarity = max_candidates, min_similarity

    def transformation(self, resources: Resources) -> Any:
        from textattack import transformations as of

        inside = {"random_one": True, "skip_first_char": True, "skip_last_char": True}
        return of.CompositeTransformation(
            [
                of.WordSwapRandomCharacterInsertion(letters_to_insert=" ", **inside),
                of.WordSwapRandomCharacterDeletion(**inside),
                of.WordSwapNeighboringCharacterSwap(**inside),
                _look_alikes(),
                of.WordSwapEmbedding(max_candidates=self.max_candidates, embedding=resources.synonyms()),
            ]
        )

    def constraints(self, resources: Resources) -> list[Any]:
        return [resources.sentences(self.min_similarity)]


def _look_alikes() -> Any:
    """TextAttack's swap of a character for its look-alike.

    Its release 0.3.11 left out a file that only another search needs, and fails to read it after its table of
    look-alikes is made.
    """
    from textattack.transformations import WordSwapHomoglyphSwap

    class LookAlikes(WordSwapHomoglyphSwap):
        def __init__(self) -> None:
            self.homos: dict[str, str] = {}
            try:
                super().__init__()
            except FileNotFoundError:
                self.homos_intentional: dict[str, list[str]] = {}
            if not self.homos:
                raise RuntimeError("this release of TextAttack has no table of look-alike characters")

    return LookAlikes()
