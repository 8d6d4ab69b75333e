"""What all prompt attacks share: how one instruction is attacked, and why it may come to nothing.

An attack sees the instruction and nothing else of a record. It is described by plain settings; TextAttack and the
resources are loaded when the first instruction is attacked, once per process.
"""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from winnow import draws
from winnow.errors import UserError, check_choice
from winnow.perturb.attacks import resources as sets
from winnow.store.describe import Free, Identified, arguments

if TYPE_CHECKING:
    from winnow.perturb.attacks.resources import Resources

SEARCHES = ("random", "greedy")
# Longer instructions are flagged by the attacks that change words: every candidate is a whole text (ours).
MOST_WORDS, MOST_CHARACTERS, MOST_IN_A_WORD = 2000, 32_000, 1000

# Why there is no attacked prompt.
EMPTY_INSTRUCTION = "empty_instruction"
TOO_LONG = "instruction_too_long"
RESERVED_TEXT = "instruction_holds_reserved_text"
NO_WORD = "no_word_to_change"
NO_CANDIDATE = "no_candidate"
NOTHING_KEPT = "no_candidate_kept_constraints"
NO_LOSS = "no_answer_loss"
LOSS_NOT_RAISED = "loss_not_raised"
ATTACK_FAILS = "attack_fails"  # followed by a colon and the error

Losses = Callable[[Sequence[str]], Sequence[float]]


@dataclass(frozen=True)
class Outcome:
    """One attacked instruction, or the flag that says why there is none. queries: instructions whose loss was asked."""

    prompt: str | None
    words_changed: int = 0
    queries: int = 0
    flag: str | None = None


class PromptAttack(Identified):
    """A rewriting of one instruction, and the settings that every attack has.

    name: under which prompts are kept. search: `random` or `greedy`. resources: `offline` or `paper`. seed: of the
    draws, with record id and name. query_budget: for greedy, instructions per record whose loss may be asked.
    cache: winnow's cache folder.
    """

    level: ClassVar[str]
    needs: ClassVar[tuple[str, ...]] = ()  # the methods of `Resources` that it calls, and `stop_words`
    version: ClassVar[int] = 1  # raised whenever the prompts would change

    def __init__(self, name: str, search: str, resources: str, seed: int, query_budget: int, cache: Free[str]) -> None:
        check_choice("attack.search", search, SEARCHES)
        check_choice("attack.resources", resources, sets.RESOURCES)
        if query_budget < 2:
            raise UserError(f"attack.query_budget={query_budget} is too small; give 2 or more, one for the original.")
        self.name, self.search, self.resources, self.seed = name, search, resources, seed
        self.query_budget, self.cache = (query_budget if search == "greedy" else None), cache

    @property
    def identity(self) -> dict[str, Any]:
        """All that a prompt depends on besides the instruction and the record's id: what the resources are, not only
        their name."""
        return arguments(self) | {"resources": sets.identities(self.resources, self.needs)}

    def source(self) -> str:
        """What the prompts were made with, for people: the resource set and what was used of it."""
        used = ", ".join(need.replace("_", " ") for need in self.needs)
        return f"{self.resources}: {used}" if used else self.resources

    def prepare(self) -> None:
        """Load everything now; raises UserError for a resource that cannot be had."""

    def attack(self, record_id: str, instruction: str, losses: Losses | None = None) -> Outcome:
        """The rewritten instruction, never the same, or a flag that says why there is none. losses: of the record's
        answer under each of several instructions, for search=greedy."""
        raise NotImplementedError


