"""Opposite instruction: the instruction gives way to one that asks for the contrary or for something else."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any, ClassVar

from winnow.data.nlu.datasets import DATASETS
from winnow.data.nlu.instructions import OPPOSITE
from winnow.errors import UserError
from winnow.perturb.noising.base import Noising


class Opposite(Noising):
    """One of the prepared opposite instructions of the record's data set; omega plays no part.

    Raises UserError for a record that does not tell its data set: what the contrary is, only the task says.
    """

    reads: ClassVar[str | None] = "dataset"
    uses_omega: ClassVar[bool] = False

    def change(self, words: list[str], m: int, draws: random.Random, raw: Mapping[str, Any]) -> list[str] | None:
        dataset = str(raw.get("dataset"))
        if dataset not in OPPOSITE:
            raise UserError(
                f"noising=opposite needs records of an NLU data set ({', '.join(DATASETS)}), which tell their task in "
                f"`dataset`; choose another noising for this pool."
            )
        return draws.choice([text for text in OPPOSITE[dataset] if text.split() != words]).split()
