"""Bad data: one sentence that says where and what, or a quarantined row with file, line and reason."""

from __future__ import annotations

import errno
import gzip
import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from composed import build

from winnow.data.readers import read_pool
from winnow.data.writers import write_quarantine, write_subset
from winnow.errors import UserError

read = partial(build, "data/file")

GOOD = {"instruction": "i", "input": "", "output": "o"}


def complaint(path: Path, **settings) -> str:
    with pytest.raises(UserError) as caught:
        read(source=path, **settings)
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith(".")
    return message


@pytest.mark.fault(
    "a data file that is broken, cut or of another format",
    promise="one sentence with file and line",
    trials="each kind",
)
@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.json", b"", "a.json is empty (0 bytes)"),
        ("a.jsonl", b"\n \n", "a.jsonl holds no record: there is no row in it"),
        ("a.json", b"[]", "a.json holds no record: there is no row in it"),
        ("a.csv", b"instruction,output\n", "a.csv holds no record: there is no row in it"),
        # line 3, the quote after `{"a": 1, ` is missing: column 10 is where a key was expected
        ("a.json", b'[\n{"a": 1},\n{"a": 1, b": 2}\n]', "a.json: wrong JSON at line 3, column 10:"),
        ("a.json", b'[{"a": 1} {"a": 2}]', "wrong JSON at line 1, column 11: Expecting ',' delimiter"),
        ("a.json", b'[{"a": 1}', "wrong JSON at line 1, column 10:"),
        ("a.json", b'[{"a": 1},', "wrong JSON at line 1, column 11: Expecting value"),
        ("a.json", b"[1]\n[2]", "wrong JSON at line 2, column 1: Extra data; a file with one JSON value a line must"),
        ("a.json", b'{"a": 1}\n{"a": 2}', "wrong JSON at line 2, column 1: Extra data; a file with one JSON value a"),
        ("a.json", b'{"rows": []}', "holds an object with the keys rows; expected an array of records, or an object"),
        ("a.json", b'"text"', "holds a single value of type str; expected an array of records"),
        ("a.json", b"[" * 200_000, "JSON that cannot be read: maximum recursion depth exceeded"),
        # Latin-1's e acute, 0xe9, is byte 19 of the file and stands on its second line
        ("a.json", b'[\n{"instruction": "\xe9"}]', "is not UTF-8: byte 0xe9 at byte offset 19 (line 2)"),
        ("a.json", b'\xef\xbb\xbf["\xff"]', "is not UTF-8: byte 0xff at byte offset 5 (line 1)"),
        ("a.jsonl.gz", b"not gzip", "a.jsonl.gz cannot be read, the gzip data is damaged or cut off"),
        ("a.json.gz", b"not gzip", "a.json.gz cannot be read, the gzip data is damaged or cut off"),
        ("a.parquet", b"not parquet", "a.parquet is no readable Parquet file"),
        ("a.csv", b"a,a\n1,2\n", "a.csv, line 1: a header of distinct column names was expected, found a, a"),
        ("a.csv", b"\n1,2\n", "a.csv, line 1: a header of distinct column names was expected, found a blank line"),
        ("a.csv", b"a\xff,b\n1,2\n", "a.csv, line 1: the header is not UTF-8"),
        (
            "a.txt",
            b"text",
            "the ending `.txt` is unknown; known are .jsonl.gz, .json.gz, .jsonl, .ndjson, .json, .csv, .tsv, .parquet",
        ),
        ("a.jsonl", b'{"question": "q"}', "no known schema has the keys question; known schemas are alpaca ("),
        ("a.jsonl", b"\x80a\n\xff\n", "no readable record: all 2 rows are bad, the first one (line 1): not UTF-8"),
        ("a.json", b'["a", 1]', "no readable record: all 2 rows are bad, the first one (line 1): the row is a text"),
        (
            "a.jsonl",
            b'{"instruction": "", "output": "o"}\n',
            "all 1 rows are bad, the first one (line 1): instruction and input are both empty",
        ),
    ],
)
def test_a_broken_file_is_one_sentence(tmp_path, name, content, expected):
    path = tmp_path / name
    path.write_bytes(content)
    assert expected in complaint(path)
    assert str(path) in complaint(path)


def test_a_gzip_file_that_is_cut_off_is_not_read_in_part(tmp_path):
    """20,000 rows, the last 100 bytes gone: no pool of fewer rows comes out."""
    path = tmp_path / "a.jsonl.gz"
    rows = "".join(json.dumps({**GOOD, "instruction": str(n)}) + "\n" for n in range(20_000))
    path.write_bytes(gzip.compress(rows.encode())[:-100])
    assert "cut off" in complaint(path)


