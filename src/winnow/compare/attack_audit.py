"""`winnow audit RUN`: what the attacks of a run did to its prompts, by measure and by a person's ratings.

A prompt that no longer asks for the same thing says nothing about robustness, and the sentence encoder that the attacks
are limited by does not always notice. So a sheet of prompts goes to a person, and its ratings stand beside the
measures. The sheet, its scale and the correlations are ours.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from winnow import draws
from winnow.errors import UserError
from winnow.pages.files import sound
from winnow.pages.svg import rank_correlation
from winnow.reproduce.publish import inert
from winnow.store.files import write_atomically, write_json

PROMPTS = 100  # of each attack on the sheet
MEASURES = ("similarity", "edit_distance", "words_changed")
RATINGS = range(1, 6)  # 5: asks for the same and reads well; 1: asks for something else, or for nothing
COLUMNS = ("attack", "row", "id", "instruction", "prompt", *MEASURES, "aifd", "rating")
SHEET = "audit.csv"


def write_audit(run: Path, ratings: Path | None = None) -> str:
    """Write `audit.json`, and `audit.csv` where there is none yet; the lines to print.

    audit.csv: at most `PROMPTS` prompts of each attack, drawn by record, with an empty column `rating`. ratings: such a
    sheet, filled. Raises UserError for a run without attacks, and for a rating that is none.
    """
    prompts = _prompts(run)
    rated = {} if ratings is None else _ratings(ratings, {_key(one): one for one in prompts})
    attacks = list(dict.fromkeys(one["attack"] for one in prompts))
    found = {name: _summary([one for one in prompts if one["attack"] == name], rated) for name in attacks}
    write_json(run / "audit.json", {"attacks": found, "ratings": None if ratings is None else str(ratings)})
    lines = _lines(found)
    if ratings is None and (run / SHEET).exists():
        lines.append(f"{run / SHEET} stays as it is; delete it for a new one.")
    elif ratings is None:
        write_atomically(run / SHEET, _sheet(prompts, attacks))
        lines.append(
            f"Rate the prompts in {run / SHEET}, column rating, from 1 (asks for something else) to 5 (asks for the "
            f"same and reads well), then: winnow audit {run} --ratings {run / SHEET}"
        )
    return "\n".join(lines)


def _prompts(run: Path) -> list[dict[str, Any]]:
    """The attacked prompts of a run. aifd: the attack's term of AIFD, s(A|Q_a) / s(A); None for a run of another
    method."""
    if not (run / "attacks.parquet").is_file():
        raise UserError(f"{run} has no attacks.parquet; name the folder of a run with method=aifd or aioec.")
    scores = {one["id"]: one for one in pq.read_table(sound(run / "scores.parquet")).to_pylist()}
    rows = []
    for one in pq.read_table(run / "attacks.parquet").to_pylist():
        own = scores[one["id"]]
        attacked, direct = own.get(f"nll_{one['attack']}"), own.get("nll_direct")
        rows.append(one | {"aifd": attacked / direct if attacked is not None and direct else None})
    return rows


def _key(row: Mapping[str, Any]) -> tuple[str, str]:
    """(attack, row of the pool), of a prompt or a line of the sheet."""
    return row["attack"], str(row["row"])


def _summary(prompts: Sequence[Mapping[str, Any]], rated: Mapping[tuple[str, str], int]) -> dict[str, Any]:
    """Means over the prompts of one attack, and Spearman's rank correlation of each measure with the attack's term of
    AIFD; with ratings, of these too."""
    there = [one for one in prompts if one["success"]]
    own = [(one, rated[_key(one)]) for one in there if _key(one) in rated]
    values = [rating for _, rating in own]
    summary = {"prompts": len(there), "records": len(prompts)}
    summary |= {measure: _mean([one[measure] for one in there]) for measure in MEASURES}
    summary["aifd"] = _mean([one["aifd"] for one in there if one["aifd"] is not None])
    summary |= {
        f"{measure}_with_aifd": rank_correlation([one[measure] for one in there], [one["aifd"] for one in there])
        for measure in MEASURES
    }
    if rated:
        summary |= {"rated": len(own), "rating": _mean(values), "rated_4_or_5": _mean([one >= 4 for one in values])}
        for measure in ("similarity", "aifd"):
            summary[f"rating_with_{measure}"] = rank_correlation([one[measure] for one, _ in own], values)
    return summary


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _sheet(prompts: Sequence[Mapping[str, Any]], attacks: Sequence[str]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for name in attacks:
        own = [one for one in prompts if one["attack"] == name and one["success"]]
        for one in sorted(own, key=lambda one: draws.key("audit", name, one["id"]))[:PROMPTS]:
            writer.writerow([inert("" if one.get(key) is None else one[key]) for key in COLUMNS[:-1]] + [""])
    return out.getvalue()


def _ratings(file: Path, known: Mapping[tuple[str, str], Mapping[str, Any]]) -> dict[tuple[str, str], int]:
    """{(attack, row): rating} of the rows that are rated. known: (attack, row) -> the prompt. An id is compared where
    it has 16 hex digits with a letter: a spreadsheet may have made a number of any other."""
    try:
        rows = list(csv.DictReader(io.StringIO(file.read_text(encoding="utf-8-sig"), newline="")))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file} cannot be read ({error}); give the filled {SHEET} as a CSV file in UTF-8.") from None
    rated = {}
    for number, row in enumerate(rows, 1):
        if not {"attack", "row", "id", "rating"} <= row.keys():
            raise UserError(
                f"{file} lacks a column attack, row, id or rating; fill the sheet that `winnow audit` writes."
            )
        mark, key, own = (row["rating"] or "").strip(), _key(row), row["id"] or ""
        if not mark:
            continue
        if mark not in map(str, RATINGS):
            raise UserError(f"{file}, prompt {number}: rating {mark!r} was found, 1 to 5 or nothing was expected.")
        if key not in known or (re.fullmatch("(?=.*[a-f])[0-9a-f]{16}", own) and own != known[key]["id"]):
            raise UserError(f"{file}, prompt {number}: {key[0]} of row {key[1]}, {own}, is no prompt of this run.")
        if row.get("prompt") and row["prompt"].split() != inert(known[key]["prompt"] or "").split():
            raise UserError(
                f"{file}, prompt {number}: the run has another prompt of {key[0]} for row {key[1]} now; delete "
                f"{SHEET} in the run's folder, and rate a new one."
            )
        rated[key] = int(mark)
    if not rated:
        raise UserError(f"{file} holds no rating; write 1 to 5 into its column rating.")
    return rated


def _lines(found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A Markdown table: one line for each attack."""
    keys = list(dict.fromkeys(key for one in found.values() for key in one))
    lines = [f"| attack | {' | '.join(key.replace('_', ' ') for key in keys)} |", "|---" * (len(keys) + 1) + "|"]
    for name, one in found.items():
        cells = ["–" if one[key] is None else f"{one[key]:.2f}".removesuffix(".00") for key in keys]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines
