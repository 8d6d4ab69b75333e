"""Each schema's reading of its rows, derived by hand from the row."""

from __future__ import annotations

import pytest

from winnow.data.records import pool_fingerprint, record_id
from winnow.data.schemas import SCHEMAS, BadRow, Fields, column_schema, detect_schema, read_fields
from winnow.errors import UserError


def sharegpt(*turns: tuple[str, str]) -> dict:
    return {"conversations": [{"from": speaker, "value": text} for speaker, text in turns]}


def messages(*turns: tuple[str, str]) -> dict:
    return {"messages": [{"role": role, "content": text} for role, text in turns]}


EXAMPLES = {
    "alpaca": ({"instruction": "Add.", "input": "1 2", "output": "3"}, Fields("Add.", "1 2", "3")),
    "dolly": (
        {"instruction": "Who?", "context": "A text.", "response": "Ann", "category": None},
        Fields("Who?", "A text.", "Ann"),
    ),
    "lima": ({"conversations": ["Hi", "Hello"], "source": "x"}, Fields("Hi", "", "Hello")),
    "sharegpt": (sharegpt(("human", "Hi"), ("gpt", "Hello")), Fields("Hi", "", "Hello")),
    "messages": (messages(("user", "Hi"), ("assistant", "Hello")), Fields("Hi", "", "Hello")),
    "flan_cot": (
        {"source": "s", "instruction": "1+1?\\nOptions:\\n(A) 2", "rationale": "One.\\nTwo.", "answer": "(A)"},
        Fields("1+1?\nOptions:\n(A) 2", "", "One.\nTwo.\nThe answer is (A)"),
    ),
    "cot_collection": (
        {"source": "1+1?", "target": "2", "rationale": "Count.", "task": "t"},
        Fields("1+1?", "", "Count.\nThe answer is 2"),
    ),
}


@pytest.mark.parametrize("name", SCHEMAS)
def test_each_schema_is_recognised_and_read(name):
    """One row a schema: detection names it, and its fields are those written beside the row above."""
    row, fields = EXAMPLES[name]
    assert detect_schema([(0, row)], "f") == name
    assert read_fields(SCHEMAS[name], row) == fields


def test_a_backslash_with_n_is_a_line_break_in_flans_own_rows_alone():
    """FLAN's rows have the column `source`. Elsewhere `\\n` begins LaTeX's `\\neq`: x not equal 3 stays as it is."""
    row = {"instruction": r"$x \neq 3$", "rationale": r"a\nb", "answer": "4"}
    assert read_fields(SCHEMAS["flan_cot"], row)[:3] == (r"$x \neq 3$", "", "a\\nb\nThe answer is 4")
    assert read_fields(SCHEMAS["flan_cot"], row | {"source": "aqua"}).output == "a\nb\nThe answer is 4"
    other = {"source": row["instruction"], "rationale": row["rationale"], "target": "4"}
    assert read_fields(SCHEMAS["cot_collection"], other)[:3] == (r"$x \neq 3$", "", "a\\nb\nThe answer is 4")


def test_the_last_assistant_turn_is_the_answer():
    """Turns u1 a1 u2 a2 u3: a2 is the last answer, u2 asks for it, u1 and a1 are context, u3 is dropped."""
    expected = Fields("u2", "", "a2", (("user", "u1"), ("assistant", "a1")))
    texts = ["u1", "a1", "u2", "a2", "u3"]
    assert read_fields(SCHEMAS["lima"], {"conversations": texts}) == expected
    speakers = ["human", "gpt", "user", "chatgpt", "human"]
    assert read_fields(SCHEMAS["sharegpt"], sharegpt(*zip(speakers, texts, strict=True))) == expected
    roles = ["user", "assistant", "user", "assistant", "user"]
    assert read_fields(SCHEMAS["messages"], messages(*zip(roles, texts, strict=True))) == expected


def test_texts_are_not_stripped():
    """White space at either end, and an answer of white space only, are part of the texts."""
    row = {"instruction": " a\n", "input": "\t", "output": " \n"}
    assert read_fields(SCHEMAS["alpaca"], row) == Fields(" a\n", "\t", " \n")


def test_an_absent_input_is_empty_and_an_empty_output_is_kept():
    """Evol-Instruct has no input column; an empty answer is left for scoring to flag."""
    assert read_fields(SCHEMAS["alpaca"], {"instruction": "a", "output": ""}) == Fields("a", "", "")


