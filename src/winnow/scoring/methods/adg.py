"""ADG, answer divergence: how differently a model answers the same instruction.

    score = 0.6 D + 0.4 I,    D = t / K,    I = 1 - l_1 / t

l_1 is the largest and t the sum of the eigenvalues of the centred Gram matrix of K answers' unit vectors: D says how
far the answers lie apart, I in how many directions. High is wanted. The whole formula: `gram_geometry`.
Source: "Instruction Data Selection via Answer Divergence" (ACL 2026, arXiv 2604.10448; code: WisdomShell/ADG).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.stats import rankdata

from winnow.data.records import Record
from winnow.errors import UserError, check_choice
from winnow.scoring.answers import write_answers
from winnow.scoring.passes.sampling import SampledAnswers
from winnow.scoring.protocols import Method
from winnow.scoring.runner import PassTable
from winnow.scoring.scores import Scores, first_reason
from winnow.store.describe import Free

NORMALISATIONS = ("none", "rank", "zscore")
TOO_FEW = "too_few_usable_answers"
NO_SPREAD = 1e-12  # a trace below it counts as none [code]


class AnswerDivergence(Method):
    """Dispersion and anisotropy of each record's first K sampled answers, and their weighted sum.

    answers: K. sampled: how many answers the pass draws, at least K; a sweep over K whose jobs all name the largest
    runs one pass, because the first K draws are the same whatever follows them. None: K.
    dispersion_weight, anisotropy_weight: 0.6 and 0.4 [code]. normalise: bring D and I to a common scale over the pool
    first; `none` [code], `rank` or `zscore` (ours): with realistic answers I is about ten times D.
    min_answers: fewer usable ones give no score (ours). Two answers lie on one line, so I is 0 whatever they say.
    tokens_per_batch: a number, or `auto`. The other arguments are those of `SampledAnswers`.
    """

    def __init__(
        self,
        name: str,
        answers: int,
        sampled: int | None,
        dispersion_weight: float,
        anisotropy_weight: float,
        normalise: str,
        min_answers: int,
        tokens_per_batch: Free[int | str],
        **sampling,
    ) -> None:
        drawn = answers if sampled is None else sampled
        if not 2 <= answers <= drawn:
            raise UserError(f"method.answers={answers} must be at least 2 and at most method.sampled={drawn}.")
        if not 2 <= min_answers <= answers:
            raise UserError(f"method.min_answers={min_answers} must be at least 2, at most method.answers={answers}.")
        check_choice("method.normalise", normalise, NORMALISATIONS)
        self.name, self.answers, self.min_answers, self.normalise = name, answers, min_answers, normalise
        self.dispersion_weight, self.anisotropy_weight = dispersion_weight, anisotropy_weight
        self.sampled, self.tokens_per_batch = drawn, tokens_per_batch
        sampling["tokens_per_batch"] = None if tokens_per_batch == "auto" else tokens_per_batch
        self.sampling = SampledAnswers(answers=drawn, **sampling)
        self.passes = {"answers": self.sampling}

    def score(self, tables: dict[str, PassTable], records: Sequence[Record]) -> Scores:
        table = tables["answers"]
        gram, usable = self._products(table)
        count = usable.sum(1)
        few = [TOO_FEW if own < self.min_answers else None for own in count]
        flag = first_reason(table.flags(), few)
        valid = np.array([reason is None for reason in flag], dtype=bool)
        dispersion, anisotropy = np.full(len(table), np.nan), np.full(len(table), np.nan)
        for own in np.unique(count[valid]):  # of a record's K answers those that are usable, whichever they are
            rows = np.flatnonzero(valid & (count == own))
            places = np.nonzero(usable[rows])[1].reshape(len(rows), own)
            part = gram[rows[:, None, None], places[:, :, None], places[:, None, :]]
            dispersion[rows], anisotropy[rows] = gram_geometry(part)
        scaled = [normalised(values, self.normalise) for values in (dispersion, anisotropy)]
        distinct, tokens, cut = _counts(table, usable)
        scored = np.where(valid, 1.0, np.nan)
        return Scores(
            score=self.dispersion_weight * scaled[0] + self.anisotropy_weight * scaled[1],
            flag=flag,
            components={
                "dispersion": dispersion,
                "anisotropy": anisotropy,
                "usable_answers": count * scored,
                "distinct_answers": distinct * scored,
                "answers_cut": cut * scored,
                "sampled_tokens": tokens * scored,
                "prompt_tokens": table.numbers("prompt_tokens"),
                "answer_tokens": table.numbers("answer_tokens"),
            },
            higher_is_better=True,
            descriptions={
                "score": f"{self.dispersion_weight:g} D + {self.anisotropy_weight:g} I of "
                + f"{self.answers} sampled answers"
                + ("" if self.normalise == "none" else f", D and I as {self.normalise} over the pool")
                + "; high is wanted",
                "dispersion": "D, how far the answers lie apart, 0 to (K-1)/K",
                "anisotropy": "I, in how many directions they spread, 0 to 1 - 1/(K-1)",
                "usable_answers": "answers with a text and a finite vector, of the K that were drawn",
                "distinct_answers": "different texts among them; 1: all the same, so that D and I are 0",
                "answers_cut": "usable answers that reached the length limit",
                "sampled_tokens": "tokens of the usable answers together",
                "answer_tokens": "tokens of the record's own answer before any cut",
            },
        )

    def write_outputs(self, tables: dict[str, PassTable], records: Sequence[Record], folder: Path) -> None:
        """`answers.parquet`: the sampled answers, to be read and for the report."""
        write_answers(folder, tables["answers"], records, self.answers)

    def _products(self, table: PassTable) -> tuple[np.ndarray, np.ndarray]:
        """The first K answers' Gram matrices (records, K, K) and which answers are usable (records, K); of a flagged
        record none is."""
        k, drawn = self.answers, self.sampled
        gram = table.matrix("gram", drawn**2).reshape(-1, drawn, drawn)
        return gram[:, :k, :k], table.matrix("usable", drawn)[:, :k] > 0


def _counts(table: PassTable, usable: np.ndarray) -> np.ndarray:
    """(3, records): different texts of the usable answers, their tokens, and how many of them were cut."""
    found = np.zeros((len(table), 3))
    columns = (table.column(name).to_pylist() for name in ("answers", "tokens", "finish"))
    for own, kept, texts, tokens, ends in zip(found, usable, *columns, strict=True):
        at = np.flatnonzero(kept)
        own[:] = len({texts[k] for k in at}), sum(tokens[k] for k in at), sum(ends[k] == "length" for k in at)
    return found.T


def gram_geometry(gram: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Dispersion D and anisotropy I of each record's K answer vectors, from their products.

        v_k <- v_k / |v_k|;   S = V V^T;   Sc = H S H,  H = Id - 1 1^T / K
        l_1 >= l_2 >= ... = eigenvalues of Sc, clipped at 0;   t = sum of them
        D = t / K        I = 1 - l_1 / t        both 0 where t < 1e-12

    Source: "Instruction Data Selection via Answer Divergence" (ACL 2026, arXiv 2604.10448) and its public code.
    t = K - |sum of v_k|^2 / K, so D is at most (K - 1) / K for vectors whose cosines do not sum below 0, as those of
    answers, and at most 1 for any. Sc has K - 1 eigenvalues that can be above 0, so I is at most 1 - 1 / (K - 1), and 0
    if all answers lie on one line.

    gram: (records, K, K), gram[r, i, j] = v_i . v_j, K >= 2, the diagonal above 0. Returns two (records,) arrays in
    fp64. Neither depends on the order of the answers, on a rotation of the space or on the lengths of the vectors.
    """
    g = np.asarray(gram, dtype=np.float64)
    count = g.shape[-1]
    length = np.sqrt(np.einsum("rkk->rk", g))
    cosines = g / (length[:, :, None] * length[:, None, :])
    centre = np.eye(count) - 1 / count
    values = np.clip(np.linalg.eigvalsh(centre @ cosines @ centre), 0, None)
    trace = values.sum(-1)
    spread = trace >= NO_SPREAD
    share = np.divide(values[:, -1], trace, out=np.ones_like(trace), where=spread)
    return np.where(spread, trace / count, 0.0), 1 - share


def normalised(values: np.ndarray, how: str) -> np.ndarray:
    """Values on a common scale over the pool (ours): NaN stays NaN and counts for nothing.

    none     as they are [code]
    rank     rank / (n - 1), from 0 for the smallest to 1 for the largest; equal values share their mean rank
    zscore   (value - mean) / standard deviation of the population; 0 where all are equal
    """
    own = values[~np.isnan(values)]
    if how == "none" or not len(own):
        return values
    if how == "rank":
        return (rankdata(values, nan_policy="omit") - 1) / max(len(own) - 1, 1)
    return (values - own.mean()) / (own.std() or 1.0)
