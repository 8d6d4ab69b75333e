"""Which method beats which: paired tests over all items and seeds of the runs of a folder. Behind `winnow compare`.

Runs of one method with the same settings are one method, its seeds. Methods are compared on one backbone and pool; each
is tested against a reference of the same selected share, and each against each for the letters. p-values of a metric
are Holm's, over the methods that are tested against the reference, and over all pairs for the letters and the best.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

import jinja2

from winnow.compare.runs import Seen, read_runs
from winnow.errors import UserError
from winnow.evaluation.comparison import (
    LEVEL,
    Comparison,
    Measurement,
    compare_items,
    holm,
    letters,
    measurements,
    verdict,
)
from winnow.pages.card import show_measure, show_number
from winnow.store.files import write_atomically, write_json

BEST, BASE, RANDOM = "best", "base", "random"
WORDS = {"win": "▲ win", "tie": "tie", "loss": "▼ loss"}


def write_verdicts(folders: Sequence[Path], against: str | None, out: Path) -> dict[str, Any]:
    """Write `verdicts.html` and `verdicts.json` of all finished runs below the folders; returns the latter's content.

    against: `random`, `best`, `base` (the backbone), or a method; None is random where there is such a run, else best.
    Raises UserError where there is nothing to compare, and where runs were not asked the same items.
    """
    runs = [run for run in read_runs(*folders) if run.metrics]
    if not runs:
        named = ", ".join(map(str, folders))
        raise UserError(f"{named}: no finished run with an evaluation; name runs or the folder of a sweep.")
    told = verdicts(runs, against)
    write_json(out / "verdicts.json", told)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([Path(__file__).parent, Path(__file__).parents[1] / "pages"]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(measure=show_measure, number=show_number, verdict=WORDS.get)
    write_atomically(out / "verdicts.html", environment.get_template("verdicts.html.j2").render(told))
    return told


def verdicts(runs: Sequence[Seen], against: str | None = None) -> dict[str, Any]:
    """`against`, `level`, and `comparisons`: for each backbone, pool and metric the methods, best first, and all pairs;
    `untested`: metric -> why."""
    if against is None:
        against = RANDOM if any(run.identity["method"] == RANDOM for run in runs) else BEST
    arenas: dict[tuple[str, str], list[Seen]] = {}
    for run in runs:
        arenas.setdefault((run.backbone, run.pool), []).append(run)
    known = {run.identity["method"] for run in runs}
    if against not in (BEST, BASE) and not any(_controls(against, method) for method in known):
        raise UserError(f"--against {against}: no run of that method; choose best, base, {', '.join(sorted(known))}.")
    untested: dict[str, str] = {}
    comparisons = []
    for (backbone, pool), members in arenas.items():
        groups = _groups(members)
        items = {name: [_items(run, "tuned", untested) for run in group] for name, group in groups.items()}
        base = _items(members[0], BASE, untested) if against == BASE else {}
        for metric in dict.fromkeys(metric for run in members for metric in run.headline):
            sides = {
                name: [run[metric] for run in found]
                for name, found in items.items()
                if all(metric in run for run in found)
            }
            if not sides or (len(sides) < 2 and against != BASE):
                continue
            told = _standings(sides, groups, against, base.get(metric))
            comparisons.append({"backbone": backbone, "pool": pool, "metric": metric} | told)
    return {"against": against, "level": LEVEL, "comparisons": comparisons, "untested": untested}


def _controls(wanted: str, method: str) -> bool:
    """Whether a method is the wanted one, or a control of that kind: `length_matched(ifd)`."""
    return method == wanted or method.startswith(f"{wanted}(")


def _groups(runs: Sequence[Seen]) -> dict[str, list[Seen]]:
    """{method, settings and share: its runs, one for each seed}; of two of one seed the later one counts."""
    shares = len({run.share for run in runs if run.share}) > 1
    groups: dict[str, dict[int, Seen]] = {}
    for run in sorted(runs, key=lambda run: run.started):
        name = f"{run.label}, {run.share}" if shares and run.share else run.label
        groups.setdefault(name, {})[run.seed] = run
    return {name: [found[seed] for seed in sorted(found)] for name, found in groups.items()}


def _items(run: Seen, model: str, untested: dict[str, str]) -> dict[str, Measurement]:
    """The items of a run's tuned or base model; of the only one where there is one."""
    found, why = measurements(run.models.get(model) or next(iter(run.models.values())), run.averages)
    untested.update(why)
    return found


