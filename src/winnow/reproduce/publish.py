"""Writing a table: CSV, Markdown, HTML and figures, from the run folders of a sweep."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping
from itertools import takewhile
from pathlib import Path
from typing import Any

from markupsafe import Markup
from omegaconf import OmegaConf

from winnow.config import CONF
from winnow.pages.files import render
from winnow.reproduce.collect import read_jobs
from winnow.reproduce.figures import draw
from winnow.reproduce.provenance import changes, commands, commits, stand_ins, unfinished
from winnow.reproduce.tables import COLUMNS, Cell, Row, Table, build, read_paper
from winnow.store.files import write_atomically

TABLES = Path(__file__).resolve().parents[3] / "experiments"
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
    printed = []
    if TABLES.is_dir():
        printed = read_paper(TABLES / settings["paper"] / settings["name"] / "paper.csv")
    else:
        print("The table leaves the paper's numbers out: they lie in experiments/ of Winnow's repository.")
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
    if page["rows"]:
        print(as_text(page))
    print(f"The table has {len(page['rows'])} of {len(table.rows)} rows measured: {folder / stem}.html, .md, .csv")
    if folder.resolve() == TABLES / table.paper / table.name:
        write_index()
    return folder / f"{stem}.html"


def as_text(page: Mapping[str, Any]) -> str:
    """The measured rows and columns of a table for a terminal, from its `content`: ours, with the paper's number in
    brackets."""
    metrics = page["metrics"][: page["n_measured"]]
    lines = [[*page["keys"], *(metric.replace("_", " ") for metric in metrics)]]
    for row in page["rows"]:
        cells = [
            f"{show_cell(cell)} ({show_printed(cell)})" if cell.paper else show_cell(cell) for cell in row["cells"]
        ]
        lines.append([*row["names"], *cells[: len(metrics)]])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    n = len(page["keys"])
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i < n else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def write_index() -> Path:
    """Write experiments/README.md: every table with what is measured of it; returns its path."""
    path = TABLES / "README.md"
    write_atomically(path, index())
    return path


def index() -> str:
    """All experiments, each with what it is, and with the rows that its tables in the repository have measured."""
    lines = [
        "# Tables",
        "",
        "Every table and figure, and what is measured of it. `winnow experiment=<name> scale=<scale>` runs one,",
        "`winnow table <name> scale=<scale>` writes it; [sweeps.md](../docs/sweeps.md) has the details. Numbers below",
        "`scale=paper` say that the code runs, and nothing about a paper. A new table writes this page, and so does",
        "`python -m winnow.reproduce.publish`.",
        "",
        "| table | what it is | measured |",
        "|---|---|---|",
    ]
    for file in sorted((CONF / "experiment").glob("*/*.yaml")):
        name = f"{file.parent.name}/{file.stem}"
        if "table" not in OmegaConf.load(file):
            continue
        comment = takewhile(lambda line: line.startswith("#"), file.read_text(encoding="utf-8").splitlines()[1:])
        about = re.split(r"\. |\.$", " ".join(line.lstrip("# ") for line in comment))[0]
        states = [_state(path) for path in sorted((TABLES / name).glob("results-*.csv"))]
        others = [path for path in sorted((TABLES / name).glob("*.md")) if not path.stem.startswith("results-")]
        states += [f"[{path.stem}]({name}/{path.name})" for path in others]  # of `winnow lds` and `winnow card`
        lines.append(f"| `{name}` | {about.replace('|', '/')} | {'; '.join(states) or 'not yet'} |")
    return "\n".join(lines) + "\n"


def _state(path: Path) -> str:
    """`11 of 14 rows at scale=smoke`, with a link, from the CSV file of a table."""
    rows: dict[tuple[str, ...], bool] = {}
    for line in csv.DictReader(path.open(encoding="utf-8")):
        key = tuple(line[column] for column in (*COLUMNS[:3], "setting", "ratio"))
        rows[key] = rows.get(key, False) or bool(line["ours"])
    scale = path.stem.removeprefix("results-")
    page = path.with_suffix(".md").relative_to(TABLES).as_posix()
    return f"[{sum(rows.values())} of {len(rows)} rows at scale={scale}]({page})"


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
                "difference": _plain(cell.difference if scale == "paper" else None),
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
    names = [_names(row) for row in table.rows]
    keys = dict.fromkeys([*COLUMNS, *(key for one in names for key in one)])
    varying = [key for key in keys if len({one.get(key) for one in names}) > 1]
    measured = [metric for metric in table.metrics if any(row.cell(metric).mean is not None for row in table.rows)]
    printed = [metric for metric in table.metrics if any(row.cell(metric).paper for row in table.rows)]
    metrics = [*measured, *(metric for metric in printed if metric not in measured)]
    command_lines = commands(finished, f"winnow experiment={table.paper}/{table.name} scale={scale}")
    rows = [
        {
            "names": [one.get(key, "") for key in varying],
            "cells": [row.cell(metric) for metric in metrics],
            "why": _why(row, settings["not_run"]),
            "measured": any(cell.mean is not None for cell in row.cells.values()),
        }
        for row, one in zip(table.rows, names, strict=True)
    ]
    return {
        "paper": table.paper,
        "name": table.name,
        "scale": scale,
        "constant": {key: names[0][key] for key in keys if names and key not in varying and names[0].get(key)},
        "keys": varying,
        "metrics": metrics,
        "compared": any(row.printed for row in table.rows),
        "n_measured": len(measured),
        "rows": [one for one in rows if one["measured"]],
        "absent": [one for one in rows if not one["measured"]],
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


def _names(row: Row) -> dict[str, str]:
    """The identity of a row, with the backbone that ran where a scale put another in place of the paper's."""
    jobs = [job for cell in row.cells.values() for job, _ in cell.runs]
    ran = dict.fromkeys(str(job.changes["backbone.name"][1]) for job in jobs if "backbone.name" in job.changes)
    if not ran or "backbone" not in row.identity:
        return row.identity
    names = ", ".join(name.rpartition(":")[2].rpartition("/")[2] for name in ran)
    return row.identity | {"backbone": f"{names} (for {row.identity['backbone']})"}


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


def _plain(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def show_cell(cell: Cell) -> str:
    """Ours with two decimals, or four digits below 1, and the spread over seeds. A difference between rows has its
    sign, its paired interval and verdict."""
    if cell.mean is None:
        return "missing" if cell.paper else "–"
    if cell.tested is not None:
        low, high, verdict = cell.tested
        digits = ".2f" if max(-low, high) >= 1 else ".2g"
        numbers = [f"{one:+{digits}}" for one in (cell.mean, low, high)]
        return f"{numbers[0]} [{numbers[1]}, {numbers[2]}] {verdict}".replace("-", "−")
    digits = "{:.2f}" if abs(cell.mean) >= 1 else "{:.4g}"
    return digits.format(cell.mean) + ("" if cell.std is None else f" ± {digits.format(cell.std)}")


def show_printed(cell: Cell) -> str:
    """The paper's number or range, with an asterisk where a footnote explains it."""
    values = sorted(set(cell.paper))
    words = [f"{value:.2f}" for value in (values if len(values) < 3 else (values[0], values[-1]))]
    return " to ".join(words) + ("*" if cell.doubtful or cell.corrected is not None else "")


def show_difference(cell: Cell) -> str:
    return "" if cell.difference is None else f"{cell.difference:+.2f}".replace("-", "−")


if __name__ == "__main__":
    print(write_index())
