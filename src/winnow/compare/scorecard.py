"""What a method's score is like: `winnow card METHOD ...`, from finished runs, of which none needs to be tuned.

For each method and pool: how far its runs under another seed, template, precision or pool agree with the first one;
the rank correlation with the lengths of answer and prompt, and with the other methods; how well planted defects are
found. Agreement is over the records that two runs share:

    rho       Spearman correlation of the scores, turned so that high is wanted
    changed   share of the other run's subset, as far as the first run knows the records, that the first did not select
    overlap   share of the highest tenth under one score that is in the highest tenth under the other; 0.1 by chance
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from winnow.compare.runs import ComparedRun, read_runs, same_share
from winnow.errors import UserError
from winnow.pages.files import read_json, render
from winnow.pages.svg import rank_correlation
from winnow.reproduce.settings import SEED
from winnow.store.files import write_atomically, write_json
from winnow.tracking.names import text

SHARE = 0.1  # of the records: the top of a ranking
LENGTHS = {"answer_tokens": "answer length", "prompt_tokens": "prompt length"}
ASKED = re.compile(r"^(method|template|backbone|scorer|data|target|attack|pre_experience|selection)(\.|$)")


def scorecards(runs: Sequence[ComparedRun], methods: Collection[str] = ()) -> list[dict[str, Any]]:
    """A card for each method and pool. methods: those wanted; none means all. Raises UserError for a method that has no
    run with scores."""
    groups: dict[tuple[str, str], list[ComparedRun]] = {}
    for run in runs:
        if run.scores:
            groups.setdefault((run.pool, run.identity["method"]), []).append(run)
    known = sorted({method for _, method in groups})
    for method in methods:
        if method not in known:
            raise UserError(
                f"winnow card {method}: no finished run of it has scores; there are {', '.join(known) or 'none'}."
            )
    first = {key: _first(members) for key, members in groups.items()}
    cards = []
    for (pool, method), members in groups.items():
        if methods and method not in methods:
            continue
        own = first[pool, method]
        detection = read_json(own.folder / "detection.json")
        others = {name: one for (place, name), one in first.items() if place == pool and name != method}
        cards.append(
            {
                "method": method,
                "pool": pool,
                "records": len(own.scores),
                "agreement": _agreements(own, members),
                "lengths": _lengths(own, [run for key, some in groups.items() if key[0] == pool for run in some]),
                "others": {
                    name: {"rho": rho(own.scores, one.scores), "overlap": overlap(own.scores, one.scores)}
                    for name, one in others.items()
                },
                "defect_auc": detection and detection["overall"]["auc"],
            }
        )
    return cards


def rho(one: Mapping[str, float], other: Mapping[str, float]) -> float | None:
    """Spearman correlation over the records of both; None for fewer than three, or where a side has one value alone."""
    shared = sorted(one.keys() & other.keys())
    return rank_correlation(*([side[key] for key in shared] for side in (one, other)))


def overlap(one: Mapping[str, float], other: Mapping[str, float]) -> float | None:
    """Share of the highest tenth of the shared records under one score that is in that of the other; ties go by id.
    None for fewer than ten records."""
    shared = one.keys() & other.keys()
    count = int(SHARE * len(shared))
    tops = [set(sorted(shared, key=lambda key: (-side[key], key))[:count]) for side in (one, other)]
    return len(tops[0] & tops[1]) / count if count else None


def changed(one: frozenset[str], other: frozenset[str], known: Collection[str]) -> float | None:
    """Share of the other subset's records, as far as they are known to the first run, that its subset does not hold."""
    asked = other & frozenset(known)
    return len(asked - one) / len(asked) if asked and one else None


def _first(members: Sequence[ComparedRun]) -> ComparedRun:
    """The run that differs from the others in the fewest settings: what they vary is seen one by one. Of several, one
    with the most records: a part of a pool is seen from the whole."""

    def order(run: ComparedRun) -> tuple[int, int, int, str]:
        return sum(len(_differing(run, other)) for other in members), -len(run.scores), run.seed, run.name

    return min(members, key=order)


