"""Writing a table: CSV, Markdown, HTML and figures, from the run folders of a sweep."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from winnow.pages.files import render
from winnow.reproduce.collect import read_jobs
from winnow.reproduce.figures import draw
from winnow.reproduce.provenance import changes, commands, commits, stand_ins, unfinished
from winnow.reproduce.tables import COLUMNS, Cell, Row, Table, build, read_paper
from winnow.store.files import write_atomically

REPOSITORY = Path(__file__).resolve().parents[3]
CSV_COLUMNS = [
    "paper", "table", *COLUMNS[:3], "setting", "ratio", "metric", "printed", "expected", "ours", "std", "seeds",
    "difference", "n", "scale", "commit", "low", "high", "verdict",
]  # fmt: skip


def publish(settings: Mapping[str, Any], runs: Path, scale: str) -> Path:
    """Write `results-<scale>.csv`, `.md`, `.html` and `results-<scale>-<figure>.svg` of an experiment; returns the
    page's path. `paper.csv` holds the printed numbers; nothing writes to it.

    settings: the experiment's resolved `table`. runs: the sweep's folder.
    """
    stem = f"results-{scale}"
    folder = Path(settings["folder"]).expanduser()
    printed = read_paper(REPOSITORY / "experiments" / settings["paper"] / settings["name"] / "paper.csv")
    table = build(settings, printed, read_jobs(runs, settings, scale))
    page = content(table, settings, scale)
    filters = {"ours": show_cell, "printed": show_printed, "difference": show_difference}
    figures = {one["name"]: draw(table, one) for one in settings["figures"]}
    for name, svg in figures.items():
        write_atomically(folder / f"{stem}-{name}.svg", svg)
    write_atomically(folder / f"{stem}.csv", as_csv(table, scale))
    write_atomically(folder / f"{stem}.md", render("reproduce/table.md.j2", page, **filters))
    page["figures"] = [Markup(svg) for svg in figures.values()]
    write_atomically(folder / f"{stem}.html", render("reproduce/table.html.j2", page, **filters))
    measured = sum(any(cell.mean is not None for cell in row.cells.values()) for row in table.rows)
    print(f"The table has {measured} of {len(table.rows)} rows measured: {folder / stem}.html, .md, .csv")
    return folder / f"{stem}.html"


def as_csv(table: Table, scale: str) -> str:
    """One line for each cell, the paper's columns first. Missing numbers are empty."""
    out = io.StringIO()
    writer = csv.DictWriter(out, CSV_COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in table.rows:
        about = {key: row.identity.get(key, "") for key in COLUMNS}
        setting = ";".join(f"{key}={value}" for key, value in row.identity.items() if key not in COLUMNS)
        for metric in table.metrics:
            cell = row.cells.get(metric)
            if cell is None:
                continue
            cells = about | {
                "paper": table.paper,
                "table": table.name,
                "setting": setting,
                "metric": metric,
                "printed": " to ".join(f"{value:g}" for value in cell.paper),
                "expected": _plain(cell.expected),
                "ours": _plain(cell.mean),
                "std": _plain(cell.std),
                "seeds": len(cell.ours) or "",
                "difference": _plain(cell.difference),
                "n": " ".join(map(str, sorted(cell.n))),
                "scale": scale,
                "commit": " ".join(sorted(cell.commits)),
                "low": _plain(cell.tested and cell.tested[0]),
                "high": _plain(cell.tested and cell.tested[1]),
                "verdict": cell.tested[2] if cell.tested else "",
            }
            writer.writerow({key: inert(value) for key, value in cells.items()})
    return out.getvalue()


def inert(value: Any) -> Any:
    """A cell that no spreadsheet takes for a formula: a text that begins like one gets an apostrophe, numbers stay."""
    formula = isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r"))
    return f"'{value}" if formula and not re.fullmatch(r"[+-]?[\d.]+(e[+-]?\d+)?", value) else value


def content(table: Table, settings: Mapping[str, Any], scale: str) -> dict[str, Any]:
    """The values of the Markdown and the HTML template."""
    finished = [job for job in table.jobs if job.status == "finished"]
    settings_of_rows = dict.fromkeys(key for row in table.rows for key in row.identity if key not in COLUMNS)
    varying = [key for key in (*COLUMNS, *settings_of_rows) if len({row.identity.get(key) for row in table.rows}) > 1]
    metrics = [metric for metric in table.metrics if any(_has(row, metric) for row in table.rows)]
    command_lines = commands(finished, f"winnow experiment={table.paper}/{table.name} scale={scale}")
    return {
        "paper": table.paper,
        "name": table.name,
        "scale": scale,
        "constant": {
            key: table.rows[0].identity[key]
            for key in (*COLUMNS, *settings_of_rows)
            if table.rows and key not in varying and table.rows[0].identity.get(key)
        },
        "keys": varying,
        "metrics": metrics,
        "compared": any(row.printed for row in table.rows),
        "rows": [
            {
                "names": [row.identity.get(key, "") for key in varying],
                "cells": [row.cells.get(metric, Cell()) for metric in metrics],
                "printed": row.printed,
                "why": _why(row, settings["not_run"]),
                "measured": any(cell.mean is not None for cell in row.cells.values()),
            }
            for row in table.rows
        ],
        "reasons": _reasons(table.rows, settings["not_run"]),
        "footnotes": [*stand_ins(finished), *table.footnotes, *settings["notes"]],
        "failed": [{"job": job.folder.name, "error": unfinished(job)} for job in table.failed],
        "commits": commits(table.jobs),
        "commands": command_lines,
        "local_data": any("paths." in command for command in command_lines),
        "changes": changes(finished),
        "seeds": sorted({job.seed for job in finished}),
        "n_jobs": len(finished),
    }


def _why(row: Row, not_run: list[Mapping[str, Any]]) -> str | None:
    """The reason that `not_run` gives for a row of the paper; None without one."""
    for one in not_run:
        if all(row.identity.get(key) == str(value) for key, value in one["rows"].items()):
            return one["why"]
    return None


def _reasons(rows: list[Row], not_run: list[Mapping[str, Any]]) -> list[str]:
    """A sentence for each reason that applies to a row of the table: rows and reason."""
    reasons: dict[str, list[str]] = {}
    for one in not_run:
        if any(_why(row, [one]) for row in rows):
            reasons.setdefault(one["why"], []).append(", ".join(f"{key} {value}" for key, value in one["rows"].items()))
    return [f"{'; '.join(which)}: {why}." for why, which in reasons.items()]


def _has(row: Row, metric: str) -> bool:
    return metric in row.cells and (bool(row.cells[metric].paper) or row.cells[metric].mean is not None)


def _plain(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def show_cell(cell: Cell) -> str:
    """Ours with two decimals, or four digits below 1, and the spread over seeds. A difference between rows has its
    paired interval, and the word `tie` where it is one."""
    if cell.mean is None:
        return "missing" if cell.paper else "–"
    digits = "{:.2f}" if abs(cell.mean) >= 1 else "{:.4g}"
    spread = "" if cell.std is None else f" ± {digits.format(cell.std)}"
    if cell.tested is not None:
        low, high, verdict = cell.tested
        ends = f" [{low:.2f}, {high:.2f}]".replace("-", "−")
        return digits.format(cell.mean) + ends + (" tie" if verdict == "tie" else "")
    return digits.format(cell.mean) + spread


def show_printed(cell: Cell) -> str:
    """The paper's number or range, with an asterisk where a footnote explains it."""
    values = sorted(set(cell.paper))
    words = [f"{value:.2f}" for value in (values if len(values) < 3 else (values[0], values[-1]))]
    return " to ".join(words) + ("*" if cell.doubtful or cell.corrected is not None else "")


def show_difference(cell: Cell) -> str:
    return "" if cell.difference is None else f"{cell.difference:+.2f}".replace("-", "−")
