"""The report stage."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from winnow.data.records import Pool, Record
from winnow.errors import UserError
from winnow.pages.files import read_json
from winnow.pages.report import write_report
from winnow.stages.tune import Recipe, check_model, tuned_models
from winnow.store.describe import describe
from winnow.store.differences import difference_summary, differences

if TYPE_CHECKING:
    from winnow.evaluation.suite import Suite

CONTENT = ("lm_eval", "heldout", "mirror", "definitions")  # of a suite: no setting, and perhaps no longer there


def report(
    folder: Path,
    pool: Pool,
    recipe: Recipe | None,
    scores: Callable[[], Any] | None,
    subset: Callable[[], list[Record]] | None,
    suite: Suite | None,
) -> dict[str, Any]:
    """Write `report.html` from the files of the run folder. scores: reads those in the folder; subset: gives the
    records that the selection there must have taken; suite: what its evaluation must have asked; each None if this very
    run has made it. Raises UserError where an earlier run with other settings has made the files: the page and the run
    card would name these."""
    if scores is not None and (folder / "scores.parquet").exists():
        scores()
    results = read_json(folder / "results.json") if suite is not None else None
    if results and "settings" in results:
        changes = differences(results["settings"], describe(replace(suite, mirror=None)))
        changes = {key: change for key, change in changes.items() if key not in CONTENT}
        if "tuned" in results["models"] and recipe is None:
            changes["tuning"] = ("a tuned model", None)
        if changes:
            raise UserError(
                f"{folder / 'results.json'} is of another evaluation ({difference_summary(changes)}); run "
                f"stages=[evaluate,report] with this run folder, or set them back."
            )
    if subset is not None and (folder / "selection.json").exists():
        records = subset()
        if recipe is not None and (folder / "model").exists():
            made = tuned_models(folder)
            check_model(recipe, made["tuned"], made.get("start"), records)
    write_report(folder, pool.records)
    return {}
