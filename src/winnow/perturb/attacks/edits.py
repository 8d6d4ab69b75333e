"""A limit on the characters that differ.

Imported after `resources.import_textattack` only: it builds on TextAttack's classes.
"""

from __future__ import annotations

from rapidfuzz.distance import Levenshtein
from textattack.constraints.overlap import LevenshteinEditDistance
from textattack.shared import AttackedText


class AtMostEdits(LevenshteinEditDistance):
    """TextAttack's limit on the Levenshtein distance of the whole texts, in time linear in the text: no more of it is
    looked at than a distance within the limit needs."""

    def _check_constraint(self, transformed_text: AttackedText, reference_text: AttackedText) -> bool:
        most = self.max_edit_distance
        # Above the limit the distance is given as most + 1.
        return Levenshtein.distance(reference_text.text, transformed_text.text, score_cutoff=most) <= most
