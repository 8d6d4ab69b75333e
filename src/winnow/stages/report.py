"""The report stage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from winnow.data.records import Pool
from winnow.pages.report import write_report


def report(folder: Path, pool: Pool) -> dict[str, Any]:
    """Write `report.html` from the files of the run folder."""
    write_report(folder, pool.records)
    return {}
