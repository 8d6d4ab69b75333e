"""In-context padding: m words of an unrelated text are put before or behind the instruction."""

from __future__ import annotations

import random

from winnow.data.nlu.datasets import DATASETS
from winnow.data.schemas import Row
from winnow.perturb.noising.base import Noising
from winnow.perturb.noising.passages import PASSAGES


class Padding(Noising):
    """n + m words: the instruction whole, and m words in a row of a passage that has nothing to do with the task.

    A pool of an NLU data set gets a passage that looks like its texts; any other pool one of all passages. The m words
    start anywhere in the passage and go round its end.
    """

    reads = "dataset"

    def change(self, words: list[str], m: int, draws: random.Random, raw: Row) -> list[str] | None:
        dataset = DATASETS.get(str(raw.get("dataset")))
        passages = PASSAGES[dataset.kind] if dataset else [one for some in PASSAGES.values() for one in some]
        passage = draws.choice(passages).split()
        start = draws.randrange(len(passage))
        block = [passage[(start + i) % len(passage)] for i in range(m)]
        return block + words if draws.random() < 0.5 else words + block
