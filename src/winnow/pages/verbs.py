"""What the instructions of pool and subset ask for: their verbs and objects, as in the consistency paper's Figure 6.

The paper took them from a parser. Here a rule reads an instruction that is a command (ours):

    verb     its first word, behind `please` or `can you`; none if this is a question word, an auxiliary, an article, a
             pronoun or a preposition
    object   the last word before the first preposition, conjunction, relative word or mark, behind the verb

`Write a short story about a dog.` gives write, story. An instruction without both is not counted.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.ticker import FuncFormatter

from winnow.data.records import Record
from winnow.pages.svg import BLUE, GREY, legend, message, new_figure, to_svg

SHOWN = 20  # pairs in the plot
_POLITE = re.compile(r"^(?:(?:please|kindly|(?:can|could|would|will) you)[ ,]+)+", re.I)
_NOT_A_VERB = """
what which who whom whose when where why how is are am was were do does did has have had can could will would shall
should may might must a an the this that these those my your his her its our their i you he she it we they in on at of
for from to with by as if given there here not no yes
"""
_AFTER_THE_OBJECT = """
about above across after against along among and around as at based because before below behind between but by
describing during for from given here how if in including into like of off on or out over per regarding so such that
through to toward under until up upon using what when where whether which while who whose why with within without is
are was were
"""
_NO_VERB, _ENDS = frozenset(_NOT_A_VERB.split()), frozenset(_AFTER_THE_OBJECT.split())
_PRONOUNS = {"me", "us", "him", "her", "them", "you", "it"}


def verb_object(instruction: str) -> tuple[str, str] | None:
    """(verb, object) of a command in lower case; None where the rule finds no such pair."""
    line = _POLITE.sub("", instruction.strip())
    # Marks end a phrase; a hyphen or an apostrophe stands inside a word.
    words = re.findall(r"[^\W\d_]+(?:[-'][^\W\d_]+)*|[^\w\s]|_", re.split(r"[\n.!?]", line, maxsplit=1)[0].lower())
    if not words or not words[0].isalpha() or words[0] in _NO_VERB:
        return None
    phrase: list[str] = []
    for word in words[1:]:
        if not word[0].isalpha() or word in _ENDS:
            break
        if word not in _PRONOUNS:
            phrase.append(word)
    return (words[0], phrase[-1]) if phrase and phrase[-1] not in _NO_VERB else None


def asked_section(records: Sequence[Record] | None, selection: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Shares of the most frequent pairs in pool and subset, their plot, and the counts of categories where the pool has
    some; None without the records or a selection."""
    if records is None or selection is None:
        return None
    taken = {one["row"] for one in selection["decisions"] if one["selected"]}
    pairs = {record.row: verb_object(record.instruction) for record in records}
    pool = Counter(pair for pair in pairs.values() if pair is not None)
    subset = Counter(pair for row, pair in pairs.items() if pair is not None and row in taken)
    shown = [pair for pair, _ in sorted(pool.items(), key=lambda one: (-one[1], one[0]))[:SHOWN]]
    rows = [(" ".join(pair), pool[pair] / pool.total(), subset[pair] / max(1, subset.total())) for pair in shown]
    return {
        "counted": pool.total(),
        "pool": len(pairs),
        "counted_subset": subset.total(),
        "subset": len(taken),
        "different": len(pool),
        "different_subset": len(subset),
        "rows": rows,
        "plot": Markup(pairs_plot(rows)),
        "categories": selection.get("categories"),
    }


def pairs_plot(rows: Sequence[tuple[str, float, float]]) -> str:
    """Share of each pair among the counted instructions, pool in grey and subset in blue."""
    title = "Verbs and objects of the instructions"
    if not rows:
        return message(title, "No instruction of the pool is a command with a verb and an object.")
    names, pool, subset = zip(*rows, strict=True)
    with new_figure(1.0 + 0.26 * len(rows)) as (figure, axes):
        places = np.arange(len(rows))
        axes.barh(places - 0.2, pool, height=0.4, color=GREY, label="pool")
        axes.barh(places + 0.2, subset, height=0.4, color=BLUE, label="subset")
        axes.set_yticks(places, names)
        axes.invert_yaxis()
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.4g}%"))
        axes.set(xlabel="share of the instructions with a verb and an object")
        axes.grid(axis="y", visible=False)
        legend(axes)
        return to_svg(figure, title)
