"""How what six attacks did to a record becomes one number: a mean inside each level, then over the levels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from winnow.errors import UserError

if TYPE_CHECKING:
    from winnow.perturb.attacks.base import PromptAttack

LEVELS = ("character", "word", "sentence")
NO_ATTACK = "no_attack_succeeded"


def checked_attacks(attacks: Mapping[str, PromptAttack]) -> dict[str, PromptAttack]:
    """The attacks themselves; UserError if there is none, or one has no level."""
    if not attacks:
        raise UserError(
            "attack=[] leaves nothing to attack with; name some, for instance attack=[textbugger,checklist]."
        )
    for name, attack in attacks.items():
        if (level := getattr(attack, "level", None)) not in LEVELS:
            raise UserError(f"attack={name} has the level {level}; its class must have one of {', '.join(LEVELS)}.")
    return dict(attacks)


def by_level(
    values: Mapping[str, np.ndarray], attacks: Mapping[str, PromptAttack]
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Mean over levels of the mean over the level's attacks, and the means of the levels.

        m = 1/|L'| sum over l in L' of m_l,    m_l = 1/|A'_l| sum over a in A'_l of v_a

    A'_l are the attacks of level l that found a prompt for the record, L' the levels in which one did: with missing
    attacks the number stays comparable. values: (records,) by attack, NaN where an attack found nothing. Returns
    (records,) and (records,) by level, NaN where nothing was found.
    """
    means = {}
    for level in LEVELS:
        if rows := [values[name] for name, attack in attacks.items() if attack.level == level]:
            means[level] = _mean(np.stack(rows))
    return _mean(np.stack(list(means.values()))), means


def found(values: Mapping[str, np.ndarray]) -> np.ndarray:
    """(records,) how many attacks have a value."""
    return np.sum([~np.isnan(row) for row in values.values()], axis=0)


def _mean(rows: np.ndarray) -> np.ndarray:
    """Mean over the first axis of what is there; NaN where nothing is."""
    count = np.sum(~np.isnan(rows), axis=0)
    total = np.nansum(rows, axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
