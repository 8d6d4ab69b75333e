"""The forgiving reader of answers, on answers made by hand."""

from __future__ import annotations

import random

import pytest

from winnow.data.nlu import DATASETS
from winnow.data.nlu.answers import plain, written


def items(dataset: str, text: str) -> set:
    return set(DATASETS[dataset].answer(text).items)


BELL_SRI = {("person", "bell"), ("organization", "sri")}


@pytest.mark.parametrize(
    "text",
    [
        "person: Bell; organization: SRI",
        "organization: SRI; person: Bell",  # order
        "person: Bell; organization: SRI; person: Bell",  # a repeat
        "PERSON : bell ;ORGANIZATION:sri;",  # case and spacing
        "\n- Person: Bell\n- Organization: SRI\n",  # bullets, line breaks
        "1. person: Bell\n2. organization: SRI",
        "(person: Bell); [organization: 'SRI'].",  # brackets, quotes, full stop
        "person Bell; organization SRI",  # no colon
        "The entities are: person: Bell; organization: SRI",
        "PER: Bell; ORG: SRI",  # the data's own names
        "person: Bell; organization: SRI; and that is all",  # a piece without a type
    ],
)
def test_what_is_forgiven(text):
    answer = DATASETS["conll03"].answer(text)
    assert set(answer.items) == BELL_SRI and not answer.unreadable


def test_what_is_not_forgiven():
    """A wrong type, a part of the words, and several words under one type are other items."""
    assert items("conll03", "location: Bell") == {("location", "bell")}
    assert items("conll03", "company: Bell") == {("company", "bell")}
    assert items("conll03", "person: Alexander Bell") == {("person", "alexander bell")}
    assert items("conll03", "person: Bell, Gray") == {("person", "bell,gray")}


@pytest.mark.parametrize("text", ["none", "None.", " NONE \n", "no entities", "person: Bell; none"])
def test_nothing_is_an_answer(text):
    answer = DATASETS["conll03"].answer(text)
    assert not answer.unreadable and set(answer.items) <= {("person", "bell")}


@pytest.mark.parametrize("text", ["I do not know", "the text is about a bell", ";;: ;", "person:"])
def test_an_answer_without_items_is_unreadable(text):
    answer = DATASETS["conll03"].answer(text)
    assert answer.unreadable and not answer.items


def test_an_empty_answer_says_nothing():
    """Nothing was written: no item, and nothing that could not be read."""
    assert DATASETS["conll03"].answer("  \n").unreadable is False and not items("conll03", "")


@pytest.mark.parametrize("pair", ["Bell | Ulm", "bell|ulm", "Bell -> Ulm", "Bell, Ulm", '"Bell" | "Ulm"'])
def test_pairs(pair):
    """The two words of a pair may be parted in several ways; their order counts."""
    assert items("nyt", f"place lived: {pair}") == {("place lived", "bell", "ulm")}
    assert items("nyt", "place_lived: Ulm | Bell") == {("place lived", "ulm", "bell")}


def test_a_pair_with_one_half_or_three_is_another_item():
    assert items("nyt", "place lived: Bell") == {("place lived", "bell")}
    assert items("nyt", "place lived: a | b | c") == {("place lived", "a", "b", "c")}
    assert items("nyt", "place lived: a, b, c") == {("place lived", "a,b,c")}


def test_open_relations_and_symmetric_ones():
    """WebNLG takes any name, with its words parted as they like; `compare` and `conjunction` have no direction."""
    assert items("webnlg", "place-of birth: A | B") == items("webnlg", "Place Of Birth: A | B")
    assert items("scierc", "conjunction: b | a") == items("scierc", "conjunction: a | b")
    assert items("scierc", "used-for: b | a") != items("scierc", "used-for: a | b")


def test_spacing_around_punctuation():
    """Tokenised text has blanks around punctuation; models write without."""
    assert plain("1 . FC  Union ( Berlin )") == plain("1.FC Union (Berlin)")
    assert plain("rock 'n' roll") != plain("rock n roll")


@pytest.mark.parametrize(
    ("dataset", "text", "label"),
    [
        ("sst2", "positive", "positive"),
        ("sst2", "\nThe sentiment is Negative.", "negative"),
        ("sst2", "positive\nnegative would be wrong", "positive"),  # the first line counts
        ("sst2", "positive or negative", None),  # hedging
        ("sst2", "nonpositive", None),  # no word of its own
        ("sst2", "not positive", None),  # a denial names nothing
        ("sst2", "It isn't at all positive.", None),
        ("sst2", "neither positive nor negative", None),
        ("sst2", "negative, not positive", "negative"),
        ("sst2", "Not positive but negative", "negative"),
        ("sst2", "Not bad at all: positive", "positive"),
        ("agnews", "not Sci/Tech", None),  # of two words neither counts
        ("sst2", "", None),
        ("agnews", "Topic: sci / tech", "Sci/Tech"),
        ("agnews", "Science and Technology", "Sci/Tech"),
        ("agnews", "World News", "World"),
        ("agnews", "Politics", None),
    ],
)
def test_classes(dataset, text, label):
    answer = DATASETS[dataset].answer(text)
    assert set(answer.items) == ({(label,)} if label else set())
    assert answer.unreadable == (label is None and text != "")


def test_written():
    """Repeats are left out, the order stays; no item is `none`."""
    assert written([("a", "x"), ("b", "y", "z"), ("a", "x")]) == "a: x; b: y | z"
    assert written([("positive",)]) == "positive" and written([]) == "none"


def test_targets_read_as_themselves_whatever_they_hold():
    """500 random targets of words without the separators: each item comes back, as many as there were."""
    draw = random.Random(0)
    alphabet = "abcXYZ09é漢 -'/&%."
    for _ in range(500):
        words = ["".join(draw.choices(alphabet, k=9)) + "k" for _ in range(6)]
        given = {("person", words[0]), ("location", words[1]), ("organization", words[2])}
        found = items("conll03", written(given))
        assert found == {(kind, plain(text)) for kind, text in given}
