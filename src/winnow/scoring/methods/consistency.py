"""Noise-injection consistency: how little the model's predictions move when a record's words are blurred.

    score = 1/D sum over draws d of KL_d,   KL_d = 1/n sum over positions t of KL(P_t || Q_t,d)      eq. 3

P without and Q with noise e~_k = e_k + beta (mu + sigma eps_k) on the embeddings of instruction and input (eq. 1-2), in
nats, over the whole sequence. Low is wanted: a record that the model reads the same way through the noise. The paper
calls n the token length of the record, input and output; a templated sequence has more positions than that, so n is a
choice here.
Source: "Priority on High-Quality: Selecting Instruction Data via Consistency Verification of Noise Injection",
EMNLP 2025; no code was published.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from winnow.data.records import Record
from winnow.errors import UserError, check_choice
from winnow.scoring.passes.divergence import NoiseDivergence
from winnow.scoring.protocols import Method
from winnow.scoring.runner import PassTable
from winnow.scoring.scores import Scores, first_reason

LENGTHS = ("predictions", "record")
NON_FINITE = "non_finite_divergence"


class NoiseConsistency(Method):
    """The mean divergence over the draws, at one strength.

    beta: noise strength. average_over: n of eq. 3, `predictions`, the positions of the templated sequence that predict
    a token (ours); or `record`, the tokens of instruction, input and answer inside the window [paper]. family, draws,
    statistics, seed: see `NoiseDivergence`. betas: strengths to compute together; a sweep over beta that gives every
    job the same list runs one pass for all of them. None: beta alone.
    """

    def __init__(
        self,
        name: str,
        beta: float,
        family: str,
        draws: int,
        statistics: str,
        seed: int,
        betas: Sequence[float] | None,
        average_over: str,
    ) -> None:
        check_choice("method.average_over", average_over, LENGTHS)
        together = [beta] if betas is None else list(betas)
        if beta not in together:
            raise UserError(
                f"method.beta={beta} is not among method.betas={together}; add it, or set method.betas=null."
            )
        self.name, self.beta, self.average_over = name, float(beta), average_over
        noise = NoiseDivergence(tuple(together), family, draws, statistics, seed)
        self.betas, self.family, self.draws = noise.betas, family, draws
        self.statistics, self.seed = statistics, seed
        self.passes = {"noise": noise}

    @property
    def _unit(self) -> str:
        return "position" if self.average_over == "predictions" else "token of the record"

    def score(self, tables: dict[str, PassTable], records: Sequence[Record]) -> Scores:
        table = tables["noise"]
        draws = table.matrix(NoiseDivergence.column(self.beta), self.draws)
        if self.average_over == "record":
            n, prompt = table.numbers("tokens"), table.numbers("prompt_tokens")
            draws = draws * (n / (table.numbers("noised_tokens") + n + 1 - prompt))[:, None]
        with np.errstate(invalid="ignore"):  # an overflow is flagged below
            score, spread = draws.mean(1), draws.std(1)
        flag = first_reason(table.flags(), [None if np.isfinite(value) else NON_FINITE for value in score])
        valid = np.array([reason is None for reason in flag], dtype=bool)
        return Scores(
            score=np.where(valid, score, np.nan),
            flag=flag,
            components={
                "kl_draw_std": spread,
                "kl_answer": table.matrix(NoiseDivergence.column(self.beta, "answer"), self.draws).mean(1),
                "scored_tokens": table.numbers("tokens"),
                "noised_tokens": table.numbers("noised_tokens"),
                "prompt_tokens": table.numbers("prompt_tokens"),
                "answer_tokens": table.numbers("answer_tokens"),
            },
            higher_is_better=False,
            descriptions={
                "score": f"KL(P||Q) at beta {self.beta:g}, mean over draws, nats per {self._unit}; low is wanted",
                "kl_draw_std": f"standard deviation of the KL over the draws (population), nats per {self._unit}",
                "kl_answer": "the same KL over the positions that predict an answer token only, nats per position",
                "scored_tokens": "positions summed, all of the sequence but its last",
                "noised_tokens": "tokens of instruction and input, which the noise is put on",
                "answer_tokens": "answer tokens before any cut",
            },
        )
