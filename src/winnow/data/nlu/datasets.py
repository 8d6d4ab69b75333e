"""The data sets: their types in words, their question, and how one row becomes a text and its items."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from winnow.data.formats import SourceRow
from winnow.data.nlu import answers
from winnow.data.nlu.answers import Answer, Item, type_key
from winnow.data.nlu.files import CLASSES, chunks, news, objects, ontonotes, reviews, sentences, triplets
from winnow.data.schemas import BadRow


@dataclass(frozen=True)
class Dataset:
    """One data set.

    name: as in `data=<name>`. kind: ner, re, classification or absa. entities, pairs: the data's own name of a type ->
    the words that stand for it, for items of one text and of two; a class is an entity without a text. rows: the rows
    of a file. read: (text, items with the data's own types) of a row; raises BadRow. question, form: lines of the
    context. folders: names a folder with its files may have. spelling: further ways to write a class. open_pairs: the
    relations are too many to be listed in the context; any name is read. symmetric: pairs without a direction. hub:
    name of a copy on the Hugging Face hub, where one with these columns is known. hub_test: the split of that copy that
    stands for the test split, where that one has no labels.
    """

    name: str
    kind: str
    rows: Callable[[Path], Iterator[SourceRow]]
    read: Callable[[Mapping[str, Any]], tuple[str, list[Item]]]
    question: str
    form: str
    entities: Mapping[str, str] = field(default_factory=dict)
    pairs: Mapping[str, str] = field(default_factory=dict)
    folders: tuple[str, ...] = ()
    spelling: Mapping[str, str] = field(default_factory=dict)
    open_pairs: bool = False
    symmetric: tuple[str, ...] = ()
    hub: str | None = None
    hub_test: str = "test"

    def context(self, text: str) -> str:
        """Question, format, options and text: the input of a record, which no noise touches."""
        options = [*self.entities.values(), *self.pairs.values()]
        lines = [f"Question: {self.question}", f"Format: {self.form}"]
        lines += [f"Options: {', '.join(options)}"] if options else []
        return "\n".join([*lines, f"Text: {text}"])

    def target(self, items: list[Item]) -> str:
        """The answer text of items with the data's own types. Raises BadRow for a type that the data set has not."""
        return answers.written((self._words(item[0]), *item[1:]) for item in items)

    def _words(self, own: str) -> str:
        if not isinstance(own, str):
            raise BadRow(f"{own!r} was found as a type, a text was expected")
        words = self.entities.get(own) or self.pairs.get(own)
        if words is None and self.open_pairs:
            words = spoken(own)
        if words is None:
            known = ", ".join([*self.entities, *self.pairs])
            raise BadRow(f"{own!r} is unknown; known: {known}")
        return words

    def answer(self, text: str) -> Answer:
        """What an answer says, read forgivingly."""
        if self.kind == "classification":
            return answers.read_class(text, self._spellings)
        return answers.read_items(text, self._kinds, self.open_pairs, self.symmetric)

    @cached_property
    def _spellings(self) -> dict[str, str]:
        own = {words: words for words in self.entities.values()}
        return {type_key(spelling): words for spelling, words in {**own, **self.spelling}.items()}

    @cached_property
    def _kinds(self) -> dict[str, tuple[str, int]]:
        kinds: dict[str, tuple[str, int]] = {}
        for types, size in ((self.entities, 1), (self.pairs, 2)):
            for own, words in types.items():
                # The data's own name, such as PER, is understood too.
                kinds |= {type_key(own): (words, size), type_key(words): (words, size)}
        return kinds


def spoken(relation: str) -> str:
    """A relation's name in words: `/people/person/place_lived` -> place lived, `placeOfBirth` -> place of birth."""
    last = relation.rsplit("/", 1)[-1] or relation
    return " ".join(re.sub(r"(?<=[a-z])(?=[A-Z])", " ", last.replace("_", " ")).lower().split())


def _value(row: Mapping[str, Any], key: str, kind: type) -> Any:
    if not isinstance(row, Mapping) or not isinstance(row.get(key), kind):
        found = type(row.get(key)).__name__ if isinstance(row, Mapping) else type(row).__name__
        raise BadRow(f"`{key}` of type {kind.__name__} was expected, found {found}")
    return row[key]


def _texts(row: Mapping[str, Any], key: str) -> list[str]:
    found = _value(row, key, list)
    other = next((one for one in found if not isinstance(one, str)), "")
    if other != "":
        raise BadRow(f"`{key}` holds {other!r}, texts were expected")
    return found


def _tagged(row: Mapping[str, Any]) -> tuple[str, list[Item]]:
    tokens, tags = _texts(row, "tokens"), _texts(row, "ner_tags")
    if len(tokens) != len(tags):
        raise BadRow("`tokens` and `ner_tags` were expected to be texts of the same number")
    return " ".join(tokens), [(kind, " ".join(tokens[a:b])) for kind, a, b in chunks(tags)]


def _triples(row: Mapping[str, Any]) -> tuple[str, list[Item]]:
    text, found = _value(row, "text", str), _value(row, "triple_list", list)
    for one in found:
        if not isinstance(one, (list, tuple)) or [type(part) for part in one] != [str] * 3:
            raise BadRow(f"each of `triple_list` was expected to be three texts, head, relation, tail; found {one!r}")
    place = {words: text.find(words) for head, _, tail in found for words in (head, tail)}
    ordered = sorted(found, key=lambda one: (place[one[0]], place[one[2]]))
    return text, [(relation, head, tail) for head, relation, tail in ordered]


def _joint(row: Mapping[str, Any]) -> tuple[str, list[Item]]:
    tokens, entities, relations = _texts(row, "tokens"), _value(row, "entities", list), _value(row, "relations", list)
    try:
        words = [" ".join(tokens[one["start"] : one["end"]]) for one in entities]
        starts = [one["start"] for one in entities]
        order = sorted(range(len(entities)), key=lambda i: (starts[i], entities[i]["end"]))
        items: list[Item] = [(entities[i]["type"], words[i]) for i in order]
        by_place = sorted(relations, key=lambda one: (starts[one["head"]], starts[one["tail"]]))
        items += [(one["type"], words[one["head"]], words[one["tail"]]) for one in by_place]
    except (KeyError, IndexError, TypeError) as error:
        raise BadRow(f"entities and relations do not fit together ({type(error).__name__}: {error})") from None
    if not all(words):
        raise BadRow("an entity has no words: its end is not after its start")
    return " ".join(tokens), items


def _reviewed(row: Mapping[str, Any]) -> tuple[str, list[Item]]:
    text, found = _value(row, "text", str), _value(row, "triplets", list)
    words = text.split(" ")
    try:
        ordered = sorted(found, key=lambda one: (one[0][0], one[1][0]))
        items = [(one[2], *(" ".join(words[i] for i in span) for span in one[:2])) for one in ordered]
    except (IndexError, TypeError) as error:
        raise BadRow(f"the word numbers do not fit the {len(words)} words of the sentence ({error})") from None
    return text, items


def _sentiment(row: Mapping[str, Any]) -> tuple[str, list[Item]]:
    label = str(row.get("label") if isinstance(row, Mapping) else None)
    if label == "-1":
        raise BadRow("the label is hidden (-1), as in the hub's test split: use split=validation")
    return _value(row, "sentence", str).strip(), [({"0": "negative", "1": "positive"}.get(label, label),)]


def _topic(row: Mapping[str, Any]) -> tuple[str, list[Item]]:
    return _value(row, "text", str).strip(), [(_value(row, "label", str),)]


_SENTIMENTS = {"POS": "positive", "NEG": "negative", "NEU": "neutral"}
_ASTE = {
    "kind": "absa",
    "rows": triplets,
    "read": _reviewed,
    "question": "Which aspects does the review judge, with which opinion words, and with which sentiment?",
    "form": "sentiment: aspect | opinion; sentiment: aspect | opinion",
    "pairs": _SENTIMENTS,
}
_NER = {
    "question": "Which named entities are in the text, and of which type is each?",
    "form": "type: entity; type: entity",
}
_RE = {
    "rows": objects,
    "read": _triples,
    "question": "Which relations between entities does the text state?",
    "form": "relation: head | tail; relation: head | tail",
}
_NYT = [
    "/business/company/advisors",
    "/business/company/founders",
    "/business/company/industry",
    "/business/company/major_shareholders",
    "/business/company/place_founded",
    "/business/company_shareholder/major_shareholder_of",
    "/business/person/company",
    "/location/administrative_division/country",
    "/location/country/administrative_divisions",
    "/location/country/capital",
    "/location/location/contains",
    "/location/neighborhood/neighborhood_of",
    "/people/deceased_person/place_of_death",
    "/people/ethnicity/geographic_distribution",
    "/people/ethnicity/people",
    "/people/person/children",
    "/people/person/ethnicity",
    "/people/person/nationality",
    "/people/person/place_lived",
    "/people/person/place_of_birth",
    "/people/person/profession",
    "/people/person/religion",
    "/sports/sports_team/location",
    "/sports/sports_team_location/teams",
]
_CONLL03 = {"PER": "person", "ORG": "organization", "LOC": "location", "MISC": "miscellaneous"}
_ONTONOTES = {
    "PERSON": "person",
    "NORP": "group",
    "FAC": "facility",
    "ORG": "organization",
    "GPE": "geopolitical entity",
    "LOC": "location",
    "PRODUCT": "product",
    "EVENT": "event",
    "WORK_OF_ART": "work of art",
    "LAW": "law",
    "LANGUAGE": "language",
    "DATE": "date",
    "TIME": "time",
    "PERCENT": "percentage",
    "MONEY": "money",
    "QUANTITY": "quantity",
    "ORDINAL": "ordinal",
    "CARDINAL": "cardinal",
}
_SCIERC_ENTITIES = ("Task", "Method", "Material", "Metric", "Generic")
_SCIERC_RELATIONS = ("Used-for", "Feature-of", "Hyponym-of", "Evaluate-for", "Part-of", "Compare", "Conjunction")
_TECHNOLOGY = ("science and technology", "science/technology", "sci tech", "science", "technology", "tech")

DATASETS: dict[str, Dataset] = {
    one.name: one
    for one in (
        Dataset(
            "conll03",
            "ner",
            sentences,
            _tagged,
            **_NER,
            entities=_CONLL03,
            folders=("conll2003", "conll03"),
            hub="eriktks/conll2003",
        ),
        Dataset("ontonotes", "ner", ontonotes, _tagged, **_NER, entities=_ONTONOTES, folders=("ontonotes", "onto")),
        Dataset("nyt", "re", **_RE, pairs={name: spoken(name) for name in _NYT}, folders=("nyt",)),
        Dataset("webnlg", "re", **_RE, open_pairs=True, folders=("webnlg",)),
        Dataset(
            "scierc",
            "re",
            objects,
            _joint,
            "Which scientific terms are in the text, of which type is each, and which relations hold between them?",
            "type: term; relation: first term | second term",
            entities={name: spoken(name) for name in _SCIERC_ENTITIES} | {"OtherScientificTerm": "other term"},
            pairs={name: name.lower() for name in _SCIERC_RELATIONS},
            folders=("scierc",),
            symmetric=("compare", "conjunction"),
        ),
        Dataset(
            "sst2",
            "classification",
            reviews,
            _sentiment,
            "Which sentiment does the text express?",
            "one of the options and nothing else",
            entities={"negative": "negative", "positive": "positive"},
            folders=("sst2", "sst-2"),
            hub="stanfordnlp/sst2",
            hub_test="validation",
        ),
        Dataset(
            "agnews",
            "classification",
            news,
            _topic,
            "Which topic does the news text belong to?",
            "one of the options and nothing else",
            entities={name: name for name in CLASSES},
            folders=("agnews", "ag_news"),
            hub="fancyzhx/ag_news",
            spelling=dict.fromkeys(_TECHNOLOGY, "Sci/Tech"),
        ),
        Dataset("lap14", **_ASTE, folders=("14lap", "lap14")),
        Dataset("rest14", **_ASTE, folders=("14rest", "14res", "rest14")),
    )
}
