"""`winnow audit`: the numbers of a run's attacks, the sheet, and the ratings read back."""

from __future__ import annotations

import csv
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from winnow import commands, draws
from winnow.compare import attack_audit
from winnow.compare.attack_audit import write_audit
from winnow.errors import UserError


@pytest.fixture
def run(tmp_path):
    """Four records under one attack, which finds no prompt for the last. s(A) is 2; the attacked losses 1, 2 and 3 make
    ratios of 0.5, 1 and 1.5, and similarities fall as they rise."""
    ids = [f"r{i}" for i in range(4)]
    prompts = {
        "id": ids,
        "row": range(4),
        "attack": ["checklist"] * 4,
        "instruction": ["=1+1", "Name a river.", "Say yes.", ""],
        "prompt": ["=1+1 x", "Name a river. x", "Say yes. x", None],
        "words_changed": [1, 2, 3, 0],
        "similarity": [0.9, 0.8, 0.7, None],
        "edit_distance": [2, 4, 6, None],
        "success": [True, True, True, False],
    }
    pq.write_table(pa.table(prompts), tmp_path / "attacks.parquet")
    scores = {"id": ids, "nll_checklist": [1.0, 2.0, 3.0, None], "nll_direct": [2.0, 2.0, 2.0, None]}
    pq.write_table(pa.table(scores), tmp_path / "scores.parquet")
    return tmp_path


def test_changed_scores_are_refused(run):
    (run / "scores.parquet.sha256").write_text("0  scores.parquet\n")
    with pytest.raises(UserError, match="scores.parquet is damaged"):
        write_audit(run)


def test_measures_and_sheet(run, capsys):
    """Means 0.8, 4 and 2 over three prompts; the similarity falls as the ratio rises (rho -1), the distance rises with
    it (1). The sheet has the three prompts, a text like a formula is disarmed, and nothing is rated yet."""
    commands.audit([str(run)])
    found = json.loads((run / "audit.json").read_text())["attacks"]["checklist"]
    assert (found["prompts"], found["records"]) == (3, 4) and found["similarity"] == pytest.approx(0.8)
    assert (found["edit_distance"], found["words_changed"], found["aifd"]) == (4, 2, 1)
    assert found["similarity_with_aifd"] == pytest.approx(-1) and found["edit_distance_with_aifd"] == pytest.approx(1)
    sheet = list(csv.DictReader((run / "audit.csv").open(encoding="utf-8")))
    assert {row["id"] for row in sheet} == {"r0", "r1", "r2"} and not any(row["rating"] for row in sheet)
    assert {row["instruction"] for row in sheet} == {"'=1+1", "Name a river.", "Say yes."}
    assert "--ratings" in capsys.readouterr().out


def test_the_sheet_is_drawn_by_record(run, monkeypatch):
    """Two of three prompts: those with the lowest draws, here the last two of the pool, and in this order."""
    monkeypatch.setattr(attack_audit, "PROMPTS", 2)
    monkeypatch.setattr(draws, "key", lambda *parts: {"r0": 3, "r1": 2, "r2": 1}[parts[-1]])
    write_audit(run)
    sheet = list(csv.DictReader((run / "audit.csv").open(encoding="utf-8")))
    assert [row["id"] for row in sheet] == ["r2", "r1"]


def test_ratings_are_read_back(run):
    """Ratings 5, 4 and 1: mean 10/3, two of three are 4 or 5, and they fall with the similarity (rho 1) as the ratio
    rises (-1). A sheet that is there is not written again."""
    write_audit(run)
    rows = list(csv.DictReader((run / "audit.csv").open(encoding="utf-8")))
    for row in rows:
        row["rating"] = {"r0": "5", "r1": "4", "r2": " 1 "}[row["id"]]
    with (run / "audit.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    before = (run / "audit.csv").read_bytes()
    commands.audit([str(run), "--ratings", str(run / "audit.csv")])
    write_audit(run)
    assert (run / "audit.csv").read_bytes() == before
    write_audit(run, run / "audit.csv")
    found = json.loads((run / "audit.json").read_text())["attacks"]["checklist"]
    assert found["rated"] == 3 and found["rating"] == pytest.approx(10 / 3) and found["rated_4_or_5"] == 2 / 3
    assert (found["rating_with_similarity"], found["rating_with_aifd"]) == (pytest.approx(1), pytest.approx(-1))


def test_ratings_are_of_the_prompts_that_are_there(run):
    """Scored again with other attacks: the sheet rates prompts that the run no longer has."""
    write_audit(run)
    (run / "filled.csv").write_text("attack,row,id,prompt,rating\nchecklist,1,r1,Name a sea. x,4\n")
    with pytest.raises(UserError, match="the run has another prompt of checklist for row 1 now; delete audit.csv"):
        write_audit(run, run / "filled.csv")
    assert "audit.csv stays as it is; delete it for a new one" in write_audit(run)


def test_a_direct_loss_of_zero_has_no_ratio(run):
    scores = pq.read_table(run / "scores.parquet").to_pydict() | {"nll_direct": [0.0, 2.0, 2.0, None]}
    pq.write_table(pa.table(scores), run / "scores.parquet")
    write_audit(run)
    assert json.loads((run / "audit.json").read_text())["attacks"]["checklist"]["aifd"] == pytest.approx(1.25)


def test_a_rating_counts_though_a_spreadsheet_made_a_number_of_the_id(run):
    (run / "filled.csv").write_text("attack,row,id,rating\nchecklist,0,1.23457E+15,5\nchecklist,1,1234567890123450,4\n")
    write_audit(run, run / "filled.csv")
    found = json.loads((run / "audit.json").read_text())["attacks"]["checklist"]
    assert (found["rated"], found["rating"]) == (2, 4.5)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("attack,row,id,rating\nchecklist,0,r0,6\n", "prompt 1: rating '6' was found, 1 to 5"),
        ("attack,row,id,rating\nchecklist,9,r9,5\n", "checklist of row 9, r9, is no prompt of this run"),
        (
            "attack,row,id,rating\nchecklist,0,00ab00ab00ab00ab,5\n",
            "of row 0, 00ab00ab00ab00ab, is no prompt of this run",
        ),
        ("attack,row,id,rating\nchecklist,0,r0,\n", "holds no rating"),
        ("attack,id,rating\nchecklist,r0,5\n", "lacks a column"),
    ],
)
def test_bad_sheets_are_one_sentence(run, text, told):
    (run / "filled.csv").write_text(text)
    with pytest.raises(UserError, match=told):
        write_audit(run, run / "filled.csv")
    with pytest.raises(UserError, match="cannot be read"):
        write_audit(run, run / "missing.csv")
    with pytest.raises(UserError, match=r"has no attacks\.parquet"):
        write_audit(run / "elsewhere")