def test_a_missing_file_and_a_folder(tmp_path):
    assert (
        complaint(tmp_path / "none.jsonl")
        == f"{tmp_path}/none.jsonl does not exist: give a data file with data.path=<file>."
    )
    assert complaint(tmp_path) == f"{tmp_path} is a folder: give a data file in it with data.path=<file>."


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"limit": 0}, "data.limit=0 is out of range"),
        ({"limit": -1}, "data.limit=-1 is out of range"),
        ({"limit": 1.5}, "data.limit=1.5 is not a whole number"),
        ({"limit": True}, "data.limit=true is not a whole number"),
        ({"on_error": "skip"}, "data.on_error=skip is unknown; choose one of quarantine, fail"),
        ({"schema": "alpacca"}, "data.schema=alpacca is unknown; choose auto or one of alpaca ("),
    ],
)
def test_settings_out_of_range(tmp_path, settings, expected):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(GOOD))
    assert expected in complaint(path, **settings)


def test_no_data_at_all_is_named():
    assert "give data.path=<file>" in complaint(None)


@pytest.mark.fault(
    "rows that are no records", promise="quarantined with line and reason; the others are used", trials="each kind"
)
def test_bad_json_lines_are_quarantined_with_line_and_reason(tmp_path):
    """Lines: 1 good, 2 blank, 3 wrong JSON, 4 not UTF-8, 5 no object, 6 missing field, 7 wrong type, 8 empty
    prompt, 9 a number that Python refuses to read, 10 good. The blank line is no row: line n is row n - 2.
    """
    path = tmp_path / "a.jsonl"
    good = json.dumps(GOOD).encode()
    lines = [
        good,
        b"",
        b'{"instruction": "i", }',
        b'{"instruction": "\xe9", "output": "o"}',
        b'["i", "o"]',
        b'{"instruction": "i"}',
        b'{"instruction": "i", "output": ["o"]}',
        b'{"instruction": "", "input": "", "output": "o"}',
        b'{"instruction": "i", "output": ' + b"9" * 5000 + b"}",
        good,
    ]
    path.write_bytes(b"\n".join(lines))
    pool = read(source=path)
    assert [record.row for record in pool.records] == [0, 8]
    assert pool.duplicates == 1
    assert [(bad.line, bad.row) for bad in pool.quarantined] == [(n, n - 2) for n in range(3, 10)]
    assert {bad.file for bad in pool.quarantined} == {str(path)}
    expected = [
        "wrong JSON at column 22",
        "not UTF-8: byte 0xe9 at byte offset 17 of the line",
        "the row is a list, an object was expected",
        "field `output` is missing (keys found: instruction)",
        "field `output` is a list, a text was expected",
        "instruction and input are both empty",
        "JSON that cannot be read",
    ]
    assert [bad.reason.startswith(start) for bad, start in zip(pool.quarantined, expected, strict=True)] == [True] * 7

    written = write_quarantine(pool, tmp_path / "out")
    rows = [json.loads(line) for line in written.read_text(encoding="utf-8").split("\n")[:-1]]
    assert [list(row) for row in rows] == [["file", "line", "row", "reason", "raw"]] * 7
    assert rows[1]["raw"] == '{"instruction": "\\xe9", "output": "o"}'  # the byte is shown, not lost
    assert rows[3]["raw"] == {"instruction": "i"}

    assert complaint(path, on_error="fail").startswith(f"{path}, line 3: wrong JSON at column 22")


def test_bad_json_elements_are_quarantined_with_their_line(tmp_path):
    """With indent 0, json.dumps gives each brace and key a line: the bracket is line 1, element 0 (two
    braces, three keys) lines 2 to 6, so element 1 opens on line 7."""
    path = tmp_path / "a.json"
    path.write_text(json.dumps([GOOD, {**GOOD, "output": None}, GOOD], indent=0))
    assert path.read_text().split("\n")[6] == "{"
    pool = read(source=path)
    assert [(bad.line, bad.row, bad.reason) for bad in pool.quarantined] == [
        (7, 1, "field `output` is null, a text was expected")
    ]
    assert f"{path}, line 7:" in complaint(path, on_error="fail")


def test_a_json_object_has_rows_but_no_lines(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"data": [GOOD, 3]}))
    assert [(bad.line, bad.row) for bad in read(source=path).quarantined] == [(None, 1)]
    assert f"{path}, row 1: the row is a number" in complaint(path, on_error="fail")


def test_bad_csv_rows_are_quarantined_with_their_real_line(tmp_path):
    """The good row 0 spans lines 2 and 3, so the row of two cells stands on line 4, the stray quote on line
    5, the Latin-1 byte on line 6 and the good row 4 on line 7."""
    path = tmp_path / "a.csv"
    path.write_bytes(b'instruction,input,output\n"two\nlines",,o\nonly,two\n"stray"quote,,o\ncaf\xe9,,o\ni,,o\n')
    pool = read(source=path)
    assert [(record.row, record.instruction) for record in pool.records] == [(0, "two\nlines"), (4, "i")]
    assert [(bad.line, bad.row, bad.reason) for bad in pool.quarantined] == [
        (4, 1, "2 cells, the header has 3"),
        (5, 2, "wrong CSV: ',' expected after '\"'"),
        (6, 3, "not UTF-8 in column `instruction`"),
    ]
    assert pool.quarantined[2].raw == ["caf\\xe9", "", "o"]
    assert write_quarantine(pool, tmp_path) == tmp_path / "quarantine.jsonl"


