"""AIOEC: how little a prompt's embedding moves when its instruction is attacked.

    AIOEC = 1/|L| sum over levels l of 1/|A_l| sum over attacks a in A_l of cos(h(Q), h(Q_a))

h is the vector of the prompt's instruction in the backbone; Q_a is the prompt whose instruction attack a has rewritten.
High is wanted: a prompt that the model reads the same way through the attack. It needs no answer. Source: arXiv
2503.24028; no code was published, and which hidden states make h is ours: over the whole prompt the template, which no
attack changes, pulls every cosine to 1 (median 0.996 in place of 0.949).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from winnow.data.records import Record
from winnow.scoring.attack_levels import NO_ATTACK, by_level, checked_attacks, found
from winnow.scoring.passes.embedding import BackboneEmbedding
from winnow.scoring.passes.likelihood import Likelihood
from winnow.scoring.protocols import Method, Pass
from winnow.scoring.runner import PassTable
from winnow.scoring.scores import Scores, first_reason

if TYPE_CHECKING:
    from winnow.perturb.attacks.base import PromptAttack

NO_DIRECTION = "zero_or_non_finite_vector"


class AIOEC(Method):
    """Mean over levels of the mean cosine over the level's attacks that found a prompt.

    layer, pooling: which hidden states make h, see `BackboneEmbedding`; -1 and `mean` are the final states averaged
    over the instruction's tokens; with `last` it is the prompt's last token. answers: the pool has answers, so the
    vectors are taken from the likelihood passes, which AIFD and IFD need as well; false, or another layer or pooling,
    runs the prompts alone."""

    def __init__(self, attacks: Mapping[str, PromptAttack], name: str, layer: int, pooling: str, answers: bool) -> None:
        self.name, self.attacks = name, checked_attacks(attacks)
        self.layer, self.pooling, self.answers = layer, pooling, answers
        shared = answers and layer == -1 and pooling == "mean"
        self.column = "instruction_vector" if shared else "vector"

        region = "prompt" if pooling == "last" else "instruction_in_prompt"

        def vectors(attack: PromptAttack | None) -> Pass:
            return Likelihood("clean", attack) if shared else BackboneEmbedding(region, layer, pooling, attack)

        self.passes = {"clean": vectors(None)} | {key: vectors(attack) for key, attack in self.attacks.items()}

    def score(self, tables: dict[str, PassTable], records: Sequence[Record]) -> Scores:
        clean = tables["clean"].vectors(self.column)
        cosines = {name: _cosines(clean, tables[name], self.column) for name in self.attacks}
        score, levels = by_level(cosines, self.attacks)
        flags = tables["clean"].flags()
        # A vector that is there but has no direction is a defect of the model, not of the attack.
        broken = [
            NO_DIRECTION if reason is None and not 0 < np.linalg.norm(vector.astype(np.float64)) < np.inf else None
            for reason, vector in zip(flags, clean, strict=True)
        ]
        missed = np.all([[reason is not None for reason in tables[name].flags()] for name in self.attacks], axis=0)
        flag = first_reason(
            flags,
            [NO_ATTACK if none else None for none in missed],
            broken,
            [NO_ATTACK if np.isnan(value) else None for value in score],
        )
        valid = np.array([reason is None for reason in flag], dtype=bool)
        return Scores(
            score=np.where(valid, score, np.nan),
            flag=flag,
            components={f"aioec_{level}": np.where(valid, values, np.nan) for level, values in levels.items()}
            | {f"cosine_{name}": values for name, values in cosines.items()}
            | {"attacks_found": found(cosines)},
            higher_is_better=True,
            descriptions={"score": "AIOEC, mean cosine between the instruction's vector before and after each attack"}
            | {f"aioec_{level}": f"the mean over the attacks on the {level} level" for level in levels}
            | {
                f"cosine_{name}": f"cosine between the instruction's vectors as it is and under {name}"
                for name in cosines
            }
            | {"attacks_found": f"attacks of {len(cosines)} that found a prompt"},
        )


def _cosines(clean: np.ndarray, attacked: PassTable, column: str) -> np.ndarray:
    """(records,) cosine of each pair of vectors, NaN where one of them is missing."""
    if all(flag is not None for flag in attacked.flags()):
        return np.full(len(attacked), np.nan)
    a, b = clean.astype(np.float64), attacked.vectors(column).astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        cosine = np.einsum("ij,ij->i", a, b) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
    return np.clip(cosine, -1.0, 1.0)
