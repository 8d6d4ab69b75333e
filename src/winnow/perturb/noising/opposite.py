"""Opposite instruction: the instruction gives way to one that asks for the contrary or for something else."""

from __future__ import annotations

import random

from winnow.data.nlu.datasets import DATASETS
from winnow.data.nlu.instructions import OPPOSITE
from winnow.data.schemas import Row
from winnow.errors import UserError
from winnow.perturb.noising.base import Noising


class Opposite(Noising):
    """One of the prepared opposite instructions of the record's data set; omega plays no part.

    Raises UserError for a record that does not tell its data set: what the contrary is, only the task says.
    """

    reads = "dataset"
    uses_omega = False

    def change(self, words: list[str], m: int, draws: random.Random, raw: Row) -> list[str] | None:
        dataset = str(raw.get("dataset"))
        if dataset not in OPPOSITE:
            raise UserError(
                f"noising=opposite needs records of an NLU data set ({', '.join(DATASETS)}), which tell their task in "
                f"`dataset`; choose another noising for this pool."
            )
        return draws.choice([text for text in OPPOSITE[dataset] if text.split() != words]).split()
