"""Layouts that people's files have: each is read as what it is, and what is not read is named."""

from __future__ import annotations

import csv
import json
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from composed import build

from winnow.data.records import Pool
from winnow.data.writers import write_subset
from winnow.errors import UserError

read = partial(build, "data/file")


def pool_of(folder: Path, *rows: dict, **settings) -> Pool:
    """The pool of a JSON Lines file with these rows."""
    path = folder / "pool.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read(source=path, **settings)


def texts(pool: Pool) -> list[tuple]:
    return [(one.instruction, one.input, one.output, one.turns) for one in pool.records]


def reasons(pool: Pool) -> list[str]:
    return [bad.reason for bad in pool.quarantined]


PLAIN = ("Hi", "", "Hello", ())
SYSTEM = (("system", "Be brief."),)
FROM = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]
ROLE = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]


# -- columns of texts --------------------------------------------------------------------------------------


@pytest.mark.parametrize("nothing", [None, float("nan"), ""])
@pytest.mark.parametrize(
    "row",
    [
        {"instruction": "Hi", "input": ..., "output": "Hello"},
        {"instruction": "Hi", "context": ..., "response": "Hello"},
        {"instruction": "Hi", "input": "", "output": "Hello", "system": ...},
        {"instruction": "Hi", "input": "", "output": "Hello", "history": ...},
        {"conversations": FROM, "system": ...},
    ],
    ids=["alpaca", "dolly", "system", "history", "chat"],
)
def test_an_optional_column_without_a_value_is_absent(tmp_path, row, nothing):
    """null, the NaN that pandas writes into JSON (read by Python as nan), and the empty text mean the same."""
    pool = pool_of(tmp_path, {key: nothing if value is ... else value for key, value in row.items()})
    assert (texts(pool), pool.unread) == ([PLAIN], ())


def test_nulls_of_parquet_and_of_named_columns_are_absent(tmp_path):
    rows = [{"i": "Hi", "c": None, "o": "Hello"}, {"i": "Add.", "c": "1 2", "o": "3"}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "pool.parquet")
    columns = {"instruction": "i", "input": "c", "output": "o"}
    assert texts(read(source=tmp_path / "pool.parquet", columns=columns)) == [PLAIN, ("Add.", "1 2", "3", ())]


@pytest.mark.parametrize("keys", [("instruction", "output"), ("instruction", "response")])
def test_input_and_context_are_both_the_input(tmp_path, keys):
    """Either is read beside Alpaca's and beside Dolly's keys; where both hold a text, a blank line lies between, the
    schema's own first."""
    row = dict(zip(keys, ("Hi", "Hello"), strict=True))
    both = "I\n\nC" if keys[1] == "output" else "C\n\nI"
    pool = pool_of(tmp_path, row | {"context": "C"}, row | {"input": "I"}, row | {"input": "I", "context": "C"})
    assert [record.input for record in pool.records] == ["C", "I", both]
    assert pool.unread == ()


def test_history_and_system_are_earlier_turns(tmp_path):
    """LLaMA-Factory's Alpaca: the system text first, then each pair as question and answer."""
    row = {"instruction": "u3", "output": "a3", "system": "Be brief.", "history": [["u1", "a1"], ["u2", "a2"]]}
    earlier = (*SYSTEM, ("user", "u1"), ("assistant", "a1"), ("user", "u2"), ("assistant", "a2"))
    assert texts(pool_of(tmp_path, row)) == [("u3", "", "a3", earlier)]


def test_history_in_a_cell_is_json(tmp_path):
    path = tmp_path / "pool.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([["instruction", "output", "history"], ["Hi", "Hello", '[["q", "a"]]'], ["Hi", "Hello", ""]])
    assert [one.turns for one in read(source=path).records] == [(("user", "q"), ("assistant", "a")), ()]


@pytest.mark.parametrize("history", [[["q"]], [ROLE[0]], ["q", "a"], {"q": "a"}, "q", [["q", None]], 3])
def test_a_history_of_another_form_is_quarantined(tmp_path, history):
    good = {"instruction": "Hi", "output": "Hello"}
    pool = pool_of(tmp_path, good, good | {"history": history})
    assert len(pool.records) == 1 and "`history`" in reasons(pool)[0]
    assert reasons(pool)[0].endswith("leave it out, set data.columns='{instruction: instruction, output: output}'")
    columns = {"instruction": "instruction", "output": "output"}
    assert texts(pool_of(tmp_path, good | {"history": history}, columns=columns)) == [PLAIN]


