"""Every file format, on files written here in the public layouts."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
from composed import build
from shared_data import shared

from winnow.data.nlu import DATASETS
from winnow.data.nlu.files import chunks, ontonotes, sentences
from winnow.errors import UserError

read = partial(build, "data/sst2")

IOB2 = """-DOCSTART- -X- O O

Ada NNP I-NP B-PER
Lovelace NNP I-NP I-PER
met VBD I-VP O
Acme NNP I-NP B-ORG
Works NNP I-NP I-ORG
Bolt NNP I-NP B-ORG
staff NN I-NP O

Rain NN I-NP O
"""
# The same in IOB1: `B-` only where a chunk touches one of its own type.
IOB1 = IOB2.replace("Ada NNP I-NP B-PER", "Ada NNP I-NP I-PER").replace("Acme NNP I-NP B-ORG", "Acme NNP I-NP I-ORG")


def file(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())
    return path


def text_of(record) -> str:
    return record.input.rpartition("\nText: ")[2]


@pytest.mark.parametrize("content", [IOB1, IOB2], ids=["IOB1", "IOB2"])
def test_both_schemes_of_conll03_give_the_same_names(tmp_path, content):
    """Ada Lovelace is one person; Acme Works and Bolt touch and are two organizations; the second sentence has none."""
    pool = read(dataset="conll03", path=file(tmp_path, "eng.train", content))
    assert [(text_of(r), r.output) for r in pool.records] == [
        (
            "Ada Lovelace met Acme Works Bolt staff",
            "person: Ada Lovelace; organization: Acme Works; organization: Bolt",
        ),
        ("Rain", "none"),
    ]


def test_chunks_by_hand():
    """I- after O or after another type begins a chunk; B- always does; a chunk may end the sentence."""
    assert chunks(["I-A", "I-A", "B-A", "I-B", "O", "I-B"]) == [("A", 0, 2), ("A", 2, 3), ("B", 3, 4), ("B", 5, 6)]
    assert chunks(["O", "O"]) == [] and chunks([]) == []


def test_bad_sentences_are_kept_apart_with_line_and_reason(tmp_path):
    """Line 2 has a tag that is none, line 4 no tag, line 6 a type that CoNLL-2003 has not; line 8 is good."""
    path = file(tmp_path, "train.txt", "Ada B-PER\nmet X\n\nalone\n\nNile B-RIVER\n\nRain O")
    pool = read(dataset="conll03", path=path)
    assert [(bad.line, bad.row) for bad in pool.quarantined] == [(1, 0), (4, 1), (6, 2)]
    reasons = [bad.reason for bad in pool.quarantined]
    assert "line 2 has the tag 'X'" in reasons[0] and "line 4 has one column" in reasons[1]
    assert "'RIVER' is unknown; known: PER, ORG, LOC, MISC" in reasons[2]
    assert [(record.row, record.output) for record in pool.records] == [(3, "none")]
    with pytest.raises(UserError, match=r"train\.txt, line 1: line 2 has the tag"):
        read(dataset="conll03", path=path, on_error="fail")


def conll2012(word: str, name: str) -> str:
    return f"bc/x/00 0 0 {word} NN * - - - Speaker {name} (ARG0*) -"


def test_ontonotes_in_both_layouts(tmp_path):
    """`(PERSON*` to `*)` spans two words, `(GPE)` one; the same sentence in token-and-tag columns gives the same."""
    lines = [("Ada", "(PERSON*"), ("Lovelace", "*)"), ("left", "*"), ("Narnia", "(GPE)")]
    begin, end = "#begin document (bc/x/00); part 000\n", "\n\n#end document\n"
    bracketed = begin + "\n".join(conll2012(*one) for one in lines) + end
    columns = "Ada B-PERSON\nLovelace I-PERSON\nleft O\nNarnia B-GPE\n"
    found = [
        read(dataset="ontonotes", path=file(tmp_path, name, text)).records
        for name, text in (("a_gold_conll", bracketed), ("b.txt", columns))
    ]
    assert [record.output for record in found[0]] == ["person: Ada Lovelace; geopolitical entity: Narnia"]
    assert [record.id for record in found[0]] == [record.id for record in found[1]]


def test_ontonotes_faults(tmp_path):
    """A name left open is a bad sentence; so is a line with too few columns."""
    text = f"#begin document x\n{conll2012('Ada', '(PERSON*')}\n\nshort line\n\n{conll2012('Rain', '*')}\n"
    rows = list(ontonotes(file(tmp_path, "x.conll", text)))
    assert [(row.line, row.problem is None) for row in rows] == [(2, False), (4, False), (6, True)]
    assert "not closed" in rows[0].problem and "2 columns" in rows[1].problem


def test_nyt_triples(tmp_path):
    """Relations are named by their last part, in the order of the text; an unknown one is a bad row."""
    rows = [
        {
            "text": "Mia of Ulm met Bo , born in Rome .",
            "triple_list": [
                ["Mia", "/people/person/place_of_birth", "Rome"],
                ["Bo", "/people/person/place_of_birth", "Rome"],
                ["Mia", "/people/person/place_lived", "Ulm"],
            ],
        },
        {"text": "Nothing here .", "triple_list": []},
        {"text": "Bad .", "triple_list": [["a", "/x/y", "b"]]},
        {"text": "Bad .", "triple_list": [["a", "b"]]},
    ]
    array = read(dataset="nyt", path=file(tmp_path, "train.json", json.dumps(rows)))
    lines = read(dataset="nyt", path=file(tmp_path / "b", "train.json", "\n".join(map(json.dumps, rows))))
    for pool in (array, lines):
        outputs = ["place lived: Mia | Ulm; place of birth: Mia | Rome; place of birth: Bo | Rome", "none"]
        assert [record.output for record in pool.records] == outputs
        assert ["'/x/y' is unknown" in bad.reason for bad in pool.quarantined] == [True, False]
    assert "Options: advisors, founders," in array.records[0].input


def test_webnlg_takes_any_relation(tmp_path):
    """camelCase and underscores become words; the context lists no options, there are over two hundred."""
    rows = [{"text": "A of B", "triple_list": [["A", "placeOfBirth", "B"], ["A", "is_part_of", "B"]]}]
    record = read(dataset="webnlg", path=file(tmp_path, "train.json", json.dumps(rows))).records[0]
    assert record.output == "place of birth: A | B; is part of: A | B"
    assert "Options" not in record.input and text_of(record) == "A of B"


def test_scierc_joint_form(tmp_path):
    """End is exclusive: tokens 0 to 1 and 3. Entities first, in the order of the text, then relations."""
    row = {
        "tokens": ["Deep", "parsers", "for", "translation"],
        "entities": [{"type": "Task", "start": 3, "end": 4}, {"type": "Method", "start": 0, "end": 2}],
        "relations": [{"type": "Part-of", "head": 0, "tail": 1}, {"type": "Used-for", "head": 1, "tail": 0}],
    }
    wrong = {**row, "relations": [{"type": "Used-for", "head": 5, "tail": 0}]}
    pool = read(dataset="scierc", path=file(tmp_path, "train.json", json.dumps([row, wrong])))
    assert pool.records[0].output == (
        "method: Deep parsers; task: translation; used-for: Deep parsers | translation; "
        "part-of: translation | Deep parsers"
    )
    assert "do not fit together" in pool.quarantined[0].reason


@pytest.mark.parametrize(
    ("dataset", "row", "reason"),
    [
        ("webnlg", {"text": "Born in 1912", "triple_list": [["Ada", "born", 1912]]}, "['Ada', 'born', 1912]"),
        ("nyt", {"text": "Ada", "triple_list": [[None, "/x", "Ada"]]}, "found [None, '/x', 'Ada']"),
        ("scierc", {"tokens": ["a", None], "entities": [], "relations": []}, "`tokens` holds None"),
        (
            "scierc",
            {"tokens": ["a"], "entities": [{"type": [1], "start": 0, "end": 1}], "relations": []},
            "[1] was found as a type",
        ),
    ],
)
def test_a_value_that_is_no_text_is_quarantined_with_its_line(tmp_path, dataset, row, reason):
    """The bad row is on line 2, between two good ones."""
    good = {"text": "Rain", "triple_list": []} if "text" in row else {**row, "tokens": ["Rain"], "entities": []}
    path = file(tmp_path, "train.jsonl", "\n".join(map(json.dumps, [good, row, good])))
    pool = read(dataset=dataset, path=path)
    assert len(pool.records) == 2
    (bad,) = pool.quarantined
    assert bad.line == 2 and reason in bad.reason


def test_sst2(tmp_path):
    """Tab-separated with header and either line end; 0 is negative, 1 positive; quotes are ordinary characters."""
    rows = 'sentence\tlabel\r\na "fine film \t1\r\ndull .\t0\r\nwhat ?\t2\r\nhidden\t-1\r\nno label\r\n\t1\r\n'
    pool = read(dataset="sst2", path=file(tmp_path, "train.tsv", rows))
    assert [(text_of(r), r.output) for r in pool.records] == [('a "fine film', "positive"), ("dull .", "negative")]
    reasons = [bad.reason for bad in pool.quarantined]
    assert [bad.line for bad in pool.quarantined] == [4, 5, 6, 7]
    assert "'2' is unknown" in reasons[0] and "split=validation" in reasons[1]
    assert "1 cells" in reasons[2] and "text is empty" in reasons[3]
    with pytest.raises(UserError, match="line 1: the header"):
        read(dataset="sst2", path=file(tmp_path, "x.tsv", "text\tlabel\na\t1\n"))


def test_agnews(tmp_path):
    """With and without header, a quoted line break inside a cell, and the tab form with class names."""
    body = '"4","A ""big"" rocket","Flies,\nfar."\n2,Cup,Won .\n7,T,D\n1,two\n'
    wanted = [('A "big" rocket Flies,\nfar.', "Sci/Tech"), ("Cup Won .", "Sports")]
    plain = read(dataset="agnews", path=file(tmp_path, "train.csv", body))
    headed = read(dataset="agnews", path=file(tmp_path, "b.csv", "class_index,title,description\n" + body))
    for pool in (plain, headed):
        assert [(text_of(record), record.output) for record in pool.records] == wanted
    assert [bad.line for bad in plain.quarantined] == [4, 5]
    assert [bad.line for bad in headed.quarantined] == [5, 6]
    tabs = read(dataset="agnews", path=file(tmp_path, "dev.tsv", "A chip .\tSci/Tech\nA law .\tLaw\n"))
    assert [record.output for record in tabs.records] == ["Sci/Tech"]
    assert "'Law' is unknown" in tabs.quarantined[0].reason
    broken = read(dataset="agnews", path=file(tmp_path, "c.csv", '1,"A,B\n2,C,D\n3,"E",F\n4,G,H\n'))
    assert [text_of(record) for record in broken.records] == ["G H"]
    assert "(lines 1 to 3 were read as one row)" in broken.quarantined[0].reason


def test_aste(tmp_path):
    """Word 1 is `screen`, 0 `Great`, 4 and 5 `battery life`, 3 `poor`; triplets in the order of the aspects,
    then of the opinions."""
    good = "Great screen , poor battery life .####[([4, 5], [3], 'NEG'), ([4, 5], [0], 'POS'), ([1], [3], 'NEG')]"
    path = file(tmp_path, "train.txt", f"{good}\nNo mark\nShort .####[([9], [0], 'POS')]\n")
    pool = read(dataset="lap14", path=path)
    wanted = "negative: screen | poor; positive: battery life | Great; negative: battery life | poor"
    assert pool.records[0].output == wanted
    assert [bad.line for bad in pool.quarantined] == [2, 3]
    assert "do not fit the 2 words" in pool.quarantined[1].reason


@pytest.mark.parametrize(
    ("dataset", "counts"),
    [
        ("sst2", (67_349, 872, 1_821)),
        ("agnews", (20_000, 10_001, 7_600)),
        ("scierc", (1_861, 275, 551)),
        ("webnlg", (5_019, 500, 703)),
        ("lap14", (906, 219, 328)),
        ("rest14", (1_266, 310, 492)),
    ],
)
def test_real_files_are_read_whole(dataset, counts):
    """The publishers' counts, no bad row; every target, read back, holds an item or says that there is none."""
    folder = shared("data/nlu")
    for split, count in zip(("train", "validation", "test"), counts, strict=True):
        pool = read(dataset=dataset, path=folder, split=split)
        assert (len(pool.records), pool.quarantined) == (count, [])
        for record in pool.records[:: max(1, count // 300)]:
            answer = DATASETS[dataset].answer(record.output)
            assert not answer.unreadable and bool(answer.items) == (record.output != "none")


def test_sentences_hand_on_lines(tmp_path):
    """A row's line is that of its first token."""
    rows = list(sentences(file(tmp_path, "x.txt", "\n\na O\nb O\n\nc O\n")))
    assert [(row.line, row.value["tokens"]) for row in rows] == [(3, ["a", "b"]), (6, ["c"])]
