"""S-IFD: IFD as a ratio of perplexities, over the answer tokens that the prompt changes most.

    d_t = loss(y_t | x) - loss(y_t);   keep |d_t| > the pool's (1 - k) quantile;   S-IFD = exp(mean d_t over the kept)

High is wanted. Source: T-SHIRT (NeurIPS 2025, arXiv 2506.01317; code: Dynamite321/T-SHIRT).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from winnow.data.records import Record
from winnow.errors import UserError
from winnow.scoring.filters import at_most
from winnow.scoring.passes.likelihood import Likelihood
from winnow.scoring.protocols import Method
from winnow.scoring.runner import PassTable
from winnow.scoring.scores import NON_FINITE, NOTHING_TO_AVERAGE, Scores, first_reason
from winnow.store.describe import ForSelection

NO_INFORMATIVE_TOKEN = "no_informative_token"


class SelectiveIFD(Method):
    """kept: k, the share of the pool's answer tokens that is informative. max_ifd: records whose ratio of perplexities
    over all tokens is at least this are not eligible; None keeps them."""

    def __init__(self, name: str, kept: float, max_ifd: ForSelection[float | None]) -> None:
        self.name, self.kept, self.max_ifd = name, checked_share(kept), max_ifd
        self.passes = {"conditioned": Likelihood("clean"), "direct": Likelihood("direct")}
        self.filters = at_most("ifd", max_ifd, "ifd", open=True)

    def score(self, tables: dict[str, PassTable], records: Sequence[Record]) -> Scores:
        values, flag, differences, threshold = selective_ifd(tables, self.kept)
        return Scores(
            score=values[:, 0],
            flag=flag,
            components={
                "ifd": np.array([np.exp(one.mean()) if one.size else np.nan for one in differences]),
                "informative_tokens": np.array([(np.abs(one) > threshold).sum() or np.nan for one in differences]),
                "answer_tokens": np.array([one.shape[1] or np.nan for one in differences]),
                "prompt_tokens": tables["conditioned"].numbers("prompt_tokens"),
            },
            higher_is_better=True,
            descriptions={
                "score": f"exp(mean d_t) over the tokens with |d_t| above {threshold:.4g} nats; kept={self.kept:g}",
                "ifd": "exp(mean d_t) over all answer tokens, the ratio of perplexities",
                "informative_tokens": "answer tokens with |d_t| above the threshold",
            },
        )


def token_differences(
    conditioned: PassTable, direct: PassTable, draws: int = 1
) -> tuple[list[np.ndarray], list[str | None]]:
    """(d of each record as (draws, tokens) in nats, why a record has none).

    conditioned, direct: likelihood passes with `draws` losses of each token. A token counts if both texts have a loss
    of it: windows and the first token of a bare answer take some away from one of them.
    """
    reasons = first_reason(conditioned.flags(), direct.flags())
    sides = [
        (*table.ragged("nll"), np.nan_to_num(table.numbers("skipped")).astype(np.int64))
        for table in (conditioned, direct)
    ]
    found = [np.empty((draws, 0))] * len(reasons)
    for i in range(len(reasons)):
        if reasons[i] is not None:
            continue
        losses = [values[offsets[i] : offsets[i + 1]].reshape(draws, -1) for values, offsets, _ in sides]
        skipped = [own[i] for _, _, own in sides]
        first = max(skipped)
        stop = min(one.shape[1] + own for one, own in zip(losses, skipped, strict=True))
        if stop <= first:
            reasons[i] = NOTHING_TO_AVERAGE
            continue
        with_prompt, without = (one[:, first - own : stop - own] for one, own in zip(losses, skipped, strict=True))
        if np.isfinite(with_prompt).all() and np.isfinite(without).all():
            found[i] = with_prompt - without
        else:
            reasons[i] = NON_FINITE
    return found, reasons


def checked_share(kept: float) -> float:
    """`kept` itself; UserError if it is no share of the tokens."""
    if not 0 < kept <= 1:
        raise UserError(f"method.kept={kept} must be a share of the tokens, above 0 and at most 1.")
    return kept


def selective_ifd(
    tables: dict[str, PassTable], kept: float, draws: int = 1
) -> tuple[np.ndarray, list[str | None], list[np.ndarray], float]:
    """S-IFD as (records, draws), NaN for a draw in which no token is kept; why a record has none; d of each record as
    (draws, tokens) in nats; the (1 - kept) quantile of |d| over all tokens, draws and records."""
    differences, reasons = token_differences(tables["conditioned"], tables["direct"], draws)
    together = np.concatenate([np.abs(one).ravel() for one in differences] or [np.empty(0)])
    threshold = float(np.quantile(together, 1 - kept)) if together.size else np.nan
    values = np.full((len(differences), draws), np.nan)
    for own, one in zip(values, differences, strict=True):
        chosen = np.abs(one) > threshold
        with np.errstate(invalid="ignore", divide="ignore"):
            own[:] = np.exp((one * chosen).sum(1) / chosen.sum(1))
    silent = [NO_INFORMATIVE_TOKEN if np.isnan(own).all() else None for own in values]
    return values, first_reason(reasons, silent), differences, threshold