class WordAttack(PromptAttack):
    """An attack that changes some of the instruction's words; its classes say how.

    share: of the words that may be changed, the part that is; at least one word, and no more than max_words (ours:
    the papers stop where a classifier errs, which an instruction does not have).
    """

    version: ClassVar[int] = 2
    ranking: ClassVar[str] = "delete"  # how greedy finds important words: leave them out, or write an unknown one

    def __init__(self, share: float, max_words: int, **shared: Any) -> None:
        super().__init__(**shared)
        if not 0 < share <= 1:
            raise UserError(f"attack.share={share} must be above 0 and at most 1.")
        if max_words < 1:
            raise UserError(f"attack.max_words={max_words} leaves no word to change; give 1 or more.")
        if self.query_budget == 2:
            raise UserError("attack.query_budget=2 asks for no changed word; give 3 or more.")
        self.share, self.max_words = share, max_words
        self._engine: _WordEngine | None = None  # TextAttack's objects; never sent to another process

    def __getstate__(self) -> dict:
        return vars(self) | {"_engine": None}

    @property
    def identity(self) -> dict[str, Any]:
        """A greedy search ranks words by half of its budget; random prompts do not hang on that."""
        return super().identity | ({} if self.query_budget is None else {"ranking_budget": self.query_budget // 2})

    def transformation(self, resources: Resources) -> Any:
        """TextAttack's Transformation that proposes replacements."""
        raise NotImplementedError

    def constraints(self, resources: Resources) -> list[Any]:
        """TextAttack's constraints on a replacement, the cheap ones first."""
        raise NotImplementedError

    def stop_words(self) -> frozenset[str]:
        """Words that are never changed."""
        return sets.stop_words()

    def engine(self) -> _WordEngine:
        if self._engine is None:
            self._engine = _WordEngine(self, sets.load(self.resources, self.cache))
        return self._engine

    def prepare(self) -> None:
        self.engine()

    def attack(self, record_id: str, instruction: str, losses: Losses | None = None) -> Outcome:
        """The instruction with some words changed. losses: needed by search=greedy."""
        if not instruction.strip():
            return Outcome(None, flag=EMPTY_INSTRUCTION)
        words = instruction.split()
        long = max(map(len, words)) > MOST_IN_A_WORD  # TextBugger makes a text for each character
        if len(instruction) > MOST_CHARACTERS or len(words) > MOST_WORDS or long:
            return Outcome(None, flag=TOO_LONG)
        if "<SPLIT>" in instruction:  # TextAttack's own mark between texts
            return Outcome(None, flag=RESERVED_TEXT)
        engine = self.engine()  # before the draws begin: loading may draw as well
        with drawn_from(self.seed, record_id, self.name):
            return engine.run(instruction, losses)

    def words_to_change(self, candidates: int) -> int:
        """How many of `candidates` words are changed: share, rounded half up, at least 1 and at most max_words."""
        return min(self.max_words, max(1, math.floor(self.share * candidates + 0.5)))


class _WordEngine:
    """TextAttack's Attack for one word attack, random or greedy."""

    def __init__(self, owner: WordAttack, resources: Resources) -> None:
        import textattack
        from textattack.constraints.pre_transformation import RepeatModification, StopwordModification

        from winnow.perturb.attacks.search import AnswerLossGoal, AtMostWords, GreedyWords, RandomWordSwap

        self.owner, self.limit, self.greedy = owner, AtMostWords(), owner.search == "greedy"
        first = [RepeatModification(), StopwordModification(stopwords=owner.stop_words())]
        transformation, constraints = owner.transformation(resources), owner.constraints(resources)
        if self.greedy:
            self.search, goal = GreedyWords(owner.ranking, owner.query_budget), AnswerLossGoal(owner.query_budget)
            self.attack = textattack.Attack(goal, [*first, self.limit, *constraints], transformation, self.search)
            self.search.attach(self.attack)
        else:
            self.search, goal = RandomWordSwap(), AnswerLossGoal(sys.maxsize)
            self.attack = textattack.Attack(goal, first + constraints, transformation, self.search)
            self.search.propose = self.attack._get_transformations_uncached

    def run(self, instruction: str, losses: Losses | None) -> Outcome:
        from textattack.shared import AttackedText

        candidates, _ = self.attack.get_indices_to_order(AttackedText(instruction))
        if not candidates:
            return Outcome(None, flag=NO_WORD)
        self.search.words = self.limit.words = self.owner.words_to_change(candidates)
        self.attack.goal_function.ask(losses if self.greedy else lambda texts: [0.0] * len(texts))
        self.attack.clear_cache()  # an attack that ended in an error leaves the losses of its own record
        try:
            result = self.attack.attack(instruction, 0)
        finally:
            self.attack.goal_function.model = None  # it holds the backbone that gives the losses
        queries = result.num_queries if self.greedy else 0
        prompt = result.perturbed_result.attacked_text.text
        if self.search.steps and prompt != instruction:
            return Outcome(prompt, self.search.steps, queries)
        if self.greedy and not math.isfinite(result.original_result.score):
            return Outcome(None, queries=queries, flag=NO_LOSS)
        flags = (NOTHING_KEPT, LOSS_NOT_RAISED) if self.greedy else (NO_CANDIDATE, NOTHING_KEPT)
        return Outcome(None, queries=queries, flag=flags[self.search.proposed])


class SentenceAttack(PromptAttack):
    """An attack that puts one of a few fixed texts after the instruction."""

    level = "sentence"

    def options(self) -> tuple[str, ...]:
        """The texts, of which one is drawn (random) or the one with the largest loss is taken (greedy), among as many
        of the first, in alphabetical order, as the query budget allows."""
        raise NotImplementedError

    def attack(self, record_id: str, instruction: str, losses: Losses | None = None) -> Outcome:
        """The instruction with one of the options after it. losses: needed by search=greedy."""
        if not instruction.strip():
            return Outcome(None, flag=EMPTY_INSTRUCTION)
        if self.search == "random":
            with drawn_from(self.seed, record_id, self.name):
                option = random.choice(self.options())
            return Outcome(f"{instruction} {option}", len(option.split()))
        (before,) = losses([instruction])
        if not math.isfinite(before):
            return Outcome(None, queries=1, flag=NO_LOSS)
        options = sorted(self.options())[: self.query_budget - 1]
        after = losses([f"{instruction} {option}" for option in options])
        best = max(range(len(options)), key=lambda i: -math.inf if math.isnan(after[i]) else after[i])
        if not after[best] > before:
            return Outcome(None, queries=1 + len(options), flag=LOSS_NOT_RAISED)
        return Outcome(f"{instruction} {options[best]}", len(options[best].split()), 1 + len(options))


@contextmanager
def drawn_from(seed: int, record_id: str, name: str) -> Iterator[None]:
    """Python's and NumPy's global generators, which TextAttack draws from, as a function of the three alone.

    What they were before is put back, so that nothing else in the process is drawn differently.
    """
    drawn = draws.digest(seed, record_id, name)
    before, numpy_before = random.getstate(), np.random.get_state()
    random.seed(int.from_bytes(drawn[:8], "big"))
    np.random.seed(int.from_bytes(drawn[8:12], "big"))
    try:
        yield
    finally:
        random.setstate(before)
        np.random.set_state(numpy_before)
