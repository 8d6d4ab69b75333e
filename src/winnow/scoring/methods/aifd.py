"""AIFD: how little an instruction helps the model to the answer once it has been attacked.

    AIFD = sum over levels l of 1/|A_l| sum over attacks a in A_l of s(A|Q_a) / s(A)

s is the mean answer loss in nats per token; Q_a is the prompt whose instruction attack a has rewritten; the levels are
character, word and sentence. High is wanted. Each ratio averages the same answer tokens, as many as the longest variant
of the prompt leaves room for. Source: arXiv 2503.24028; no code was published.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from winnow.data.records import Record
from winnow.scoring.attack_levels import NO_ATTACK, by_level, checked_attacks, found
from winnow.scoring.filters import at_most
from winnow.scoring.passes.likelihood import Likelihood
from winnow.scoring.protocols import Method
from winnow.scoring.runner import PassTable
from winnow.scoring.scores import ZERO_DENOMINATOR, Scores, answer_losses, check_first_token, first_reason
from winnow.store.describe import ForSelection

if TYPE_CHECKING:
    from winnow.perturb.attacks.base import PromptAttack


class AIFD(Method):
    """The sum over levels; with attacks of fewer levels, over those.

    attacks: by name; each adds one pass, and the passes of IFD, clean and direct, serve all of them. A level in which
    no attack found a prompt is left out and the sum scaled up by the levels left (ours), so that records stay
    comparable. first_token: `score` or `skip`, see `answer_losses`. max_aifd: a record whose AIFD per level is above it
    is not eligible (ours: the paper's IFD filter carried over); max_ifd: nor one whose clean IFD is. None keeps them.
    """

    def __init__(
        self,
        attacks: Mapping[str, PromptAttack],
        name: str,
        first_token: str,
        max_aifd: ForSelection[float | None],
        max_ifd: ForSelection[float | None],
    ) -> None:
        self.name, self.first_token = name, check_first_token(first_token)
        self.attacks = checked_attacks(attacks)
        self.max_aifd, self.max_ifd = max_aifd, max_ifd
        self.passes = {"conditioned": Likelihood("clean"), "direct": Likelihood("direct")} | {
            key: Likelihood("clean", attack) for key, attack in self.attacks.items()
        }
        self.filters = at_most("aifd_per_level", max_aifd, "aifd_per_level") + at_most("ifd", max_ifd, "ifd")

    def score(self, tables: dict[str, PassTable], records: Sequence[Record]) -> Scores:
        losses, tokens, reasons = answer_losses(tables, self.first_token, optional=self.attacks)
        direct = losses["direct"]
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios = {name: losses[name] / direct for name in self.attacks}
            ifd = losses["conditioned"] / direct
        per_level, levels = by_level(ratios, self.attacks)
        flag = first_reason(
            reasons,
            [ZERO_DENOMINATOR if loss == 0 else None for loss in direct],
            [NO_ATTACK if np.isnan(value) else None for value in per_level],
        )
        valid = np.array([reason is None for reason in flag], dtype=bool)
        numbers = {"aifd_per_level": per_level, "ifd": ifd} | {f"aifd_{level}": levels[level] for level in levels}
        return Scores(
            score=np.where(valid, len(levels) * per_level, np.nan),
            flag=flag,
            components={name: np.where(valid, values, np.nan) for name, values in numbers.items()}
            | {f"nll_{name}": losses[name] for name in self.attacks}
            | {
                "nll_conditioned": losses["conditioned"],
                "nll_direct": direct,
                "attacks_found": found(ratios),
                "answer_tokens": tokens,
                "prompt_tokens": tables["conditioned"].numbers("prompt_tokens"),
            },
            higher_is_better=True,
            descriptions=self._descriptions(levels),
        )

    def _descriptions(self, levels: Mapping[str, np.ndarray]) -> dict[str, str]:
        return (
            {
                "score": f"AIFD, the sum of s(A|Q_adv) / s(A) over {len(levels)} levels, the mean over attacks in each",
                "aifd_per_level": "the same as a mean over levels; 1 means that the attacked instruction does not help",
                "ifd": "s(A|Q) / s(A) of the prompt as it is, over the same answer tokens",
            }
            | {f"aifd_{level}": f"mean of s(A|Q_adv) / s(A) over the attacks on the {level} level" for level in levels}
            | {f"nll_{name}": f"s(A|Q_adv) under {name}, nats per token" for name in self.attacks}
            | {"attacks_found": f"attacks of {len(self.attacks)} that found a prompt whose answer could be scored"}
        )
