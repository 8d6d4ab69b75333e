"""search=random: words in random order, candidates in random order, no question to any model that is scored.

Imported after `resources.import_textattack` only: it builds on TextAttack's classes.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from textattack.search_methods import SearchMethod
from textattack.shared import AttackedText

TRIES = 10  # times as many words as are to be changed: so many are visited at the most (ours)


class RandomWordSwap(SearchMethod):
    """Changes a given number of words, each by the first candidate that keeps all constraints.

    The words that the pre-transformation constraints leave are visited in random order until `words` of them are
    changed, or ten times as many were visited: where no more is kept, all of a long text would be. For one word the
    kinds of transformation take turns in random order, one random candidate each, so that a kind with many candidates
    is drawn no more often than one with few (ours). Draws come from Python's global generators, as TextAttack's own do:
    whoever calls seeds them.

    propose: transformation and pre-transformation constraints, without the others; set by the attack that is built
    around the search. steps: words changed in the last search. proposed: whether there was any candidate.
    """

    is_black_box = True

    def __init__(self) -> None:
        self.words, self.steps, self.proposed = 1, 0, False
        self.propose = None

    def perform_search(self, initial_result):
        original = current = initial_result.attacked_text
        self.steps, self.proposed = 0, False
        indices = sorted(self.get_indices_to_order(original)[1])
        random.shuffle(indices)
        for index in indices[: TRIES * self.words]:
            if self.steps == self.words:
                break
            candidates = self.propose(current, indices_to_modify=[index], shifted_idxs=True)
            self.proposed |= bool(candidates)
            chosen = self._first_kept(_taking_turns(candidates), current, original)
            if chosen is not None:
                current, self.steps = chosen, self.steps + 1
        return self.goal_function.get_result(current)[0]

    def _first_kept(
        self, candidates: list[AttackedText], current: AttackedText, original: AttackedText
    ) -> AttackedText | None:
        # Groups of growing size: mostly the first candidates do, and no batch is made for nothing.
        for group in _growing(candidates):
            kept = {text.text for text in self.filter_transformations(group, current, original)}
            for text in group:
                if text.text in kept and text.text != original.text:
                    return text
        return None


def _taking_turns(candidates: list[AttackedText]) -> list[AttackedText]:
    """The candidates in random order, the transformations that made them taking turns."""
    kinds: dict[int, list[AttackedText]] = {}
    for text in candidates:
        kinds.setdefault(id(text.attack_attrs["last_transformation"]), []).append(text)
    queues = list(kinds.values())
    random.shuffle(queues)
    for queue in queues:
        random.shuffle(queue)
    longest = max((len(queue) for queue in queues), default=0)
    return [queue[turn] for turn in range(longest) for queue in queues if turn < len(queue)]


def _growing(items: list[AttackedText]) -> Iterator[list[AttackedText]]:
    start, size = 0, 1
    while start < len(items):
        yield items[start : start + size]
        start, size = start + size, min(2 * size, 16)