def test_columns_name_system_and_history(tmp_path):
    row = {"q": "Hi", "a": "Hello", "s": "Be brief.", "h": [["u", "v"]], "system": "not asked for"}
    columns = {"instruction": "q", "output": "a", "system": "s", "history": "h"}
    pool = pool_of(tmp_path, row, columns=columns)
    assert pool.records[0].turns == (*SYSTEM, ("user", "u"), ("assistant", "v"))
    assert pool.unread == ("system",)


def test_what_is_not_read_is_named(tmp_path):
    """A column counts where it holds something: `notes` is empty, `weight` stands in a turn."""
    chat = [{"role": "user", "content": "Hi", "weight": 0}, ROLE[1], {"role": "user", "content": "And?"}]
    pool = pool_of(tmp_path, {"messages": chat, "source": "web", "notes": None, "tags": []})
    assert pool.unread == ("source", "messages.weight", "turns after the last answer")


def test_the_id_covers_system_and_earlier_turns(tmp_path):
    """Five rows with one question and one answer and other things before them: five ids, where the score differs."""
    row = {"instruction": "Hi", "output": "Hello"}
    rows = [
        row,
        row | {"system": "Be brief."},
        row | {"history": [["q", "a"]]},
        row | {"history": [["q", "b"]]},
        row | {"context": "C"},
    ]
    assert len({record.id for record in pool_of(tmp_path, *rows).records}) == 5


def test_a_system_column_and_a_system_turn_are_one_record(tmp_path):
    rows = [
        {"conversations": FROM, "system": "Be brief."},
        {"conversations": [{"from": "system", "value": "Be brief."}, *FROM]},
        {"conversations": [{"from": "system", "value": "Be brief."}, *FROM], "system": "Be brief."},
    ]
    pool = pool_of(tmp_path, *rows)
    assert texts(pool) == [("Hi", "", "Hello", SYSTEM)] * 3
    assert pool.duplicates == 2


def test_two_different_system_texts_are_quarantined(tmp_path):
    rows = [{"messages": ROLE}, {"messages": [{"role": "system", "content": "A"}, *ROLE], "system": "B"}]
    assert reasons(pool_of(tmp_path, *rows)) == ["`system` and the first turn are two different system texts"]


# -- chats -------------------------------------------------------------------------------------------------


LISTS = [(turns, form) for turns in (FROM, ROLE, ["Hi", "Hello"]) for form in ("list", "json")]
OBJECTS = [(turns, form) for turns in (FROM, ROLE) for form in ("lists", "json of lists")]


@pytest.mark.parametrize("column", ["conversations", "conversation", "messages"])
@pytest.mark.parametrize(("turns", "form"), [*LISTS, *OBJECTS])
def test_every_chat_is_recognised_by_its_turns(tmp_path, column, turns, form):
    """Three columns, three kinds of turns, four forms of the list: one record, the same for all."""
    if "lists" in form:
        turns = {key: [turn[key] for turn in turns] for key in turns[0]}
    cell = json.dumps(turns) if "json" in form else turns
    pool = pool_of(tmp_path, {column: cell, "id": "1"})
    assert (texts(pool), pool.unread) == ([PLAIN], ("id",))
    back = read(source=write_subset(pool, [0], tmp_path / "out"))
    assert (texts(back), back.records[0].raw) == ([PLAIN], {column: cell, "id": "1"})


@pytest.mark.parametrize("format", ["csv", "tsv", "parquet"])
def test_turns_as_json_text_in_a_table(tmp_path, format):
    """Pandas writes nested columns of a CSV as text; a tab and a quote in the text must not break the cell."""
    turns = json.dumps([{"role": "user", "content": 'a\t"b"\nc'}, {"role": "assistant", "content": "Hello"}])
    path = tmp_path / f"pool.{format}"
    if format == "parquet":
        pq.write_table(pa.table({"messages": [turns]}), path)
    else:
        with path.open("w", newline="") as file:
            csv.writer(file, delimiter="," if format == "csv" else "\t").writerows([["messages"], [turns]])
    pool = read(source=path)
    assert texts(pool) == [('a\t"b"\nc', "", "Hello", ())]
    assert texts(read(source=write_subset(pool, [0], tmp_path / "out"))) == texts(pool)