def _standings(
    sides: Mapping[str, Sequence[Measurement]],
    groups: Mapping[str, Sequence[Seen]],
    against: str,
    base: Measurement | None,
) -> dict[str, Any]:
    """The methods of one metric, best first, and all pairs of them."""
    high = next(iter(sides.values()))[0].higher_is_better
    values = {name: fmean(one.value for one in side) for name, side in sides.items()}
    names = sorted(sides, key=lambda name: (-values[name] if high else values[name], name))
    pairs = list(itertools.combinations(names, 2))
    found = {pair: compare_items(sides[pair[0]], sides[pair[1]]) for pair in pairs}
    adjusted = dict(zip(pairs, holm([found[pair].p for pair in pairs]), strict=True))
    different = {frozenset(pair) for pair in pairs if adjusted[pair] < LEVEL}
    marks = letters(names, different)
    tested: dict[str, tuple[str, Comparison, float]] = {}
    if against == BEST:
        for name in names[1:]:
            tested[name] = names[0], compare_items(sides[name], sides[names[0]]), adjusted[names[0], name]
    else:
        raw: dict[str, tuple[str, Comparison]] = {}
        for name in names:
            if against == BASE:
                if base is not None:  # the backbone is one model, whatever the seed
                    raw[name] = BASE, compare_items(sides[name], [base] * len(sides[name]))
                continue
            other = _reference(name, names, groups, against)
            if other is not None:
                raw[name] = other, compare_items(sides[name], sides[other])
        for (name, (other, one)), p in zip(raw.items(), holm([one.p for _, one in raw.values()]), strict=True):
            tested[name] = other, one, p
    standings = []
    for name in names:
        row = {
            "method": name,
            "value": values[name],
            "letters": marks[name],
            "seeds": [run.seed for run in groups[name]],
            "folders": [str(run.folder) for run in groups[name]],
            "against": None,
        }
        if name in tested:
            other, one, p = tested[name]
            row |= {"against": other} | asdict(one) | {"p": p, "verdict": verdict(one.difference, p, high)}
        standings.append(row)
    return {
        "higher_is_better": high,
        "items": len(next(iter(sides.values()))[0].keys),
        "standings": standings,
        "pairs": [
            {"first": x, "second": y}
            | asdict(found[x, y])
            | {"p": adjusted[x, y], "verdict": verdict(found[x, y].difference, adjusted[x, y], high)}
            for x, y in pairs
        ],
    }


def _reference(name: str, names: Sequence[str], groups: Mapping[str, Sequence[Seen]], against: str) -> str | None:
    """Whom a method is tested against: runs of the wanted method, or the method's own control of that kind, with the
    same share and otherwise the same words; else the only ones there are; None where that leaves a choice."""
    run = groups[name][0]
    method = run.identity["method"]
    wanted = [
        other
        for other in names
        if other != name and groups[other][0].identity["method"] in (against, f"{against}({method})")
    ]
    if _controls(against, method):
        return None

    def rest(one: Seen) -> dict[str, str]:
        return {key: value for key, value in one.identity.items() if key != "method"}

    same_share = [other for other in wanted if groups[other][0].share == run.share] or wanted
    alike = [other for other in same_share if rest(groups[other][0]) == rest(run)] or same_share
    return alike[0] if len(alike) == 1 else None


def told_lines(told: Mapping[str, Any]) -> list[str]:
    """What the command prints."""
    lines = []
    for one in told["comparisons"]:
        which = "higher" if one["higher_is_better"] else "lower"
        lines.append(f"{one['metric']} ({which} is better, {one['items']} items; {one['backbone']}, {one['pool']})")
        width = max(len(row["method"]) for row in one["standings"])
        for row in one["standings"]:
            text = f"  {row['letters']:<4} {row['method']:<{width}}  {row['value']:.4f}  {_seeds(row['seeds'])}"
            if row["against"] is not None:
                text += (
                    f"  {row['difference']:+.4f} [{row['low']:+.4f}, {row['high']:+.4f}] against {row['against']}: "
                    f"{row['verdict']} (p {row['p']:.2g})"
                )
            lines.append(text)
    lines += [f"Not tested: {metric} ({why})" for metric, why in told["untested"].items()]
    return lines


def _seeds(seeds: Sequence[int]) -> str:
    return f"{len(seeds)} seed{'s' if len(seeds) > 1 else ''}"


def marks_of_runs(runs: Sequence[Seen]) -> tuple[dict[tuple[str, str], dict[str, Any]], str | None, str | None]:
    """For the dashboard: ({(run folder, metric): its method's standing}, what it is tested against, why there is none).

    A run whose samples are gone, or that was asked other items, leaves the page without verdicts, which it then says.
    """
    evaluated = [run for run in runs if run.metrics]
    try:
        told = verdicts(evaluated) if evaluated else {"comparisons": [], "against": None}
    except UserError as error:
        return {}, None, str(error)
    marks = {
        (folder, one["metric"]): row
        for one in told["comparisons"]
        for row in one["standings"]
        for folder in row["folders"]
    }
    return marks, told["against"], None
