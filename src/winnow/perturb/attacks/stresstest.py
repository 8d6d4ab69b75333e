"""StressTest: a tautology after the instruction, which adds nothing.

Source: Naik et al. 2018 (arXiv 1806.00692), with PromptBench's three options.
"""

from __future__ import annotations

from winnow.perturb.attacks.base import SentenceAttack

TAUTOLOGIES = ("and true is true", "and false is not true", " ".join(["and true is true"] * 5))


class StressTest(SentenceAttack):
    """One of the three tautologies; the last is the first one five times."""

    def options(self) -> tuple[str, ...]:
        return TAUTOLOGIES