@pytest.mark.parametrize(
    ("user", "assistant", "system"),
    [
        ("user", "assistant", "system"),
        ("human", "gpt", "system"),
        ("Human", "GPT", "System"),
        ("USER", "ASSISTANT", "SYSTEM"),
        ("prompter", "assistant", "developer"),
        ("user", "model", "system"),
        ("human", "bot", "system"),
        ("human", "chatgpt", "system"),
        ("Human", "AI", "system"),
    ],
)
def test_usual_names_of_roles(tmp_path, user, assistant, system):
    turns = [(system, "Be brief."), (user, "Hi"), (assistant, "Hello")]
    rows = [{"conversations": [{"from": role, "value": text} for role, text in turns]}]
    assert texts(pool_of(tmp_path, *rows)) == [("Hi", "", "Hello", SYSTEM)]


def test_columns_of_a_merged_table_are_null_where_a_row_has_others(tmp_path):
    """Parquet gives every turn all keys, and every row all columns: what holds nothing says nothing."""
    empty = {"from": None, "value": None, "role": None, "content": None}
    rows = [
        {"conversations": [empty | turn for turn in FROM], "messages": None},
        {"conversations": None, "messages": [empty | turn for turn in ROLE]},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "pool.parquet")
    assert texts(read(source=tmp_path / "pool.parquet", schema="messages")) == [PLAIN, PLAIN]


def test_a_column_without_a_value_does_not_hide_the_schema(tmp_path):
    """Alpaca rows merged with Dolly rows have both `output` and `response`, one of them null."""
    alpaca = {"instruction": "a", "output": "b", "response": None, "messages": None}
    pool = pool_of(tmp_path, alpaca, {**alpaca, "instruction": "c", "response": float("nan")})
    assert pool.schema == "alpaca" and len(pool.records) == 2
    assert pool_of(tmp_path, {**alpaca, "output": None, "response": "b"}).schema == "dolly"


@pytest.mark.parametrize("cell", ["[{'from': 'human', 'value': 'a'}]", "Human: a\nAssistant: b"])
def test_a_text_where_turns_are_meant_is_told(tmp_path, cell):
    """Python's own spelling of a list, as pandas writes it into a CSV file, and a chat as one text."""
    with pytest.raises(UserError, match="`conversations` is a text that is no JSON, a list was expected"):
        pool_of(tmp_path, {"conversations": cell})


def test_turns_in_a_column_of_another_name(tmp_path):
    """The sentence proposes the setting, and the setting reads the file."""
    row = {"id": 1, "dialog": ["Hi", "Hello"]}
    with pytest.raises(UserError, match=r"data.columns='\{turns: dialog\}'"):
        pool_of(tmp_path, row)
    assert texts(pool_of(tmp_path, row, columns={"turns": "dialog"})) == [PLAIN]


def test_text_parts_are_joined(tmp_path):
    """Parts are pieces of one text: nothing is put between them. Null keys of other kinds of parts are no matter."""
    parts = [{"type": "text", "text": "H", "image_url": None}, {"type": "text", "text": "i"}]
    rows = [{"messages": [{"role": "user", "content": parts}, ROLE[1]]}]
    assert texts(pool_of(tmp_path, *rows)) == [PLAIN]


