"""What the attacks on words give TextAttack: its two searches, their goal, and limits on words and characters.

search=random takes words and candidates in random order and asks no model that is scored. search=greedy raises the loss
of the answer under the backbone, within a budget of queries. Imported after `resources.import_textattack` only: it
builds on TextAttack's classes.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from functools import partial
from types import SimpleNamespace

import textattack
from rapidfuzz.distance import Levenshtein
from textattack.constraints import Constraint
from textattack.constraints.overlap import LevenshteinEditDistance
from textattack.goal_functions.text import TextToTextGoalFunction
from textattack.search_methods import GreedyWordSwapWIR, SearchMethod
from textattack.shared import AttackedText, validators

from winnow.perturb.attacks.base import Losses

TRIES = 10  # times as many words as are to be changed: so many are visited at the most by search=random (ours)


class AnswerLossGoal(TextToTextGoalFunction):
    """Raise s(A|Q_adv), the mean loss of the answer in nats per token, as far as the query budget goes.

    There is no point at which the goal is reached: the search goes on until its words or its queries are used up.
    A text for which there is no loss (its prompt leaves no room for the answer) is worse than any other.
    """

    def __init__(self, query_budget: int) -> None:
        # All texts of a question are handed over at once; batches are made where the backbone is.
        super().__init__(
            SimpleNamespace(model=None), maximizable=True, query_budget=query_budget, model_batch_size=query_budget
        )

    def ask(self, losses: Losses) -> None:
        """Whom to ask from now on: the losses of one record's answer under each of several instructions."""
        self.model = lambda texts: list(losses(texts))

    def _is_goal_complete(self, model_output, attacked_text) -> bool:
        return False

    def _get_score(self, model_output, attacked_text) -> float:
        return -math.inf if math.isnan(model_output) else float(model_output)


# TextAttack would warn, each time, of a goal that it does not know.
validators.MODELS_BY_GOAL_FUNCTION[AnswerLossGoal] = [r"^builtins\.NoneType$"]


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


class AtMostEdits(LevenshteinEditDistance):
    """TextAttack's limit on the Levenshtein distance of the whole texts, in time linear in the text: no more of it is
    looked at than a distance within the limit needs."""

    def _check_constraint(self, transformed_text: AttackedText, reference_text: AttackedText) -> bool:
        most = self.max_edit_distance
        # Above the limit the distance is given as most + 1.
        return Levenshtein.distance(reference_text.text, transformed_text.text, score_cutoff=most) <= most


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
