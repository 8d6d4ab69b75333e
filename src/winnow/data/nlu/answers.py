"""Answers as text: how a target is written, and a forgiving reader of what a model wrote.

    entities, aspects   person: Bell; organization: SRI          type: words
    relations, pairs    place lived: Bell | London               type: words | words
    classes             positive
    nothing there       none

The gold items of a sample are read from its target by the same reader, so an answer equal to the target is always
wholly right, whatever characters its words hold.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

NOTHING = "none"
_NOTHINGS = {NOTHING, "no", "nothing", "null", "n/a", "empty", *(f"no {what}" for what in ("entities", "relations"))}
_BULLET = re.compile(r"^\s*(?:[-*\u2022]+|\(?\d+[.)](?=\s))\s*")
_PAIR = re.compile(r"\s*(?:\||->|=>|\u2192)\s*")
# `not a positive` up to the next stop, comma or `but`: what is denied is not said.
_DENIED = re.compile(r"\b(?:not|no|non|nor|neither|never|cannot|\w+n['\u2019]t)\b(?:[\s/-]+(?!but\b)\w+){0,5}", re.I)
_WRAPPING = " \t\r\n\"'`()[]{}<>.,*\u201c\u201d\u2018\u2019"

Item = tuple[str, ...]


@dataclass(frozen=True)
class Answer:
    """items: each (type, words) or (type, words, words), normalised; a class is (label,). unreadable: the answer says
    something, but neither an item nor that there is none."""

    items: frozenset[Item]
    unreadable: bool


def written(items: Iterable[Item]) -> str:
    """The target text of a sample's items, in their order, repeats left out; `none` for no item."""
    distinct = dict.fromkeys(tuple(items))
    return "; ".join(_piece(item) for item in distinct) or NOTHING


def _piece(item: Item) -> str:
    return item[0] if len(item) == 1 else f"{item[0]}: {' | '.join(item[1:])}"


def read_class(text: str, labels: Mapping[str, str]) -> Answer:
    """The one label that the first line names; `labels` maps each spelling, as `type_key` gives it, to its label.

    A line that names none, or more than one, is unreadable: hedging is no answer. Nor is a denial: `not positive` names
    no label, `not positive but negative` one.
    """
    line = next((line for line in text.splitlines() if line.strip()), "")
    words = f" {type_key(_DENIED.sub(' | ', line))} "
    named = {label for spelling, label in labels.items() if f" {spelling} " in words}
    if len(named) == 1:
        return Answer(frozenset({(named.pop(),)}), False)
    return Answer(frozenset(), bool(line))


def read_items(text: str, kinds: Mapping[str, tuple[str, int]], open_pairs: bool = False, symmetric=()) -> Answer:
    """The items of an answer, as a set: order and repeats do not count.

    kinds: spelling of a type, as `type_key` gives it, -> (type, 1 for words or 2 for a pair). open_pairs: types that
    are not in `kinds` hold pairs. symmetric: types whose pairs have no direction.

    Forgiven: case; spacing, also around punctuation; quotes, brackets and a full stop around a piece; bullets and
    numbers; `;` or line breaks between items; `|`, `->`, `=>`, or a single comma between the two of a pair; a type
    without its colon; words before the first type (`The entities are: person: Bell`).
    Not forgiven: a type that does not exist, a pair with one half, several words under one type (`person: Bell, Gray`
    is one name). A piece without any type is left out.
    """
    items, said_nothing = set(), False
    for raw in re.split(r"[;\n]+", text):
        piece = _BULLET.sub("", raw).strip(_WRAPPING)
        if plain(piece) in _NOTHINGS:
            said_nothing = True
        elif piece:
            item = _item(piece, kinds, open_pairs)
            if item is not None:
                items.add((item[0], *sorted(item[1:])) if item[0] in symmetric else item)
    return Answer(frozenset(items), bool(text.strip()) and not items and not said_nothing)


def _item(piece: str, kinds: Mapping[str, tuple[str, int]], open_pairs: bool) -> Item | None:
    head, colon, rest = piece.partition(":")
    while colon and type_key(head) not in kinds and ":" in rest:
        later, _, after = rest.partition(":")
        if type_key(later) not in kinds:
            break
        head, rest = later, after
    key = type_key(head)
    if not colon:
        known = [kind for kind in kinds if f"{type_key(piece)} ".startswith(f"{kind} ")]
        if not known:
            return None
        key = max(known, key=len)
        words = len(key.split())
        rest = " ".join(re.split(r"[\s_-]+", piece)[words:])
    kind, size = kinds.get(key, (key, 2 if open_pairs else 1))
    if not plain(rest):
        return None
    parts = [rest]
    if size == 2:
        parts = _PAIR.split(rest)
        if len(parts) == 1 and rest.count(",") == 1:
            parts = rest.split(",")
    return (kind, *(plain(part) for part in parts))


def plain(text: str) -> str:
    """Words as they are compared: NFKC, no case, no blanks around punctuation, nothing wrapped around them."""
    folded = unicodedata.normalize("NFKC", text).casefold().strip(_WRAPPING)
    return " ".join(re.sub(r"\s*([^\w\s])\s*", r"\1", folded).split())


def type_key(text: str) -> str:
    """Names of types as they are compared: words in lower case, whatever stands between them."""
    return " ".join(re.findall(r"[^\W_]+", unicodedata.normalize("NFKC", text).casefold()))