@pytest.mark.parametrize(
    ("turn", "reason"),
    [
        ({"role": "tool", "content": "3"}, "turn 3 of `messages` (tool) is part of a tool call"),
        ({"role": "function", "content": "3"}, "turn 3 of `messages` (function) is part of a tool call"),
        ({"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}, "(assistant) is part of a tool call"),
        ({"role": "assistant", "content": None}, "turn 3 of `messages` has a content that is null"),
        ({"role": "judge", "content": "ok"}, "turn 3 of `messages` has the unknown role 'judge'; known are system,"),
        ({"role": "user", "content": [{"type": "image", "url": "x"}]}, "content whose part 1 is of type 'image'"),
        ({"speaker": "user", "content": "x"}, "does not say who speaks (keys found: speaker, content); name the keys"),
        ("Hi", "turn 3 of `messages` is a text, an object with `role` and `content` was expected"),
    ],
)
def test_a_turn_that_cannot_be_read_quarantines_its_record_alone(tmp_path, turn, reason):
    pool = pool_of(tmp_path, {"messages": ROLE}, {"messages": [*ROLE, turn, ROLE[1]]})
    assert texts(pool) == [PLAIN]
    assert reason in reasons(pool)[0]


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ("[{'role': 'user'}]", "field `messages` is a text that is no JSON, a list was expected"),
        ({"role": ["user"], "content": ["Hi", "Hello"]}, "the lists of `messages` differ in length"),
        ({"role": "user"}, "field `messages` is an object, a list of turns was expected"),
        (7, "field `messages` is a number, a list of turns was expected"),
        (None, "field `messages` is null, a list of turns was expected"),
    ],
)
def test_a_cell_that_is_no_chat_is_quarantined(tmp_path, cell, reason):
    assert reasons(pool_of(tmp_path, {"messages": ROLE}, {"messages": cell})) == [reason]


def test_two_chats_in_one_row_are_not_guessed(tmp_path):
    row = {"conversations": FROM, "messages": ROLE}
    with pytest.raises(UserError, match="there are turns in `conversations` and `messages`"):
        pool_of(tmp_path, row)
    pool = pool_of(tmp_path, {"messages": ROLE}, row)
    assert reasons(pool) == [
        "there are turns in `conversations` and `messages`; name the column with data.columns='{turns: COLUMN}'"
    ]
    assert texts(pool_of(tmp_path, row, columns={"turns": "messages"})) == [PLAIN]


def test_columns_name_the_keys_and_roles_of_a_chat(tmp_path):
    turns = [{"speaker": "Q", "says": "Hi"}, {"speaker": "A", "says": "Hello"}]
    columns = {"turns": "dialog", "role": "speaker", "content": "says", "user": "Q", "assistant": "A", "system": "rule"}
    columns["system_role"] = "Sys"
    told = [{"speaker": "SYS", "says": "Be brief."}, *turns]
    pool = pool_of(tmp_path, {"dialog": turns, "rule": "Be brief."}, {"dialog": told}, columns=columns)
    assert (texts(pool), pool.schema) == ([("Hi", "", "Hello", SYSTEM)] * 2, "columns")
    with pytest.raises(UserError, match="maps turns to `talk`, but the columns are dialog"):
        pool_of(tmp_path, {"dialog": turns}, columns={"turns": "talk"})


@pytest.mark.parametrize("columns", [{}, {"turns": "t", "output": "o"}, {"role": "r"}, {"instruction": "i"}])
def test_columns_that_map_nothing_useful_are_refused(tmp_path, columns):
    with pytest.raises(UserError, match="data.columns=.*it must map instruction and output.*turns.*null recognises"):
        pool_of(tmp_path, {"messages": ROLE}, columns=columns)


# -- every answer ------------------------------------------------------------------------------------------


FOUR = [("user", "u1"), ("assistant", "a1"), ("user", "u2"), ("assistant", "a2"), ("user", "u3")]
EVERY = [("u1", "", "a1", ()), ("u2", "", "a2", (("user", "u1"), ("assistant", "a1")))]


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [{"role": role, "content": text} for role, text in FOUR]},
        {"conversations": [text for _, text in FOUR]},
        {"messages": json.dumps([{"role": role, "content": text} for role, text in FOUR])},
        {"messages": {"role": [role for role, _ in FOUR], "content": [text for _, text in FOUR]}},
        {"instruction": "u2", "output": "a2", "history": [["u1", "a1"]]},
        {"instruction": "u2", "output": "a2", "history": '[["u1", "a1"]]'},
    ],
    ids=["list", "texts", "json", "lists", "history", "history in json"],
)
def test_every_answer_is_a_record_with_the_turns_before_it(tmp_path, row):
    """u1 a1 u2 a2 u3: two answers. A row stays an ordinary one: cut after its answer, it gives the same record when it
    is read for its last answer."""
    pool = pool_of(tmp_path, row, turns="every")
    assert texts(pool) == EVERY
    assert [record.row for record in pool.records] == [0, 1]
    assert texts(pool_of(tmp_path, row)) == EVERY[1:]
    back = read(source=write_subset(pool, [1, 0], tmp_path / "out"))
    assert [record.id for record in back.records] == [pool.records[i].id for i in (1, 0)]


