"""Which method beats which: paired tests over all items and seeds of the runs of a folder, for `winnow compare`.

A method is the set of runs with the same method and settings; the runs are its seeds. Methods are compared on one
backbone and pool. Each is tested against a reference with the same selected share; the letters come from the tests of
all pairs. Holm's correction covers, for each metric, the tests against the reference, or all pairs for the letters and
for the best.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

from winnow.compare.runs import ROBUST, ComparedRun, read_runs, same_share
from winnow.errors import UserError
from winnow.evaluation.comparison import LEVEL, Measurement, compare_items, holm, letters, measurements, verdict
from winnow.pages.card import show_seconds
from winnow.pages.files import read_json, render
from winnow.reproduce.settings import differences, shorten
from winnow.scoring.price import marginal, price
from winnow.store.files import write_atomically, write_json

BEST, BASE, RANDOM = "best", "base", "random"
WORDS = {"win": "▲ win", "tie": "tie", "loss": "▼ loss"}
# Settings that a reference should share, and those of an evaluation of the backbone.
ALIKE = re.compile(r"(tuning|template|backbone|adversary|noising|start|evaluation)(\.|$)|selection\.budget$")
ASKED = re.compile(r"(backbone|template|evaluation)(\.|$)")


def write_verdicts(folders: Sequence[Path], against: str | None, out: Path) -> dict[str, Any]:
    """Write `verdicts.html` and `verdicts.json` of all finished runs below the folders; returns the latter's content.

    against: `random`, `best`, `base` (the backbone), or a method; None is random where there is such a run, else best.
    Raises UserError where no run is evaluated, and where the runs have different items.
    """
    runs = [run for run in read_runs(*folders, tell=True) if run.metrics]
    if not runs:
        named = ", ".join(map(str, folders))
        raise UserError(f"{named}: no finished run with an evaluation; name runs or the folder of a sweep.")
    summary = verdicts(runs, against)
    write_json(out / "verdicts.json", summary)
    write_atomically(out / "verdicts.html", render("compare/verdicts.html.j2", summary, verdict=WORDS.get))
    return summary


def verdicts(runs: Sequence[ComparedRun], against: str | None = None) -> dict[str, Any]:
    """The content of verdicts.json: `against`, `level`; `comparisons`, for each backbone, pool and metric the methods,
    best first, and all pairs; `untested`, metric -> reason."""
    if against is None:
        against = RANDOM if any(run.identity["method"] == RANDOM for run in runs) else BEST
    arenas: dict[tuple, list[ComparedRun]] = {}
    for run in runs:  # pools of one name may hold other records, and folders of one name other models
        place = (run.backbone, run.pool, run.fingerprint, run.settings.get("backbone.name"))
        arenas.setdefault(place, []).append(run)
    methods = {run.identity["method"] for run in runs}
    if against not in (BEST, BASE) and not any(_controls(against, method) for method in methods):
        raise UserError(f"--against {against}: no run of that method; choose best, base, {', '.join(sorted(methods))}.")
    untested: dict[str, str] = {}
    comparisons = []
    for (backbone, pool, *_), members in arenas.items():
        groups = seeds_by_method(members)
        items = {name: [run.measured[0] for run in group] for name, group in groups.items()}
        for run in itertools.chain(*groups.values()):
            untested |= run.measured[1]
        bases = {name: _base(group[0], members) for name, group in groups.items() if against == BASE}
        for _, why in bases.values():
            untested |= why
        for metric in dict.fromkeys(metric for run in members for metric in run.headline):
            sides = {
                name: [run[metric] for run in group]
                for name, group in items.items()
                if all(metric in run for run in group)
            }
            if not sides or (len(sides) < 2 and against != BASE):
                continue
            standings = _standings(
                sides, groups, against, {name: (own.get(metric), why.get(metric)) for name, (own, why) in bases.items()}
            )
            comparisons.append({"backbone": backbone, "pool": pool, "metric": metric} | standings)
    summary = {"against": against, "level": LEVEL, "comparisons": comparisons, "untested": untested}
    return summary | {"prices": [_prices(members) for members in arenas.values()]}


def _base(run: ComparedRun, members: Sequence[ComparedRun]) -> tuple[dict[str, Measurement], dict[str, str]]:
    """(items of the run's backbone, why a metric has none), from any run that asked the same backbone the same."""
    base: dict[str, Measurement] = {}
    why: dict[str, str] = {}
    own = {key: value for key, value in run.settings.items() if ASKED.match(key)}
    for one in members:
        same = own == {key: value for key, value in one.settings.items() if ASKED.match(key)}
        if same and one.base.keys() - base.keys() - why.keys():  # else its samples tell nothing new
            found, reasons = measurements(one.results["models"][BASE], one.averages)
            base, why = found | base, why | reasons
    return base, why


def _prices(runs: Sequence[ComparedRun]) -> dict[str, dict[str, Any]]:
    """{method: what the selection of one of its runs costs, by its run card or else the store, and `marginal`, what it
    adds where the passes of the others are there; None where the store no longer has all}, without methods of which
    neither knows the price. All shares of a method have the same price."""
    last = {run.label: run for run in sorted(runs, key=lambda run: run.started)}
    cards = {name: read_json(run.folder / "run_card.json") for name, run in last.items()}
    # A method's control, or its run with another tuning, spares it nothing.
    kinds = {name: re.sub(r"^\w+\((.+)\)$", r"\1", run.identity["method"]) for name, run in last.items()}
    added, prices = marginal(cards, kinds), {}
    for name, card in cards.items():
        one = card.get("price") or price(card)
        if one is not None:
            tuning = last[name].seconds.get("tune") or one["tuning_seconds"]
            prices[name] = one | {"marginal": added[name], "tuning_seconds": tuning}
    return prices


def _controls(wanted: str, method: str) -> bool:
    """Whether a method is `wanted`, or a control of that kind: `length_matched(ifd)`."""
    return method == wanted or method.startswith(f"{wanted}(")


def seeds_by_method(runs: Sequence[ComparedRun]) -> dict[str, list[ComparedRun]]:
    """{method, settings and share: its runs, one for each seed}. A later run replaces an earlier one of its seed,
    unless only the earlier one is evaluated."""
    shares = len({run.share for run in runs if run.share}) > 1
    groups: dict[str, dict[int, ComparedRun]] = {}
    for run in sorted(runs, key=lambda run: (bool(run.metrics), run.started)):
        name = f"{run.label}, {run.share}" if shares and run.share else run.label
        groups.setdefault(name, {})[run.seed] = run
    return {name: [seeds[seed] for seed in sorted(seeds)] for name, seeds in groups.items()}


def _standings(
    sides: Mapping[str, Sequence[Measurement]],
    groups: Mapping[str, Sequence[ComparedRun]],
    against: str,
    bases: Mapping[str, tuple[Measurement | None, str | None]],
) -> dict[str, Any]:
    """Standings and pairs of one metric, methods best first. bases: of each method's backbone, or why there is none."""
    high = next(iter(sides.values()))[0].higher_is_better
    values = {name: fmean(one.value for one in side) for name, side in sides.items()}
    names = sorted(sides, key=lambda name: (-values[name] if high else values[name], name))
    pairs = list(itertools.combinations(names, 2))
    compared = {pair: compare_items(sides[pair[0]], sides[pair[1]]) for pair in pairs}
    adjusted = dict(zip(pairs, holm([compared[pair].p for pair in pairs]), strict=True))
    marks = letters(names, {frozenset(pair) for pair in pairs if adjusted[pair] < LEVEL})
    candidates = {name: _references(name, names, groups, against) for name in names}
    references = {name: found[0] if len(found) == 1 else None for name, found in candidates.items()}
    tested = {
        # The backbone is one model, for every seed.
        name: compare_items(sides[name], sides[other] if other != BASE else [bases[name][0]] * len(sides[name]))
        for name, other in references.items()
        if other is not None and (other != BASE or bases[name][0] is not None)
    }
    if against == BEST:
        p_values = {name: adjusted[names[0], name] for name in tested}
    else:
        p_values = dict(zip(tested, holm([one.p for one in tested.values()]), strict=True))
    standings = []
    for name in names:
        row = {
            "method": name,
            "value": values[name],
            "letters": marks[name],
            "seeds": [run.seed for run in groups[name]],
            "folders": [str(run.folder) for run in groups[name]],
            "against": None,
            "no_verdict": None,
        }
        if name in tested:
            one, p = tested[name], p_values[name]
            told = references[name]
            told += "" if told == BASE else _unlike(groups[name][0], groups[told][0])
            row |= {"against": told} | asdict(one) | {"p": p, "verdict": verdict(one.difference, p, high)}
        elif against == BASE:
            row["no_verdict"] = bases[name][1] or "no run has this metric of the backbone"
        elif len(candidates[name]) > 1:
            row["no_verdict"] = f"its reference may be {' or '.join(candidates[name])}"
        elif not candidates[name] and name not in references.values():
            own = _controls(against, groups[name][0].identity["method"])
            why = "is the reference's own method; name another with --against"
            row["no_verdict"] = f"{against} {why if own else 'has no run for this method at this share'}"
        standings.append(row)
    return {
        "higher_is_better": high,
        "items": len(next(iter(sides.values()))[0].keys),
        "standings": standings,
        "pairs": [
            {"first": x, "second": y}
            | asdict(compared[x, y])
            | {"p": adjusted[x, y], "verdict": verdict(compared[x, y].difference, adjusted[x, y], high)}
            for x, y in pairs
        ],
    }


def _references(
    name: str, names: Sequence[str], groups: Mapping[str, Sequence[ComparedRun]], against: str
) -> list[str]:
    """What a method can be tested against: the best method, the backbone, or groups of the reference method or of the
    method's own control of that kind; for the reference method with an adversary or noising, the same without. They
    have the same share, or one side has none (all data). Those with the same identity go before others, then those
    whose settings are the method's own, of the settings in which they differ (sweeps over a learning rate). Empty for
    the reference itself; only where one is left is there a test."""
    if against == BASE:
        return [BASE]
    if against == BEST:
        return names[:1] if name != names[0] else []
    run = groups[name][0]
    method = run.identity["method"]
    found = {other: groups[other][0] for other in names}
    if _controls(against, method):
        plain = {key: value for key, value in run.identity.items() if key not in ROBUST}
        found = {other: one for other, one in found.items() if one.identity == plain != run.identity}
    else:
        wanted = (against, f"{against}({method})")
        found = {other: one for other, one in found.items() if one.identity["method"] in wanted}

    def rest(one: ComparedRun) -> dict[str, str]:
        return {key: value for key, value in one.identity.items() if key != "method"}

    same = {other: one for other, one in found.items() if one.share == run.share}
    same = same or {other: one for other, one in found.items() if same_share(one, run)}
    found = same or {other: one for other, one in found.items() if not (one.share and run.share)}
    found = {other: one for other, one in found.items() if rest(one) == rest(run)} or found
    own, *settings = differences([run, *found.values()])
    differing = [key for key in own if len({one[key] for one in settings}) > 1]
    alike = zip(found, settings, strict=True)
    return [other for other, one in alike if all(one[key] == own[key] for key in differing)] or list(found)


def _unlike(run: ComparedRun, reference: ComparedRun) -> str:
    """` (tuning.learning_rate=1e-05)`: how the reference was tuned where a method was not, and its label lacks it."""
    settings = {key: shorten(value) for key, value in differences([run, reference])[1].items() if ALIKE.match(key)}
    told = [f"{key}={value}" for key, value in settings.items() if f"{key}=" not in reference.label]
    return f" ({', '.join(told)})" if told else ""


def summary_lines(summary: Mapping[str, Any]) -> list[str]:
    """The lines that the command prints."""
    lines = []
    for one in summary["comparisons"]:
        which = "higher" if one["higher_is_better"] else "lower"
        lines.append(f"{one['metric']} ({which} is better, {one['items']} items; {one['backbone']}, {one['pool']})")
        width = max(len(row["method"]) for row in one["standings"])
        for row in one["standings"]:
            seeds = f"{len(row['seeds'])} seed{'s' * (len(row['seeds']) > 1)}"
            text = f"  {row['letters']:<4} {row['method']:<{width}}  {row['value']:.4f}  {seeds}"
            if row["against"] is not None:
                text += (
                    f"  {row['difference']:+.4f} [{row['low']:+.4f}, {row['high']:+.4f}] against {row['against']}: "
                    f"{row['verdict']} (p {row['p']:.2g})"
                )
            if row["no_verdict"]:
                text += f"  no verdict: {row['no_verdict']}"
            lines.append(text)
        if any(max(row.get("runs", [0])) == 2 for row in one["standings"]):
            lines.append("  two seeds: 3 to 7% false alarms in place of 5%, against a single model up to 13%")
    for arena in summary["prices"]:
        for name, one in arena.items():
            tuning, added = one["tuning_seconds"], one["marginal"]
            lines.append(
                f"Price of {name}: {one['forwards']:,.0f} forwards, {one['flops'] / 1e12:,.1f} TFLOP, "
                f"{show_seconds(one['seconds'])}"
                + (f", of which its own {show_seconds(added['seconds'])}" if added else "")
                + (f"; {one['seconds'] / tuning:.1f} times a tuning" if tuning else "")
            )
    lines += [f"Not tested: {metric} ({why})" for metric, why in summary["untested"].items()]
    return lines


def marks_of_runs(runs: Sequence[ComparedRun]) -> tuple[dict[tuple[str, str], dict[str, Any]], str | None, str | None]:
    """For the dashboard: ({(run folder, metric): standing of its method}, the reference, the reason for no verdict).

    One run without samples, or with other items, leaves the page without verdicts; the page says why.
    """
    evaluated = [run for run in runs if run.metrics]
    try:
        summary = verdicts(evaluated) if evaluated else {"comparisons": [], "against": None}
    except UserError as error:
        return {}, None, str(error)
    marks = {
        (folder, one["metric"]): row
        for one in summary["comparisons"]
        for row in one["standings"]
        for folder in row["folders"]
    }
    return marks, summary["against"], None