def _differing(one: ComparedRun, other: ComparedRun) -> dict[str, str]:
    """{key: the other's value} of what may change score or selection; of a group with another option, the option."""
    keys = [key for key in one.settings.keys() | other.settings.keys() if ASKED.match(key)]
    values = {}
    for key in sorted(keys):
        if one.settings.get(key) == other.settings.get(key):
            continue
        group = key.split(".")[0]
        if one.choices.get(group) != other.choices.get(group):
            values[group] = str(other.choices.get(group))
        elif SEED.search(key):
            values["seed"] = other.settings.get(key, text(None))
        else:
            values[key] = other.settings.get(key, text(None))
    return values


def _agreements(own: ComparedRun, members: Sequence[ComparedRun]) -> list[dict[str, Any]]:
    """What the other runs of a method differ in, and how far they agree. A run with another share has the scores of its
    twin with the same share, and another subset: it counts only where it has no twin, and then for its scores alone."""
    found: dict[str, dict[str, Any]] = {}
    for run in sorted(members, key=lambda run: not same_share(own, run)):
        what = _differing(own, run) or ({"seed": str(run.seed)} if own.seed != run.seed else {})
        differs, alike = ", ".join(f"{key}={value}" for key, value in what.items()), same_share(own, run)
        if run is not own and differs not in found and (differs or alike):
            found[differs] = {
                "differs": differs or "nothing",
                "rho": rho(own.scores, run.scores),
                "changed": changed(own.subset, run.subset, own.scores) if alike else None,
            }
    return list(found.values())


def _lengths(own: ComparedRun, runs: Sequence[ComparedRun]) -> dict[str, float | None]:
    """Of the own score table, or of the first other one on this pool that has the column."""
    correlations: dict[str, float | None] = {}
    for column, name in LENGTHS.items():
        for run in [own, *runs]:
            if column in pq.read_schema(run.folder / "scores.parquet").names:
                table = pq.read_table(run.folder / "scores.parquet", columns=["id", column]).to_pylist()
                correlations[name] = rho(
                    own.scores, {row["id"]: row[column] for row in table if row[column] is not None}
                )
                break
    return correlations


def write_scorecards(folders: Sequence[Path], methods: Collection[str], out: Path) -> str:
    """Write `scorecards.json`, `.md` and `.html` of the runs below the folders; returns the Markdown."""
    cards = scorecards(read_runs(*folders, tell=True), methods)
    if not cards:
        raise UserError(
            f"{', '.join(map(str, folders))}: no finished run with scores; name runs or the folder of a sweep."
        )
    write_json(out / "scorecards.json", cards)
    page = "\n\n".join(map(_page, cards)) + "\n"
    write_atomically(out / "scorecards.md", page)
    write_atomically(out / "scorecards.html", render("compare/scorecard.html.j2", {"cards": cards}))
    return page


def _page(card: Mapping[str, Any]) -> str:
    lines = [f"## {card['method']} on {card['pool']}", "", f"{card['records']:,} records have a score."]
    if card["defect_auc"] is not None:
        lines[-1] += f" Planted defects: AUC {card['defect_auc']:.3f}."
    rows = [[f"with {name}", value, None] for name, value in card["lengths"].items()]
    rows += [[f"again, {one['differs']}", one["rho"], one["changed"]] for one in card["agreement"]]
    lines += ["", "| the score | rho | selected records that change |", "|---|---:|---:|", *map(_row, rows)]
    others = [[name, one["rho"], one["overlap"]] for name, one in card["others"].items()]
    if others:
        lines += ["", "| other method | rho | overlap of the highest tenth |", "|---|---:|---:|", *map(_row, others)]
    return "\n".join(lines)


def _row(cells: Sequence[Any]) -> str:
    name, correlation, share = cells
    shown = ["–" if correlation is None else f"{correlation:+.3f}", "–" if share is None else f"{share:.1%}"]
    return f"| {name} | {' | '.join(shown)} |"
