"""S-IFD: how much the prompt changes the answer's likelihood, over the tokens that it changes most.

    d_t = loss(y_t | x) - loss(y_t);   keep the tokens with |d_t| > the pool's (1 - k) quantile;   S-IFD = exp(mean d_t)

Source: T-SHIRT (NeurIPS 2025, arXiv 2506.01317; code: Dynamite321/T-SHIRT). Pure functions on arrays.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from winnow.errors import UserError
from winnow.scoring.runner import PassTable
from winnow.scoring.scores import NON_FINITE, NOTHING_TO_AVERAGE, first_reason

NO_INFORMATIVE_TOKEN = "no_informative_token"


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


def token_threshold(differences: Sequence[np.ndarray], kept: float) -> float:
    """The (1 - kept) quantile of |d| over all tokens, draws and records; NaN without a token."""
    together = np.concatenate([np.abs(one).ravel() for one in differences] or [np.empty(0)])
    return float(np.quantile(together, 1 - kept)) if together.size else np.nan


def selective_ifd(difference: np.ndarray, threshold: float) -> np.ndarray:
    """(draws,) S-IFD of one record, from d as (draws, tokens); NaN for a draw in which no token is kept."""
    kept = np.abs(difference) > threshold
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.exp((difference * kept).sum(1) / kept.sum(1))
