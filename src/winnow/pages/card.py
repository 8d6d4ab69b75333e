"""run_card.md from the content of run_card.json, and the formats of numbers and texts on all pages."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from winnow.store.differences import flatten

FOLD = 600  # characters of a text that stay open on the page
LONGEST = 8000  # characters of a text on the page: one record of 100,000 tokens must not swell it
JUDGED = {"win": "better", "loss": "worse", "tie": "tie"}  # verdict -> what pages call it


def show_number(value: Any) -> str:
    """A value for readers: floats with four significant digits, counts with thousands separators, None as a dash."""
    if value is None:
        return "–"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    text = f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
    return text.replace("-", "−", 1) if text.startswith("-") else text


def show_measure(value: float | None) -> str:
    """A measured value with four significant digits and trailing zeros, so that a column is aligned."""
    if value is None or not 1e-3 <= abs(value) < 1e4:
        return show_number(value)
    return f"{float(value):#.4g}".rstrip(".").replace("-", "−", 1)


def show_change(value: float) -> str:
    """A difference with its sign and two significant digits: an interval says no more."""
    return f"{value:+.2g}".replace("-", "−") if value else "0"


def show_seconds(seconds: float) -> str:
    """A duration: `0.4 s`, `38 s`, `2 min 05 s`, `3 h 12 min`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def ends(ranked: Sequence[Any], number: int) -> list[tuple[int, Any]]:
    """(place from 1, row) of the first ones, best first, then of the last ones of the rest, worst first."""
    numbered = list(enumerate(ranked, start=1))
    return numbered[:number] + numbered[number:][-number:][::-1]


def folded(text: str) -> dict[str, Any]:
    """The opening of a text, the rest that unfolds, and the number of characters left out."""
    text, length = text[:LONGEST], len(text)
    opening = text if len(text) <= FOLD else re.sub(r"(?<=\S)\s+\S*\Z", "", text[:FOLD])
    return {"open": opening, "rest": text[len(opening) :], "left_out": length - len(text)}


def change_lines(results: Mapping[str, Any]) -> list[str]:
    """A line for each metric of `results.json` that leads: base and tuned, the difference with its paired 95% interval,
    and what the test says; a metric without a test as it is."""
    models, lines = results.get("models", {}), []
    for key in results.get("headline", []):
        values = {name: model["metrics"][key] for name, model in models.items() if key in model["metrics"]}
        if not values:
            continue
        good = "high" if next(iter(values.values()))["higher_is_better"] else "low"
        line = f"  {key} ({good} is good): " + ", ".join(f"{name} {one['value']:.4f}" for name, one in values.items())
        if key in results.get("comparison", {}):
            one = results["comparison"][key]
            line += f", {one['difference']:+.4f} [{one['low']:+.4f}, {one['high']:+.4f}], {JUDGED[one['verdict']]}"
        lines.append(line)
    return lines


def _cell(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        value = ", ".join(map(str, value)) or "none"
    return _escaped(show_number(value))


def _escaped(text: str) -> str:
    """A text that Markdown shows as it is: file names may hold anything."""
    return re.sub(r"([\\`*\[\]<>|])", r"\\\1", " ".join(text.split()))


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]], right: Sequence[int] = ()) -> list[str]:
    rule = ["---:" if column in right else "---" for column in range(len(head))]
    lines = [head, rule, *([_cell(value) for value in row] for row in rows)]
    return ["| " + " | ".join(line) + " |" for line in lines]


def _fenced(text: str, language: str) -> list[str]:
    fence = "```"
    while fence in text:  # a setting may itself hold a fence
        fence += "`"
    return [fence + language, text.rstrip("\n"), fence]


def git_phrase(git: Mapping[str, Any]) -> str:
    """`0123456789ab`, `0123456789ab with uncommitted changes`, or `not in a git repository`."""
    if not git.get("commit"):
        return "not in a git repository"
    return git["commit"][:12] + (" with uncommitted changes" if git.get("dirty") else "")


def card_markdown(card: Mapping[str, Any]) -> str:
    """The Markdown page of a run card; `card` is the content of run_card.json."""
    lines = ["# Winnow run card", ""]
    state = {"finished": "Finished", "failed": "**Failed**", "interrupted": "**Interrupted**"}.get(
        card["status"], "Still running when written"
    )
    lines += [f"{state} after {show_seconds(card['seconds'])}; started {card['started']}.", ""]
    if card["error"]:
        lines += ["> **Error.** " + _escaped(card["error"]), ""]
    lines += [*_fenced(card["command"], "bash"), ""]
    if card["results"]:
        lines += ["## Results", "", *_table(("measure", "value"), list(flatten(card["results"])), right=(1,)), ""]
    if card["stages"]:
        rows = [
            (name, stage["status"], show_seconds(stage["seconds"]), stage["fingerprint"])
            for name, stage in card["stages"].items()
        ]
        lines += ["## Stages", "", *_table(("stage", "status", "time", "fingerprint"), rows, right=(2,)), ""]
    if card["price"]:
        names = ("pass", "forwards", "tokens", "TFLOP", "seconds")
        rows = [
            (one["pass"], round(one["forwards"]), round(one["tokens"]), one["flops"] / 1e12, one["seconds"])
            for one in [*card["price"]["passes"], {"pass": "all"} | card["price"]]
        ]
        lines += ["## Price of the selection", "", *_table(names, rows, right=(1, 2, 3, 4)), ""]
        if card["price"]["tuning_seconds"]:
            share = card["price"]["seconds"] / card["price"]["tuning_seconds"]
            lines += [f"{show_number(share)} times what tuning took.", ""]
    if card["data"]:
        lines += ["## Data", "", *_table(("", ""), list(flatten(card["data"]))), ""]
    machine = card["hardware"]
    provenance = [
        ("commit", git_phrase(card["git"])),
        ("processor", f"{machine['cpu']}, {machine['cores']} cores"),
        ("memory", f"{machine['memory_gib']} GiB"),
        ("GPUs", machine["gpus"]),
        ("system", machine["system"]),
    ]
    lines += ["## Code and machine", "", *_table(("", ""), provenance), ""]
    lines += ["## Packages", "", ", ".join(f"{name} {version}" for name, version in card["packages"].items()), ""]
    configuration = yaml.dump(card["config"], Dumper=yaml.CSafeDumper, sort_keys=False, allow_unicode=True)
    lines += ["## Configuration", "", *_fenced(configuration, "yaml")]
    return "\n".join(lines) + "\n"
