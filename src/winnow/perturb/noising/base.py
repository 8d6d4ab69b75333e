"""What all noises share: which records are noised, how many words, and where the draws come from.

A noise changes the instruction alone; input and answer stay as they are (AAAI 2025, doi 10.1609/aaai.v39i22.34513).
Words are what white space separates, and a noised instruction is joined by single blanks. With n words, m = ceil(omega
n) of them are touched.
"""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import ClassVar

from winnow import draws
from winnow.data.records import Record
from winnow.data.schemas import Row
from winnow.errors import UserError

log = logging.getLogger(__name__)


class Noising:
    """One kind of noise on instructions; a subclass says how words are changed.

    omega: share of an instruction's words that is touched, 0.1 to 0.5 in the paper; 0 < omega <= 1.
    phi: share of the samples that is noised, drawn anew for each epoch; 0 <= phi <= 1; the paper gives no value.
    seed: every draw is a function of (seed, record id, epoch, name) alone, whatever the order or the process.
    Raises UserError for a setting outside its range.
    """

    name: ClassVar[str]  # the class's own name in lower case unless it gives another
    uses_omega: ClassVar[bool] = True
    reads: ClassVar[str | None] = None  # column of a record's original row that the words depend on
    version: ClassVar[int] = 1  # raised when the same settings would give other words

    def __init_subclass__(cls) -> None:
        cls.name = vars(cls).get("name", cls.__name__.lower())

    def __init__(self, omega: float, phi: float, seed: int) -> None:
        if not 0 < omega <= 1:
            raise UserError(f"noising.omega={omega} must be above 0 and at most 1: it is the share of words touched.")
        if not 0 <= phi <= 1:
            raise UserError(f"noising.phi={phi} must lie between 0 and 1: it is the share of samples noised.")
        self.omega, self.phi, self.seed = (omega if self.uses_omega else None), phi, seed

    def read_besides(self, records: Sequence[Record]) -> list[list[str]]:
        """Sorted [id, value] of the records whose `reads` column, which their id does not tell of, has a value."""
        if self.reads is None:
            return []
        found = [(record.id, record.raw.get(self.reads)) for record in records]
        return sorted([record_id, str(value)] for record_id, value in found if value is not None)

    def touched(self, words: int) -> int:
        """m = ceil(omega n) of n words, and at least 1. Exact: omega is taken as the decimal number it was written as,
        so that 0.1 of 70 is 7 and not, by rounding, 8."""
        return max(1, math.ceil(Fraction(str(self.omega)) * words))

    def applies(self, record_id: str, epoch: int = 0) -> bool:
        """Whether this record is noised in this epoch; true for a share phi of all."""
        return self._draws(record_id, epoch, "applies").random() < self.phi

    def apply(self, records: Sequence[Record], epoch: int = 0) -> list[Record]:
        """The records of one epoch: those that `applies` names with a noised instruction, all else untouched, ids too.

        An instruction that the rule cannot change (one word cannot be shuffled, nor all words be cut off) stays as it
        is; a warning says how many there are.
        """
        changed: list[Record] = []
        unchangeable = 0
        for record in records:
            if self.applies(record.id, epoch):
                words = self.noisy(record.instruction, record.id, epoch, record.raw)
                unchangeable += words is None
                record = record if words is None else replace(record, instruction=words)
            changed.append(record)
        if unchangeable:
            log.warning(
                "%d of %d instructions stay as they are: noising=%s fails on them (see above), or they have too few "
                "different words for it.",
                unchangeable,
                len(records),
                self.name,
            )
        return changed

    def pairs(self, records: Sequence[Record], epoch: int = 0) -> tuple[list[str], list[str]]:
        """(raw instructions, noised instructions) of every record that the rule can change, whatever phi: what the
        distortion of a set is measured on."""
        both = [(one.instruction, self.noisy(one.instruction, one.id, epoch, one.raw)) for one in records]
        changed = [(raw, noisy) for raw, noisy in both if noisy is not None]
        return [raw for raw, _ in changed], [noisy for _, noisy in changed]

    def noisy(self, instruction: str, key: str, epoch: int = 0, raw: Row | None = None) -> str | None:
        """The noised instruction, never the words of `instruction`; None where the rule cannot change it.

        key: the record's id. raw: the record's original row; its `dataset`, where it names a data set, tells `opposite`
        and `padding` the task. Raises UserError where the task is needed and unknown.
        """
        words = instruction.split()
        m = self.touched(len(words)) if self.uses_omega else 0
        try:
            changed = self.change(words, m, self._draws(key, epoch, "words"), raw or {})
        except (UserError, MemoryError, OSError, RuntimeError):  # the settings' or the machine's, not this text's
            raise
        except Exception as error:
            log.warning("noising=%s fails on record %s, which stays as it is: %r", self.name, key, error)
            return None
        if changed is None:
            return None
        if not changed or changed == words:
            raise UserError(
                f"noising={self.name} gave the words of {instruction[:60]!r} back: its `change` must return others, or "
                f"None where it cannot."
            )
        return " ".join(changed)

    def change(self, words: list[str], m: int, draws: random.Random, raw: Row) -> list[str] | None:
        """The changed words, different from `words`; None where the rule cannot change them."""
        raise NotImplementedError

    def _draws(self, key: str, epoch: int, purpose: str) -> random.Random:
        return random.Random(draws.key(self.seed, key, epoch, self.name, purpose))
