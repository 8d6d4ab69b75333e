"""answers.parquet and the report's section on it."""

from __future__ import annotations

import json
import re
from xml.etree import ElementTree

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from winnow.data.records import Record
from winnow.errors import UserError
from winnow.pages.answers import answers_section, divergence_plane
from winnow.pages.report import report_content, write_report
from winnow.scoring.answers import write_answers
from winnow.scoring.passes.sampling import SampledAnswers
from winnow.scoring.runner import PassTable

TEXTS = [["one", "two", "one"], ["", "x <b>&amp;", "y"], []]


def records(n=3):
    return [Record(f"r{i}", 10 + i, f"ask {i}", "given" if i == 1 else "", "x", (), "test", {}) for i in range(n)]


def sampled():
    rows = [
        {
            "id": f"r{i}",
            "answers": texts,
            "tokens": [len(text) for text in texts],
            "finish": ["eos", "length", "eos"][: len(texts)],
            "usable": [bool(text) for text in texts],
            "gram": [1.0] * len(texts) ** 2,
            "prompt_tokens": 4 if texts else None,
            "answer_tokens": 1,
            "flag": None if texts else "prompt_fills_window",
        }
        for i, texts in enumerate(TEXTS)
    ]
    return PassTable(pa.Table.from_pylist(rows, schema=SampledAnswers.schema), ["r0", "r1", "r2"])


def scores(folder, rows=None):
    """A score table with the columns of the method, in the run folder."""
    keys = ("id", "row", "score", "flag", "dispersion", "anisotropy", "distinct_answers", "usable_answers")
    own = (
        ("r0", 10, 0.3, None, 0.1, 0.6, 2.0, 3.0),
        ("r1", 11, 0.0, None, 0.0, 0.0, 1.0, 2.0),
        ("r2", 12, None, "a", None, None, None, None),
    )
    rows = rows or [dict(zip(keys, values, strict=True)) for values in own]
    about = {"method": "adg", "settings": {}, "higher_is_better": True, "columns": {}}
    table = pa.Table.from_pylist(rows).replace_schema_metadata({"winnow": json.dumps(about)})
    pq.write_table(table, folder / "scores.parquet")


def test_file(tmp_path):
    """One row per record and answer: 3 + 3 + 0. The third answer of r0 is the first again; an empty one is not
    usable."""
    table = pq.read_table(write_answers(tmp_path, sampled(), records(), 3))
    assert table["id"].to_pylist() == ["r0"] * 3 + ["r1"] * 3 and table["draw"].to_pylist() == [0, 1, 2] * 2
    assert table["row"].to_pylist() == [10] * 3 + [11] * 3 and table["input"].to_pylist() == [""] * 3 + ["given"] * 3
    assert table["answer"].to_pylist() == TEXTS[0] + TEXTS[1] and table["tokens"].to_pylist() == [3, 3, 3, 0, 10, 1]
    assert table["same_as"].to_pylist() == [None, None, 0, None, None, None]
    assert table["usable"].to_pylist() == [True, True, True, False, True, True]
    assert table["finish"].to_pylist() == ["eos", "length", "eos"] * 2
    assert not list(tmp_path.glob(".*"))


def test_file_of_the_first_answers(tmp_path):
    """K = 2 of three that were drawn."""
    assert pq.read_table(write_answers(tmp_path, sampled(), records(), 2)).num_rows == 4


def test_section_in_the_report(tmp_path):
    """The section and its link are there when answers.parquet is, with the texts as text; without it, or with the
    scores of another method, they are not."""
    scores(tmp_path)
    assert report_content(tmp_path)["answers"] is None and 'href="#answers"' not in write_report(tmp_path).read_text()
    write_answers(tmp_path, sampled(), records(), 3)
    page = write_report(tmp_path).read_text()
    assert 'href="#answers"' in page and "x &lt;b&gt;&amp;amp;" in page and "<b>&amp;" not in page
    text = re.sub(r"\s+", " ", re.sub("<[^>]*>", " ", page))
    for told in (
        "answer 3, as 1",
        "answer 2, cut",
        "answer 1, not usable",
        "1 record with answers that are all the same",
    ):
        assert told in text
    assert "1 record with fewer usable answers" in text
    plain = [{"id": "r0", "row": 10, "score": 1.0, "flag": None}]
    scores(tmp_path, plain)
    assert report_content(tmp_path)["answers"] is None


def test_ends(tmp_path):
    """Twelve records: the five highest, best first, and the five lowest, lowest first; the two between in neither."""
    rows = [
        {"id": f"r{i}", "row": i, "score": i / 10, "flag": None, "dispersion": i / 30, "anisotropy": i / 20}
        | {"distinct_answers": 3.0, "usable_answers": 3.0}
        for i in range(12)
    ]
    write_answers(tmp_path, sampled(), records(), 3)
    section = answers_section(tmp_path / "answers.parquet", rows, None)
    assert [card["row"] for card in section["most"]] == [11, 10, 9, 8, 7]
    assert [card["row"] for card in section["least"]] == [0, 1, 2, 3, 4]
    lowest = section["least"][0]
    assert lowest["place"] == 12 and [label for label, _ in lowest["parts"]][3] == "answer 3, as 1"
    assert section["least"][4]["parts"] == [] and section["fewer"] == section["same"] == 0
    assert section["follows"] == {"dispersion": pytest.approx(1), "anisotropy": pytest.approx(1)}


def test_no_score_at_all(tmp_path):
    write_answers(tmp_path, sampled(), records(), 3)
    rows = [{"id": "r0", "row": 0, "score": None, "dispersion": None}]
    section = answers_section(tmp_path / "answers.parquet", rows, {})
    assert section["most"] == [] == section["least"] and "No record has a score" in section["plane"]


def test_broken_file_is_one_sentence(tmp_path):
    (tmp_path / "answers.parquet").write_bytes(b"no parquet")
    scores(tmp_path)
    with pytest.raises(UserError, match="answers.parquet: cannot be read"):
        report_content(tmp_path)


DRAWN = {
    "plane": (divergence_plane([0.1, 0.2, 0.0], [0.5, 0.4, 0.0], [True, False, False]), "all answers the same (1)"),
    "before selection": (divergence_plane([0.1, 0.2], [0.5, 0.4]), "scored (2)"),
    "many": (divergence_plane([i / 4000 for i in range(3500)], [0.5] * 3500, [False] * 3500), "not selected (3,500)"),
    "none": (divergence_plane([], []), "No record has a score"),
}


@pytest.mark.parametrize("case", DRAWN)
def test_plots(case):
    """Well-formed SVG, labelled, with the legend or the reason as text."""
    svg, expected = DRAWN[case]
    root = ElementTree.fromstring(svg)
    assert root.tag.endswith("svg") and root.get("aria-label") == "Dispersion against anisotropy"
    assert expected in " ".join(root.itertext()) and not re.search(r"\bnan\b", svg)
