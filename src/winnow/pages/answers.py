"""The report's section on the sampled answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from markupsafe import Markup

from winnow.errors import UserError
from winnow.pages.card import ends, folded, show_measure
from winnow.pages.svg import BLUE, GREY, RED, legend, message, new_figure, rank_correlation, scatter, to_svg

SHOWN = 5  # records at each end


def answers_section(
    path: Path, rows: Sequence[Mapping[str, Any]] | None, chosen: Mapping[int, bool] | None
) -> dict[str, Any] | None:
    """The section's values; None without answers.parquet or without the score table of `adg`.

    rows: those of scores.parquet. chosen: whether the record of a row is selected; None before selection. Raises
    UserError if the file cannot be read.
    """
    if not path.is_file() or not rows or "dispersion" not in rows[0]:
        return None
    scored = sorted((row for row in rows if row["score"] is not None), key=lambda row: (-row["score"], row["row"]))
    shown = ends(scored, SHOWN)
    answers = _answers_of(path, [row["id"] for _, row in shown])
    most_usable = max((row["usable_answers"] for row in scored), default=0)
    cards = [_card(place, row, answers.get(row["id"], [])) for place, row in shown]
    values = {name: [row[name] for row in scored] for name in ("dispersion", "anisotropy", "score")}
    return {
        "most": cards[:SHOWN],
        "least": cards[SHOWN:],
        "n": len(scored),
        "fewer": sum(row["usable_answers"] < most_usable for row in scored),
        "same": sum(row["distinct_answers"] == 1 for row in scored),
        "follows": {name: rank_correlation(values[name], values["score"]) for name in ("dispersion", "anisotropy")},
        "plane": Markup(
            divergence_plane(
                values["dispersion"],
                values["anisotropy"],
                None if chosen is None else [chosen.get(row["row"], False) for row in scored],
            )
        ),
    }


def divergence_plane(
    dispersion: Sequence[float], anisotropy: Sequence[float], selected: Sequence[bool] | None = None
) -> str:
    """Every record at (D, I): selected records in blue, records with equal answers as a red cross at (0, 0)."""
    title = "Dispersion against anisotropy"
    x, y = np.array(dispersion, dtype=float), np.array(anisotropy, dtype=float)
    if not len(x):
        return message(title, "No record has a score.")
    same = (x == 0) & (y == 0)
    chosen = np.zeros(len(x), bool) if selected is None else np.array(selected, dtype=bool)
    others = "scored" if selected is None else "not selected"
    groups = [(~chosen & ~same, GREY, others), (chosen & ~same, BLUE, "selected")]
    with new_figure(4.4) as (figure, axes):
        scatter(axes, x, y, groups, [10 if len(x) > 1000 else 22] * 2)
        if same.any():
            label = f"all answers the same ({same.sum():,})"
            axes.plot([0], [0], "x", color=RED, markersize=7, clip_on=False, label=label, linestyle="none")
        axes.set(xlabel="dispersion D: how far apart", ylabel="anisotropy I: in how many directions")
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
        legend(axes)
        return to_svg(figure, title)


def _answers_of(path: Path, ids: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """The rows of the records by id, in the order of the draws; copies of a record share theirs."""
    try:
        table = pq.read_table(path, filters=[("id", "in", sorted(set(ids)))] if ids else None)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UserError(f"{path}: cannot be read ({error}); delete it and run the score stage again.") from error
    answers: dict[str, dict[int, dict[str, Any]]] = {}
    for row in table.to_pylist():
        answers.setdefault(row["id"], {})[row["draw"]] = row
    return {record: [draws[draw] for draw in sorted(draws)] for record, draws in answers.items()}


def _card(place: int, row: Mapping[str, Any], answers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    prompt = [(name, folded(answers[0][name])) for name in ("instruction", "input") if answers and answers[0][name]]
    return {
        "place": place,
        "row": row["row"],
        "id": row["id"],
        "score": row["score"],
        "decision": None,
        "badges": [f"D {show_measure(row['dispersion'])}", f"I {show_measure(row['anisotropy'])}"],
        "parts": prompt + [(f"answer {_label(one)}", folded(one["answer"].strip())) for one in answers],
        "defect": None,
        "components": [],
    }


def _label(answer: Mapping[str, Any]) -> str:
    """The label of an answer: its number, and whether it repeats another, was cut or is not usable."""
    if answer["same_as"] is not None:
        return f"{answer['draw'] + 1}, as {answer['same_as'] + 1}"
    remark = "" if answer["usable"] else ", not usable"
    return f"{answer['draw'] + 1}{', cut' if answer['finish'] == 'length' else ''}{remark}"