@pytest.mark.parametrize(
    ("name", "row", "reason"),
    [
        ("alpaca", {"instruction": "a", "input": ""}, "field `output` is missing (keys found: instruction, input)"),
        ("alpaca", {"instruction": "a", "output": 7}, "field `output` is a number, a text was expected"),
        ("alpaca", {"instruction": "a", "input": 7, "output": "b"}, "field `input` is a number, a text was expected"),
        ("alpaca", {"instruction": "a", "output": None}, "field `output` is null, a text was expected"),
        ("alpaca", {"instruction": "", "input": "", "output": "b"}, "instruction and input are both empty"),
        ("alpaca", ["a", "b"], "the row is a list, an object was expected"),
        (
            "alpaca",
            {"instruction": "a", "output": "b\ud800"},
            "output holds \\ud800 at character 1, half a surrogate pair",
        ),
        ("dolly", {"instruction": "a", "context": "", "response": True}, "field `response` is a boolean"),
        ("lima", {"conversations": ["a"]}, "the conversation has no assistant turn"),
        ("lima", {"conversations": []}, "the conversation has no assistant turn"),
        ("lima", {"conversations": ["a", None]}, "turn 2 of `conversations` is null, a text was expected"),
        ("sharegpt", sharegpt(("gpt", "a")), "the last assistant turn (turn 1) follows nothing"),
        ("sharegpt", sharegpt(("human", "a"), ("gpt", "b"), ("gpt", "c")), "(turn 3) follows a turn of the assistant"),
        (
            "sharegpt",
            sharegpt(("human", "a"), ("narrator", "b")),
            "turn 2 of `conversations` has the unknown from 'narrator'",
        ),
        ("sharegpt", {"conversations": [["a"]]}, "turn 1 of `conversations` is a list, an object with `role`"),
        ("messages", {"messages": [{"role": "user"}]}, "turn 1 of `messages` has no text (keys found: role)"),
        ("messages", {"x": 1}, "field `conversations` or `conversation` or `messages` is missing (keys found: x)"),
        ("flan_cot", {"instruction": "a", "rationale": "b"}, "field `answer` is missing"),
    ],
)
def test_a_row_that_is_no_record_is_refused_with_the_reason(name, row, reason):
    with pytest.raises(BadRow) as caught:
        read_fields(SCHEMAS[name], row)
    assert reason in str(caught.value)


def test_mixed_schemas_are_named_with_their_first_rows():
    """Rows 0 and 4 are Alpaca, row 2 is Dolly: both are named, each with the row it was first seen in."""
    rows = [(0, EXAMPLES["alpaca"][0]), (2, EXAMPLES["dolly"][0]), (4, EXAMPLES["alpaca"][0])]
    with pytest.raises(UserError, match=r"f mixes schemas \(alpaca from row 0, dolly from row 2\)"):
        detect_schema(rows, "f")


def test_a_row_of_two_schemas_is_not_guessed():
    row = EXAMPLES["dolly"][0] | EXAMPLES["messages"][0]
    with pytest.raises(UserError, match=r"fits several schemas \(dolly, messages\).*data.schema="):
        detect_schema([(0, row)], "f")


def test_an_unknown_schema_lists_keys_schemas_and_the_way_out():
    rows = [(0, {"question": "a"}), (1, {"question": "a", "reply": "b"})]
    with pytest.raises(UserError, match="keys question, reply;") as caught:
        detect_schema(rows, "f")
    message = str(caught.value)
    assert all(name in message for name in SCHEMAS)
    assert "data.columns=" in message


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"instruction": "q"}, "maps instruction; it must map instruction and output"),
        ({"instruction": "q", "output": "a", "answer": "b"}, "maps instruction, output, answer; it must"),
        ({"instruction": "q", "output": 3}, "data.columns.output=3 is no column name"),
    ],
)
def test_wrong_columns_are_refused(columns, message):
    with pytest.raises(UserError, match=message):
        column_schema(columns)


def test_a_record_id_is_the_hash_of_the_texts():
    """`printf '["a","b","c",[]]' | sha256sum` begins with these digits; then [["user","u"]] for []."""
    assert record_id("a", "b", "c") == "637dd013f59d9065"
    assert record_id("a", "b", "c", (("user", "u"),)) == "63ce3cf4d7e9c11c"


def test_a_record_id_keeps_the_fields_apart():
    """The same characters in other fields are another record."""
    ids = {record_id("ab", "", "c"), record_id("a", "b", "c"), record_id("", "ab", "c"), record_id("a", "", "bc")}
    assert len(ids) == 4


def test_a_fingerprint_ignores_order_and_repeats():
    assert pool_fingerprint(["b", "a", "b"]) == pool_fingerprint(["a", "b"])
    assert pool_fingerprint(["a"]) != pool_fingerprint(["a", "b"])
