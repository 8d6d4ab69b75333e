"""The audit's numbers by hand, the page, and the three files."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
from six_attacks import record

from winnow.pages.attack_page import marked, write_attacks
from winnow.perturb.attacks.audit import audit
from winnow.perturb.attacks.prompts import SCHEMA, PromptTable

RECORDS = [record("Name a <b>river</b>.", 0), record("Name a lake.", 1), record("", 2)]


def table(name: str) -> PromptTable:
    """Two prompts and a failure."""
    columns = {
        "id": [r.id for r in RECORDS],
        "attack": [name] * 3,
        "prompt": ["Name a <b>rvier</b>.", "Nome a pond.", None],
        "words_changed": [1, 2, 0],
        "similarity": [0.9, 0.6, None],
        "edit_distance": [2, 5, None],
        "queries": [4, 2, 9],
        "success": [True, True, False],
        "flag": [None, None, "empty_instruction"],
        "resources": ["offline: stop words"] * 3,
    }
    return PromptTable(pa.table(columns, schema=SCHEMA), [r.id for r in RECORDS], "f")


def scores(n: int, **columns) -> pa.Table:
    """A score table of n records with these columns."""
    return pa.table({"score": [0.0] * n} | columns)


def test_what_an_attack_did_to_the_loss(tmp_path):
    """Clean losses 1, 2, 3; under the attack 1.5 and 1.8, and 9 where the prompt did not change: changes +0.5 and -0.2,
    mean 0.15, one of two harder. The other attack has no losses."""
    tables = {"deepwordbug": table("deepwordbug"), "textbugger": table("textbugger")}
    losses = scores(3, nll_conditioned=[1.0, 2.0, 3.0], nll_deepwordbug=[1.5, 1.8, 9.0])
    found = write_attacks(tmp_path, tables, RECORDS, losses)["attacks"]
    assert (found["deepwordbug"]["loss_change"], found["deepwordbug"]["harder"]) == (0.15, 0.5)
    assert (found["textbugger"]["loss_change"], found["textbugger"]["harder"]) == (None, None)
    page = (tmp_path / "attacks.html").read_text()
    assert (
        "loss change <b>+0.5</b>" in page and "loss change <b>−0.2</b>" in page and page.count("loss change <b>") == 2
    )


def test_numbers():
    """Changed 2 of 3; similarity (0.9 + 0.6) / 2; edits (2 + 5) / 2; words 3 / 2; one of two at 0.8 or above.
    Queries (4 + 2 + 9) / 3: those for nothing count too."""
    assert audit({"deepwordbug": table("deepwordbug")})["attacks"]["deepwordbug"] == {
        "records": 3,
        "changed": 0.6667,
        "similarity": 0.75,
        "edit_distance": 3.5,
        "words_changed": 1.5,
        "queries": 5.0,
        "intelligible": 0.5,
        "flags": {"empty_instruction": 1},
        "resources": ["offline: stop words"],
    }
    assert audit({"a": PromptTable(SCHEMA.empty_table(), [], "f")})["attacks"]["a"]["similarity"] is None


def test_changed_words_are_marked():
    """Only what differs, word by word: `river` against `rvier`; what is put at the end stands alone."""
    assert marked("Name a river.", "Name a rvier.") == (
        [(False, "Name a "), (True, "river"), (False, ".")],
        [(False, "Name a "), (True, "rvier"), (False, ".")],
    )
    assert marked("Go.", "Go. now")[1] == [(False, "Go."), (True, " now")]
    assert "".join(text for _, text in marked("🙂 a\nb", "🙂 c\nb")[1]) == "🙂 c\nb"


def test_three_files(tmp_path):
    """Six rows in the table; a page that shows each record once, escaped, with the reason for a failure."""
    tables = {"deepwordbug": table("deepwordbug"), "textbugger": table("textbugger")}
    numbers = write_attacks(tmp_path, tables, RECORDS, scores(len(RECORDS)))
    assert json.loads((tmp_path / "attacks.json").read_text()) == numbers
    rows = pq.read_table(tmp_path / "attacks.parquet").to_pylist()
    assert [(r["row"], r["attack"]) for r in rows] == [(i, a) for i in range(3) for a in tables]
    assert rows[0]["instruction"] == RECORDS[0].instruction and rows[0]["prompt"] == "Name a <b>rvier</b>."
    page = (tmp_path / "attacks.html").read_text()
    assert page.count("<article") == 3 and page.count('class="variant"') == 6
    assert "&lt;b&gt;" in page and "<b>r" not in page and '<mark class="is">rvier</mark>' in page
    assert "no attacked prompt: empty instruction" in page


def test_fifty_prompts_are_shown(tmp_path):
    """100 records under six attacks: 9 records, the last of them with two attacks, 8 * 6 + 2 = 50."""
    records = [record(f"Name river {i}.", i) for i in range(100)]
    row = table("x").table.slice(0, 1).to_pylist()[0]
    whole = pa.Table.from_pylist([row | {"id": r.id} for r in records], schema=SCHEMA)
    tables = {f"a{k}": PromptTable(whole, [r.id for r in records], "f") for k in range(6)}
    write_attacks(tmp_path, tables, records, scores(100))
    page = (tmp_path / "attacks.html").read_text()
    assert page.count('class="variant"') == 50 and page.count("<article") == 9


def test_long_texts_are_cut_before_they_are_compared(monkeypatch):
    """One letter of word 6,000 of 8,000 is changed: it is the only mark, 500 characters after the beginning of what is
    shown. Pieces that are compared are at most 3,000 a side (twice what is shown, a character each), however long the
    texts."""
    from rapidfuzz.distance import Indel

    compared = []
    opcodes = Indel.opcodes
    monkeypatch.setattr(Indel, "opcodes", lambda a, b: compared.append(max(len(a), len(b))) or opcodes(a, b))
    words = [f"word{i}" for i in range(8_000)]
    for n in (8_000, 400_000):
        original = " ".join([*words, *["more"] * (n - 8_000)])
        before, after = marked(original, original.replace("word6000 ", "ward6000 "))
        assert [text for changed, text in before if changed] == ["word6000"]
        assert [text for changed, text in after if changed] == ["ward6000"]
        assert before[0] == after[0] == (False, "… ") and after[-1][1].endswith(" …")
        assert 499 <= len(after[1][1]) <= 501
        end = marked(original, original + " aB3dE5fG7h")[1]
        assert [text for changed, text in end if changed] == [" aB3dE5fG7h"]
    marked("." * 100_000, "," * 100_000)
    assert max(compared) <= 3_000


def test_a_long_text_that_is_changed_at_its_beginning_is_shown_from_there():
    """A word put in moves all that follows by two: nothing else is marked, on either side."""
    original = "x" + " word" * 1_000
    before, after = marked(original, "y z" + " word" * 1_000)
    assert [text for changed, text in before if changed] == ["x"]
    assert [text.strip() for changed, text in after if changed] == ["y", "z"]
    assert "".join(text for _, text in after).startswith("y z word word")
