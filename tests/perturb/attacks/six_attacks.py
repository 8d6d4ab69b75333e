"""The six attacks and some instructions for their tests."""

from __future__ import annotations

import os
from functools import cache

from composed import build

from winnow.data.records import Record, record_id
from winnow.perturb.attacks.bertattack import BertAttack
from winnow.perturb.attacks.checklist import CheckList
from winnow.perturb.attacks.deepwordbug import DeepWordBug
from winnow.perturb.attacks.stresstest import StressTest
from winnow.perturb.attacks.textbugger import TextBugger
from winnow.perturb.attacks.textfooler import TextFooler

CACHE = os.environ.get("WINNOW_CACHE", "~/.cache/winnow")
KINDS = {
    "textbugger": TextBugger,
    "deepwordbug": DeepWordBug,
    "textfooler": TextFooler,
    "bertattack": BertAttack,
    "stresstest": StressTest,
    "checklist": CheckList,
}
INSTRUCTIONS = [
    "Describe the structure of an atom and explain how its particles behave.",
    "Summarize the main argument of the following newspaper article in three sentences.",
    "Create a shopping list for a healthy breakfast with cheap ingredients.",
    "What is the capital of France?",
    "Rewrite this paragraph so that young children understand the difficult words.",
    "Classify each animal as a mammal, a bird or a reptile.",
]


def attack_of(name: str, **changes):
    """The attack as `attack=[name]` gives it, with some keys replaced."""
    return build(f"attack/{name}", **changes)


@cache
def six() -> dict:
    """All six with their default settings, search=random; built once, as loading the encoders takes some seconds."""
    return {name: attack_of(name, cache=CACHE) for name in KINDS}


def record(instruction: str, row: int = 0, output: str = "An answer.") -> Record:
    """A record with this instruction."""
    return Record(record_id(instruction, "", output), row, instruction, "", output, (), "test", {})
