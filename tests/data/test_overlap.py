"""Records that share 13 words in a row with a benchmark, and near copies of other records, are counted or left out."""

from __future__ import annotations

import itertools
import json
import random
from dataclasses import replace

import pytest
from composed import build
from tiny_passes import record

from winnow.console import data_summary
from winnow.data.overlap import REASON, near_copies, runs, sharing
from winnow.errors import UserError
from winnow.evaluation.embedded import load_heldout

ITEM = "the quick brown fox jumps over the lazy dog and then it sleeps"  # 13 words


def rows(*answers: str) -> list[dict]:
    return [{"instruction": f"Question {i}.", "input": "", "output": answer} for i, answer in enumerate(answers)]


def test_runs_are_of_words_whatever_case_and_punctuation():
    """15 words have 3 runs of 13, 12 have none, or one where short texts have one; no words have none."""

    def of(*texts: str, least: int = 13) -> tuple[list, list]:
        hashes, places = runs(texts, 13, least)
        return hashes.tolist(), places.tolist()

    short = ITEM.removesuffix(" sleeps")
    assert of("Well, " + ITEM + " again", short, ITEM)[1] == [0, 0, 0, 2]
    assert of(ITEM) == of("The QUICK brown fox, jumps over the lazy dog; and then: it sleeps!")
    assert of(short, "?!", ITEM, least=1)[1] == [0, 2]


def test_each_chinese_or_japanese_character_is_a_word():
    """13 characters are a run, whatever punctuation is between them; letters and digits beside them stay whole."""
    for text in ("春眠不觉晓处处闻啼鸟夜来风", "あア日本語のテキストですよ"):
        assert len(text) == 13
        assert runs([text, text[:-1], f"{text[:5]}、{text[5:]}。"], 13, 13)[1].tolist() == [0, 2]
    assert runs(["GPT4模型 v2"], 4, 4)[1].tolist() == [0] and runs(["GPT4模型 v2"], 5, 5)[1].tolist() == []


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
    broken = tmp_path / "broken.jsonl"
    broken.write_text(f'{json.dumps({"question": ITEM})}\n{{"question": \n')
    with pytest.raises(UserError, match=r"data.exclude=.*broken.jsonl, line 2: wrong JSON at column .*; mend it"):
        build("data/file", path=str(pool), exclude=str(broken))
    with pytest.raises(UserError, match="every record shares 13 words in a row with data.exclude=.*; nothing is left"):
        build("data/file", path=str(pool), exclude=str(items))


def copies(*texts: str, threshold: float = 0.8) -> dict[int, int]:
    """Position of each near copy -> that of its first record."""
    records = [record("", "", text, row) for row, text in enumerate(texts)]
    found = near_copies(records, threshold)
    return {row: found[one.id] for row, one in enumerate(records) if one.id in found}


def test_near_copies_by_hand():
    """13 words have 9 runs of 5. Another last word leaves 8 in both: 8 / (9 + 9 - 8) = 0.8. 12 words have 8 runs and
    share 7: 7 / 9 < 0.8. Another first word besides leaves 7 of 13 words' runs in both: 7 / 11, so the third record is
    like the second alone, which is a near copy itself. Records of the same id are one. What is told is the
    row of the first."""
    other = ITEM.replace("sleeps", "wakes")
    assert copies(ITEM, other, other.replace("the quick", "a quick"), other) == {1: 0, 3: 0}
    assert copies(ITEM, other, threshold=0.81) == {}
    assert copies(ITEM.removeprefix("the "), other.removeprefix("the ")) == {}
    assert copies(ITEM, ITEM) == {} and copies("Nothing.", "Nothing.", ITEM, other) == {3: 2}


def test_short_near_copies():
    """Fewer than 5 words are one run, and so is one; a record without words is like no other."""
    assert copies("Yes, of course!", "yes of course", "of course", "?", "!", "No.", "no") == {1: 0, 6: 5}


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.8, 1.0])
def test_near_copies_are_those_that_all_pairs_give(threshold):
    """Texts of 2 different words, so that most of the 32 runs are shared, against the definition, pair by pair."""
    draw = random.Random(0)
    texts = list(dict.fromkeys(" ".join(draw.choices("ab", k=draw.randint(1, 30))) for _ in range(150)))

    def own(text: str) -> set[tuple]:
        words = text.split()
        return {tuple(words[i : i + 5]) for i in range(max(1, len(words) - 4))}

    sets, expected = [own(text) for text in texts], {}
    for row, first in itertools.product(range(len(texts)), repeat=2):
        both, either = len(sets[row] & sets[first]), len(sets[row] | sets[first])
        if first < row and row not in expected and first not in expected and both / either >= threshold:
            expected[row] = first
    assert copies(*texts, threshold=threshold) == expected and (threshold == 1.0 or expected)


def test_every_batch_counts_its_own_records(monkeypatch):
    """Two records at a time in place of 10,000: the item of the third, and its near copy in the fourth, are found."""
    monkeypatch.setattr("winnow.data.overlap._BATCH", 2)
    texts = ("Nothing.", "Something else.", ITEM, ITEM.replace("sleeps", "wakes"))
    assert copies(*texts) == {3: 2}
    assert sharing([record("", "", text, row) for row, text in enumerate(texts)], [ITEM]) == {2}


def test_near_copies_are_counted_or_left_out(tmp_path):
    """63 words have 59 runs; another last word leaves 58 of 60. The near copy is there twice and counts once; left out,
    both rows go, and the pool has another identity."""
    pool = tmp_path / "pool.json"
    long = " ".join(f"word{i}" for i in range(60))
    texts = [f"{long} one", f"{long} two", f"{long} two", "Nothing."]
    pool.write_text(json.dumps([{"instruction": "Say it.", "output": text} for text in texts]))
    kept, dropped = (build("data/file", path=str(pool), near_duplicates=choice) for choice in ("keep", "drop"))
    suite = build("evaluation/none")
    assert data_summary(kept, suite)["near_duplicates"] == 1 and data_summary(dropped, suite)["near_duplicates"] == 0
    assert [one.row for one in dropped.records] == [0, 3]
    assert [(bad.row, bad.reason) for bad in dropped.quarantined] == [(row, "near copy of row 0") for row in (1, 2)]
    assert kept.identity != dropped.identity
    with pytest.raises(UserError, match="data.near_threshold=0 is out of range: give a number above 0, at most 1"):
        build("data/file", path=str(pool), near_threshold=0)


def test_what_the_evaluation_asks_is_counted(tmp_path):
    """The embedded suite's first answer of 13 words or more stands in the second of two records."""
    suite = build("evaluation/embedded")
    asked = next(one.record.output for one in load_heldout() if len(one.record.output.split()) > 20)
    pool = tmp_path / "pool.json"
    pool.write_text(json.dumps(rows("Nothing.", f"So: {asked}")))
    read = build("data/file", path=str(pool))
    assert data_summary(read, suite)["overlap"] == 1
    assert data_summary(read, build("evaluation/none"))["overlap"] is None


def test_a_conversation_is_no_near_copy_of_itself():
    """An answer of 13 words, and a short one behind it: 13 of 15 runs are in both. The same texts as a conversation of
    somebody else's are a near copy."""
    first = record("Tell me a story.", "", ITEM, 0)
    later, other = record("Again?", "", "No.", 1), record("Once again?", "", "No.", 2)
    before = (("user", first.instruction), ("assistant", first.output))
    later, other = replace(later, turns=before), replace(other, turns=(("user", "A story!"), before[1]))
    assert near_copies([first, later], 0.5) == {} and near_copies([later, other], 0.3) == {other.id: 1}
