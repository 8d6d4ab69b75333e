"""The report stage."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from winnow.data.records import Pool, Record
from winnow.pages.report import write_report
from winnow.stages.tune import Recipe, check_model, tuned_models


def report(
    folder: Path, pool: Pool, recipe: Recipe | None, subset: Callable[[], list[Record]] | None
) -> dict[str, Any]:
    """Write `report.html` from the files of the run folder. subset: gives the records that the selection in the folder
    must have taken; None if this very run has selected or tuned. Raises UserError where an earlier run with other
    settings has made the files: the page and the run card would name these."""
    if subset is not None and (folder / "selection.json").exists():
        records = subset()
        if recipe is not None and (folder / "model").exists():
            made = tuned_models(folder)
            check_model(recipe, made["tuned"], made.get("start"), records)
    write_report(folder, pool.records)
    return {}