def test_the_input_belongs_to_the_last_question(tmp_path):
    """The question of the history came without it."""
    row = {"instruction": "u2", "input": "C", "output": "a2", "history": [["u1", "a1"]]}
    assert texts(pool_of(tmp_path, row, turns="every")) == [EVERY[0], ("u2", "C", *EVERY[1][2:])]


def test_every_answer_of_a_parquet_table_keeps_its_types(tmp_path):
    schema = pa.schema(
        [("messages", pa.list_(pa.struct([("role", pa.string()), ("content", pa.large_string())]))), ("n", pa.int8())]
    )
    rows = [{"messages": [{"role": role, "content": text} for role, text in FOUR], "n": 3}]
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), tmp_path / "pool.parquet")
    pool = read(source=tmp_path / "pool.parquet", turns="every")
    path = write_subset(pool, [0], tmp_path / "out")
    assert pq.ParquetFile(path).schema_arrow == schema
    assert texts(read(source=path)) == EVERY[:1]


def test_parquet_columns_of_json_are_decoded_and_encoded_again(tmp_path):
    """The four turns with contents of arrow.json, as datasets writes mixed types; a third row holds `{`, which is no
    JSON. The first question has a line break, not the characters that JSON writes for it."""
    stored = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
    schema = pa.schema([("messages", pa.list_(pa.struct([("role", pa.string()), ("content", pa.json_())])))])
    said = [{"role": role, "content": json.dumps(text)} for role, text in [("user", "Hi\nthere"), *FOUR[1:]]]
    broken = [{"role": "user", "content": "{"}]
    table = pa.table({"messages": pa.array([said, said[:2], broken], stored)}).cast(schema)
    pq.write_table(table, tmp_path / "pool.parquet")
    pool = read(source=tmp_path / "pool.parquet")
    assert (pool.records[0].turns[0], pool.records[1].instruction) == (("user", "Hi\nthere"), "Hi\nthere")
    assert "wrong JSON in a column of JSON (messages)" in reasons(pool)[0]
    pool = read(source=tmp_path / "pool.parquet", turns="every")
    path = write_subset(pool, [0, 1], tmp_path / "out")
    assert pq.ParquetFile(path).schema_arrow.equals(pq.ParquetFile(tmp_path / "pool.parquet").schema_arrow)
    assert texts(read(source=path)) == texts(pool)[:2]


def test_an_answer_that_answers_nothing_is_context_alone(tmp_path):
    """A greeting before the first question is no record of its own, and stands before the answer."""
    turns = [{"from": "gpt", "value": "Welcome"}, *FROM]
    pool = pool_of(tmp_path, {"conversations": turns}, turns="every")
    assert texts(pool) == [("Hi", "", "Hello", (("assistant", "Welcome"),))]


@pytest.mark.parametrize(
    ("roles", "unread"),
    [
        ("aua", []),
        ("uaaua", []),
        ("uau", ["turns after the last answer"]),
        ("uaa", ["answers that follow no user turn"]),
        ("uaau", ["answers that follow no user turn", "turns after the last answer"]),
    ],
)
def test_what_is_cut_off_is_named(tmp_path, roles, unread):
    """The tail of a conversation is in no record; turns between two answers are before the second."""
    turns = [{"role": {"u": "user", "a": "assistant"}[role], "content": f"{i}"} for i, role in enumerate(roles)]
    assert list(pool_of(tmp_path, {"messages": turns}, turns="every").unread) == unread


def test_a_bad_row_stays_one_when_every_answer_is_read(tmp_path):
    pool = pool_of(tmp_path, {"messages": ROLE}, {"messages": 7}, {"messages": ROLE * 2}, turns="every", limit=3)
    assert [record.row for record in pool.records] == [0, 2, 3]
    assert [bad.row for bad in pool.quarantined] == [1]
    with pytest.raises(UserError, match="data.turns=first is unknown; choose one of last, every"):
        pool_of(tmp_path, {"messages": ROLE}, turns="first")


# -- duplicates --------------------------------------------------------------------------------------------