def test_bad_parquet_rows_are_quarantined(tmp_path):
    """Row 1 has a null answer, row 2 bytes that are no UTF-8 in a text column (Arrow does not check them)."""
    texts = pa.Array.from_buffers(
        pa.string(),
        4,
        [None, pa.py_buffer(pa.array([0, 1, 2, 3, 4], pa.int32()).buffers()[1]), pa.py_buffer(b"ab\xffd")],
    )
    table = pa.table({"instruction": texts, "output": ["o", None, "o", "o"]})
    pq.write_table(table, tmp_path / "a.parquet")
    pool = read(source=tmp_path / "a.parquet")
    assert [record.instruction for record in pool.records] == ["a", "d"]
    assert [(bad.line, bad.row) for bad in pool.quarantined] == [(None, 1), (None, 2)]
    assert "not UTF-8: byte 0xff" in pool.quarantined[1].reason
    back = read(source=write_subset(pool, [1, 0], tmp_path / "out"))
    assert [record.instruction for record in back.records] == ["d", "a"]


def test_good_rows_after_a_thousand_bad_ones_are_found(tmp_path):
    """1,500 broken lines come before the only record, one of Dolly's: detection waits for an object."""
    path = tmp_path / "a.jsonl"
    path.write_text("broken\n" * 1500 + '{"instruction": "i", "response": "o"}\n')
    pool = read(source=path)
    assert pool.schema == "dolly"
    assert (len(pool.records), pool.records[0].row, len(pool.quarantined)) == (1, 1500, 1500)


def test_a_very_long_text_is_read(tmp_path):
    """300,000 characters are more than the csv module's own limit of 131,072 for a cell."""
    text = "word " * 60_000
    path = tmp_path / "a.csv"
    path.write_text(f"instruction,output\ni,{text}\n")
    assert read(source=path).records[0].output == text


def test_half_a_surrogate_pair_is_refused_in_texts_and_kept_elsewhere(tmp_path):
    """JSON can spell U+D800 alone; UTF-8 cannot. In a text it is refused, elsewhere it stays escaped."""
    path = tmp_path / "a.jsonl"
    path.write_text('{"instruction": "\\ud800", "output": "o"}\n{"instruction": "i", "output": "o", "x": "\\ud800"}\n')
    pool = read(source=path)
    assert [bad.line for bad in pool.quarantined] == [1]
    assert write_quarantine(pool, tmp_path) is not None
    assert read(source=write_subset(pool, [0], tmp_path / "out")).records[0].raw["x"] == "\ud800"


def test_quarantine_of_an_earlier_run_does_not_stay(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(GOOD) + "\nbroken\n")
    written = write_quarantine(read(source=path), tmp_path)
    assert written.exists()
    path.write_text(json.dumps(GOOD) + "\n")
    assert write_quarantine(read(source=path), tmp_path) is None
    assert not written.exists()


@pytest.mark.fault("a write that fails half-way", promise="the earlier file stays", trials="1")
def test_a_write_that_fails_leaves_the_earlier_subset(tmp_path, monkeypatch):
    """The disk is full while the new file is put in place: the old one stays, and no part file is left."""
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(GOOD))
    pool = read(source=path)
    before = write_subset(pool, [0], tmp_path / "out").read_bytes()

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(UserError, match="subset.jsonl cannot be written: No space left on device"):
        write_subset(pool, [0, 0], tmp_path / "out")
    assert (tmp_path / "out" / "subset.jsonl").read_bytes() == before
    assert os.listdir(tmp_path / "out") == ["subset.jsonl"]


def test_a_folder_that_cannot_be_made(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(GOOD))
    with pytest.raises(UserError, match="cannot be written: Not a directory"):
        write_subset(read(source=path), [0], path / "out")


def test_an_empty_selection_and_a_wrong_row(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(GOOD))
    pool = read(source=path)
    with pytest.raises(UserError, match="No record of .* is selected"):
        write_subset(pool, [], tmp_path)
    for row in (-1, 1):
        with pytest.raises(IndexError, match=f"row {row} is outside the pool's 1 records"):
            write_subset(pool, [row], tmp_path)


def test_a_hub_name_without_cache_and_network_says_what_to_do(tmp_path):
    """In a process of its own, offline, with an empty cache: one sentence on standard error, no more."""
    code = (
        "import sys\nfrom winnow.config import build\nfrom winnow.errors import UserError\n"
        "try:\n    build('data/alpaca')\nexcept UserError as error:\n    sys.exit(str(error))\n"
    )
    source = str(Path(read_pool.__code__.co_filename).parents[2])
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "PYTHONPATH": source}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("tatsu-lab/alpaca (split train) is no local file and could not be had from the")
    assert "data.path=<file>" in done.stderr


def test_a_split_that_the_hub_does_not_have(monkeypatch, tmp_path):
    import datasets

    def load_dataset(name, split):
        raise ValueError(f"Unknown split \"{split}\". Should be one of ['train'].")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r'a/b \(split dev\).*Unknown split "dev"\. Should be one of'):
        read(source="a/b", split="dev")
