"""CheckList: a random string after the instruction.

One of 50 fixed strings of 10 letters and digits. Source: Ribeiro et al. 2020 (arXiv 2005.04118), with PromptBench's
number and length; the strings themselves are not published, so these are ours.
"""

from __future__ import annotations

import string
from functools import cache

from winnow import draws
from winnow.perturb.attacks.base import SentenceAttack

NUMBER, LENGTH = 50, 10
ALPHABET = string.ascii_letters + string.digits


class CheckList(SentenceAttack):
    """One of the fixed strings."""

    def options(self) -> tuple[str, ...]:
        return random_strings()


@cache
def random_strings() -> tuple[str, ...]:
    """The fixed list: digits of base 62 of SHA-256, so that no version of a random generator can change it."""

    def one(i: int) -> str:
        number = int.from_bytes(draws.digest("checklist", i), "big")
        return "".join(ALPHABET[number // len(ALPHABET) ** k % len(ALPHABET)] for k in range(LENGTH))

    return tuple(one(i) for i in range(NUMBER))