def test_duplicates_fail_where_they_are_told_to(tmp_path):
    """Row 2 repeats row 0 though its other columns differ: the texts are the record."""
    rows = [{"instruction": "a", "output": "b", "n": n} for n in range(3)]
    rows[1]["instruction"] = "c"
    with pytest.raises(UserError, match="row 2 repeats row 0 .*data.duplicates=drop"):
        pool_of(tmp_path, *rows, duplicates="fail")
    assert [pool_of(tmp_path, *rows, duplicates=one).keep_duplicates for one in ("keep", "drop")] == [True, False]
    assert pool_of(tmp_path, *rows[:2], duplicates="fail").duplicates == 0


# -- files -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.jsonl", b'[\n  {"a": 1},\n  {"a": 2}\n]\n', "begins with `[`: a JSON array must end in .json"),
        ("a.jsonl", b'[{"a": 1}, {"a": 2}]', "begins with `[`: a JSON array must end in .json"),
        ("a.ndjson", b'\xef\xbb\xbf\n[ {"a": 1},\n{"a": 2}]', "begins with `[`: a JSON array must end in .json"),
        ("a.json", b'{"a": 1}\n{"a": 2}\n', "a file with one JSON value a line must end in .jsonl"),
        ("a.jsonl", b"\x1f\x8b\x08\x00", "holds gzip data: its name must end in .json.gz or .jsonl.gz"),
        ("a.csv", b"\x1f\x8b\x08\x00", "holds gzip data"),
        ("a.jsonl", '{"a": 1}\n'.encode("utf-16"), "is UTF-16: convert it to UTF-8"),
        ("a.json", '[{"a": 1}]'.encode("utf-16-be"), "is UTF-16 or no text: convert it to UTF-8"),
        ("a.csv", "a,b\n1,2\n".encode("utf-16-le"), "is UTF-16 or no text: convert it to UTF-8"),
        ("a.jsonl", b"PAR1\x15\x04", "holds Parquet data: its name must end in .parquet"),
        ("a.csv", b"PK\x03\x04\x14\x00", "holds a zip archive: unpack it"),
        ("a.json", b"(\xb5/\xfd\x04\x00", "holds zstd data: unpack it"),
        ("a.jsonl", b"version https://git-lfs.github.com/spec/v1\noid sha256:4d\n", "is a pointer of Git LFS"),
        ("a.parquet", b"version https://git-lfs.github.com/spec/v1\noid sha256:4d\n", "with `git lfs pull`"),
        ("a.json", b"<!DOCTYPE html>\n<html>", "is a web page: download the data file itself"),
        ("a.jsonl", b'{\n "a": 1\n}\n{\n "a": 2\n}\n', "holds JSON over several lines"),
        ("a.csv", b"instruction;output\nq;a\n", "one column `instruction;output` was found; commas must stand"),
        ("a.tsv", b"instruction,output\nq,a\n", "one column `instruction,output` was found; tabs must stand"),
        ("a.yaml", b"- !tag {a: 1}\n", "the ending `.yaml` is unknown; known are .jsonl.gz"),
        ("a.json", b"- instruction: Hi\n  output: [", "wrong JSON at line 1, column 1"),
        ("None", b"", "None: the ending `none` is unknown"),
    ],
)
def test_a_file_under_another_name_says_what_it_is(tmp_path, name, content, expected):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read(source=path)
    assert expected in str(caught.value) and str(path) in str(caught.value)


def test_lists_line_by_line_are_no_array(tmp_path):
    """A first line that is a whole list, with others below it, is a bad row among rows: the file is JSON Lines."""
    path = tmp_path / "a.jsonl"
    path.write_text('[{"role": "user"}]\n{"instruction": "a", "output": "b"}\n')
    assert reasons(read(source=path)) == ["the row is a list, an object was expected"]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"path": ["a", "b"]}, "data.path=.* is no text: put the value into quotes"),
        ({"path": 7}, "data.path=7 is no text: put the value into quotes"),
        ({"source": {"a": 1}}, "data.source=.* is no text: put the value into quotes"),
        ({"path": "None"}, "data.path=None is a text; no value is written null"),
        ({"columns": "None"}, "data.columns=None is a text; no value is written null"),
    ],
)
def test_a_path_that_is_no_text(settings, expected):
    with pytest.raises(UserError, match=expected):
        read(**{"source": None} | settings)
