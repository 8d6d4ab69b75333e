"""What the files of a run folder were made with, so that a later stage never takes another configuration's for its own.

The scores' metadata and `selection.json` hold it, a tuned model has it beside it in the store. Records are compared
elsewhere, by their ids.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from winnow.errors import UserError
from winnow.pages.card import flatten
from winnow.store.describe import describe
from winnow.store.files import read_json

if TYPE_CHECKING:
    from winnow.pipeline import Run

TOLD = 3  # differences that a sentence names
OF_SCORES = ("method", "pre_experience", "passes")

Differences = dict[str, tuple[Any, Any]]


def scored_with(run: Run) -> dict[str, Any]:
    """All that the scores depend on besides the records: nothing is computed for it."""
    passes = run.method.passes
    return {
        "method": describe(run.method),
        "pre_experience": describe(run.pre_experience) if passes else None,
        "passes": {name: run.scorer.made_with(pass_, run.scoring_template) for name, pass_ in passes.items()},
    }


def selected_with(run: Run) -> dict[str, Any]:
    """All that the subset depends on besides the records."""
    rule = describe(run.selection)
    unasked = ("ratio", "count", "order") if run.method.takes_all else ()
    passes = run.selection.passes
    return scored_with(run) | {
        "selection": {key: value for key, value in rule.items() if key not in unasked},
        "filters": describe(run.method.filters),
        "keep_duplicates": run.pool.keep_duplicates,
        "vectors": {name: run.scorer.made_with(pass_, run.template) for name, pass_ in passes.items()},
    }


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> Differences:
    """Dotted key -> (value then, value now), where the two differ; an absent value counts as None."""
    flat = [dict(flatten(json.loads(json.dumps(tree)))) for tree in (then, now)]
    return {
        key: (flat[0].get(key), flat[1].get(key))
        for key in dict.fromkeys([*flat[1], *flat[0]])
        if flat[0].get(key) != flat[1].get(key)
    }


def told(found: Differences) -> str:
    """The first differences, for a sentence."""
    named = [f"{key}: {_short(then)} there, {_short(now)} here" for key, (then, now) in found.items()]
    more = len(named) - TOLD
    return "; ".join(named[:TOLD]) + (f"; and {more} more" if more > 0 else "")


def read_selection(run: Run, file: Path) -> dict[str, Any]:
    """The content of `selection.json`. Raises UserError if it is broken, or tells of another configuration."""
    again = "run stages=[select,tune] again with this run folder"
    manifest = read_json(file, "decisions", "made_with", cure=again)
    found = differences(manifest["made_with"], selected_with(run))
    if found:
        scores = any(key.partition(".")[0] in OF_SCORES for key in found)
        stages = "score,select,tune" if scores else "select,tune"
        raise UserError(
            f"{file} was made with other settings ({told(found)}); run stages=[{stages}] again with this run folder, "
            f"or set them back."
        )
    return manifest


def _short(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
