"""LESS: how far a step on a record helps records of a target (ICML 2024, arXiv 2402.04333)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from winnow.data.records import Record
from winnow.errors import UserError, check_choice
from winnow.scoring.passes.gradient import LoraGradient
from winnow.scoring.protocols import Method, Preparation
from winnow.scoring.runner import PassTable
from winnow.scoring.scores import Scores, first_reason


class LESS(Method):
    """First-order influence on the target, over the epochs i of a warm-up:

        score(z) = sum over i of eta_i / (sum of eta) * cos(Gamma_i(z), g_i(z')),   mean or maximum over targets z'

    Gamma_i: sketch of Adam's step with the record's gradient at the end of epoch i; g_i: sketch of the target's plain
    gradient; eta_i: mean learning rate of the epoch. The paper takes the mean in a subtask and the maximum over
    subtasks. over: `mean`, the target is one subtask; `max`, each of its records is one.

    preparation: the warm-up. dimensions, seed: of the sketch.
    """

    def __init__(self, name: str, preparation: Preparation, dimensions: int, over: str, seed: int) -> None:
        check_choice("method.over", over, ("mean", "max"))
        self.name, self.preparation = name, preparation
        self.dimensions, self.over, self.seed = dimensions, over, seed
        epochs = range(preparation.checkpoints)
        self.passes = {f"epoch_{i}": LoraGradient(dimensions, seed, adam=True, checkpoint=i) for i in epochs}
        self.target_passes = {f"target_{i}": LoraGradient(dimensions, seed, checkpoint=i) for i in epochs}

    def score(self, tables: dict[str, PassTable], records: Sequence[Record]) -> Scores:
        epochs = [(tables[name], tables[f"target_{i}"]) for i, name in enumerate(self.passes)]
        rates = [np.nanmax(own.numbers("rate")) for own, _ in epochs]
        if sum(rates) == 0:
            raise UserError("The warm-up's learning rate is 0 in all its steps; raise method.preparation.tuner.epochs.")
        influence: np.ndarray | float = 0.0
        for rate, (own, target) in zip(rates, epochs, strict=True):
            aims = target.vectors("vector")
            aims = aims[~np.isnan(aims[:, 0])]
            if self.over == "mean":
                aims = aims.mean(0, keepdims=True)
            influence = influence + rate / sum(rates) * (own.vectors("vector") @ aims.T)
        flag = first_reason(*(own.flags() for own, _ in epochs))
        score = np.where([reason is None for reason in flag], np.max(influence, axis=1), np.nan).astype(np.float64)
        table = epochs[0][0]
        return Scores(
            score=score,
            flag=flag,
            components={name: table.numbers(name) for name in ("answer_tokens", "prompt_tokens")},
            higher_is_better=True,
            descriptions={
                "score": f"{self.over} over the target of the cosine of gradients, weighted over epochs",
                "answer_tokens": "answer tokens before any cut",
            },
        )
