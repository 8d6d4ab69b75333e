"""Records that share 13 words in a row with a benchmark are left out, and counted."""

from __future__ import annotations

import json

import pytest
from composed import build

from winnow.data.overlap import REASON, runs
from winnow.errors import UserError

ITEM = "the quick brown fox jumps over the lazy dog and then it sleeps"  # 13 words


def rows(*answers: str) -> list[dict]:
    return [{"instruction": f"Question {i}.", "input": "", "output": answer} for i, answer in enumerate(answers)]


def test_runs_are_13_words_whatever_case_and_punctuation():
    """15 words have 3 runs, 12 have none."""
    assert len(list(runs("Well, " + ITEM + " again"))) == 3
    assert list(runs(ITEM)) == list(runs("The QUICK brown fox, jumps over the lazy dog; and then: it sleeps!"))
    assert list(runs(ITEM.removesuffix(" sleeps"))) == []


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_a_record_that_holds_an_item_is_quarantined(kind, tmp_path):
    """Of three records the second holds the item and the third 12 words of it. The items' file may be of any kind and
    nest its texts."""
    answers = ("Nothing.", f"It says: {ITEM.upper()}.", ITEM.removesuffix(" sleeps"))
    (tmp_path / "pool.json").write_text(json.dumps(rows(*answers)))
    content = {"jsonl": json.dumps({"doc": {"choices": ["short", ITEM]}}), "csv": f"question,answer\nWhy?,{ITEM}"}
    (tmp_path / f"items.{kind}").write_text(content[kind] + "\n")
    pool = build("data/file", path=str(tmp_path / "pool.json"), exclude=str(tmp_path / f"items.{kind}"))
    assert [record.row for record in pool.records] == [0, 2]
    assert [(bad.row, bad.reason) for bad in pool.quarantined] == [(1, REASON)]


def test_what_excludes_nothing_or_everything_is_one_sentence(tmp_path):
    pool, items = tmp_path / "pool.json", tmp_path / "items.jsonl"
    pool.write_text(json.dumps(rows(ITEM)))
    with pytest.raises(UserError, match="is no file; give one of texts"):
        build("data/file", path=str(pool), exclude=str(items))
    items.write_text('{"text": "too short"}\n')
    with pytest.raises(UserError, match="holds no text of 13 words or more, so it would exclude nothing"):
        build("data/file", path=str(pool), exclude=str(items))
    items.write_text(json.dumps({"text": ITEM}) + "\n")
    with pytest.raises(UserError, match="every record shares 13 words in a row with data.exclude=.*; nothing is left"):
        build("data/file", path=str(pool), exclude=str(items))
