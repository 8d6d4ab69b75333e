"""Verb and object of an instruction by the rule, and their shares in pool and subset, by hand."""

from __future__ import annotations

import pytest

from winnow.data.records import Record
from winnow.pages.verbs import asked_section, verb_object


@pytest.mark.parametrize(
    ("instruction", "found"),
    [
        ("Give three tips for staying healthy.", ("give", "tips")),  # a number's word is no end, the last word counts
        ("Write a short story about a dog", ("write", "story")),
        ("Please, describe the structure of an atom.", ("describe", "structure")),
        ("Could you please rewrite the following sentence using simple words?", ("rewrite", "sentence")),
        ("Tell me a joke", ("tell", "joke")),  # the pronoun is passed over
        ("Design a to-do list", ("design", "list")),
        ("Summarize the text below.", ("summarize", "text")),
        ("Schreibe ein kurzes Résumé", ("schreibe", "résumé")),  # letters of any language are letters
        ("Explain why the sky is blue", None),  # no object before the question word
        ("What is the capital of France?", None),  # a question has no verb of a command
        ("The following is a poem.", None),
        ("2 + 2 =", None),
        ("", None),
    ],
)
def test_verb_and_object(instruction, found):
    assert verb_object(instruction) == found


def record(row: int, instruction: str, category: str | None = None) -> Record:
    return Record(f"{row:016x}", row, instruction, "", "x", (), "", {"category": category})


def test_shares_by_hand():
    """Of five instructions four are read: write story twice, write poem, give tips. Subset: rows 0, 3 and 4 (a
    question): write story and give tips, a half each."""
    texts = ["Write a story", "Write a story.", "Write a poem", "Give tips", "Who is it?"]
    records = [record(row, text) for row, text in enumerate(texts)]
    selection = {"decisions": [{"row": row, "selected": row in (0, 3, 4)} for row in range(5)]}
    found = asked_section(records, selection)
    assert found["rows"] == [("write story", 0.5, 0.5), ("give tips", 0.25, 0.5), ("write poem", 0.25, 0.0)]
    assert (found["counted"], found["pool"], found["counted_subset"], found["subset"]) == (4, 5, 2, 3)
    assert (found["different"], found["different_subset"]) == (3, 2) and found["categories"] is None
    assert "write story" in found["plot"] and found["plot"].startswith("<svg")
    assert asked_section(None, selection) is None and asked_section(records, None) is None


def test_a_pool_of_questions_has_no_plot():
    """No command at all: no division by 0, and a sentence in place of bars."""
    found = asked_section([record(0, "Why?")], {"decisions": [{"row": 0, "selected": True}]})
    assert found["rows"] == [] and "No instruction of the pool" in found["plot"]
