"""Templates: spans by construction, truncation that never eats an answer silently, BOS as the tokenizer says."""

from __future__ import annotations

import pytest
from composed import template

from winnow.data.records import Record, record_id
from winnow.errors import UserError


def record(instruction="Say hi", input="", output="Hello!", turns=()):
    identity = record_id(instruction, input, output, turns)
    return Record(identity, 0, instruction, input, output, turns, "test", {})


def text(tokenizer, ids):
    return tokenizer.decode(ids)


@pytest.mark.parametrize("name", ["alpaca", "vicuna", "wizard", "plain", "chat"])
def test_spans_hold_exactly_the_records_own_text(name, tokenizer):
    """One token per byte, so a span must decode to the field itself, wherever the template put it."""
    tricky = record("Repeat ### Response: twice", "### Input: <|eos|> x", "### Response: done")
    encoded = template(name).encode([tricky], tokenizer)[0]
    for field in ("instruction", "input"):
        begin, end = encoded.spans[field]
        assert text(tokenizer, encoded.ids[begin:end]) == getattr(tricky, field)
    assert text(tokenizer, encoded.ids[encoded.answer_start :]) == "### Response: done"


@pytest.mark.parametrize("name", ["alpaca", "vicuna", "wizard", "plain", "chat"])
def test_special_tokens_inside_a_record_are_plain_text(name, tokenizer):
    """`<|eos|>` typed by a user is seven bytes, not the control token; only the chat template writes control tokens."""
    encoded = template(name).encode([record("a <|eos|> b", "", "c <|eos|> d")], tokenizer)[0]
    begin, end = encoded.spans["instruction"]
    assert tokenizer.eos_token_id not in encoded.ids[begin:end]
    assert tokenizer.eos_token_id not in encoded.ids[encoded.answer_start :]


def test_alpaca_forms(tokenizer):
    """With an empty input the no-input form is used; the answer is glued to the colon."""
    alpaca = template("alpaca")
    with_input, without = alpaca.encode([record(input="data"), record()], tokenizer)
    assert text(tokenizer, with_input.ids).endswith("### Input:\ndata\n\n### Response:Hello!")
    assert "### Input:" not in text(tokenizer, without.ids)
    assert "input" not in without.spans


def test_direct_view_removes_the_instruction(tokenizer):
    """s(A): nothing but the response mark and the answer."""
    encoded = template("alpaca").encode([record()], tokenizer, view="direct")[0]
    assert text(tokenizer, encoded.ids) == "### Response:Hello!"
    assert encoded.answer_start == len("### Response:")
    bare = template("plain").encode([record()], tokenizer, view="direct")[0]
    assert bare.answer_start == 0 and text(tokenizer, bare.ids) == "Hello!"


def test_earlier_turns_come_before_the_instruction(tokenizer):
    """A conversation keeps its order, and the spans still hold the last turn only."""
    spoken = record("And now?", turns=(("user", "First"), ("assistant", "Reply")))
    for name in ("alpaca", "vicuna", "plain", "chat"):
        encoded = template(name).encode([spoken], tokenizer)[0]
        whole = text(tokenizer, encoded.ids)
        assert whole.index("First") < whole.index("Reply") < whole.index("And now?") < whole.index("Hello!")
        begin, end = encoded.spans["instruction"]
        assert text(tokenizer, encoded.ids[begin:end]) == "And now?"


def test_answer_is_cut_and_said_so(tokenizer):
    """`Hi\\n` is 3 tokens; a window of 5 leaves 2 of the answer's 6."""
    cut = template("plain", max_length=5).encode([record("Hi", "", "Hello!")], tokenizer)[0]
    assert len(cut.ids) == 5 and cut.answer_start == 3 and cut.answer_total == 6
    assert cut.flag is None


def test_prompt_that_fills_the_window_is_flagged(tokenizer):
    """3 prompt tokens in a window of 3: no room for an answer, so a flag and no ids."""
    full = template("plain", max_length=3).encode([record("Hi", "", "Hello!")], tokenizer)[0]
    assert full.flag == "prompt_fills_window" and full.ids == []


def test_empty_answer_is_flagged(tokenizer):
    """Nothing to average."""
    assert template("alpaca").encode([record(output="")], tokenizer)[0].flag == "empty_answer"


def test_eos_only_where_the_whole_answer_fits(tokenizer):
    """An answer that was cut must not teach the model to stop there."""
    plain = template("plain", max_length=10)
    whole, cut, exact = plain.encode(
        [record("Hi", "", "Hello!"), record("Hi", "", "Hello there"), record("Hi", "", "Hello!!")],
        tokenizer,
        eos=True,
    )
    assert whole.ids[-1] == tokenizer.eos_token_id and len(whole.ids) == 10
    assert tokenizer.eos_token_id not in cut.ids
    assert len(exact.ids) == 10 and tokenizer.eos_token_id not in exact.ids


def test_bos(tokenizer):
    """auto follows the tokenizer (this one adds none); true adds one and moves the spans; the chat template's own
    opening token is not doubled."""
    auto, forced = template("alpaca"), template("alpaca", bos=True)
    a, b = auto.encode([record()], tokenizer)[0], forced.encode([record()], tokenizer)[0]
    assert b.ids == [tokenizer.bos_token_id, *a.ids]
    assert b.spans["instruction"][0] == a.spans["instruction"][0] + 1
    chat = template("chat", bos=True).encode([record()], tokenizer)[0]
    assert chat.ids[0] == tokenizer.bos_token_id and chat.ids[1] != tokenizer.bos_token_id


def test_joint_equals_separate_where_nothing_can_merge(tokenizer):
    """A tokenizer without merges has no token that could straddle the boundary."""
    records = [record(), record("Do it", "now", "### Response:")]
    assert template("alpaca", boundary="joint").encode(records, tokenizer) == template("alpaca").encode(
        records, tokenizer
    )


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"bos": "maybe"}, "template.bos=maybe"),
        ({"boundary": "fuzzy"}, "template.boundary=fuzzy"),
        ({"max_length": 1}, "template.max_length=1"),
    ],
)
def test_bad_settings_are_told_in_one_sentence(options, expected):
    with pytest.raises(UserError, match=expected):
        template("alpaca", **options)


def test_unknown_placeholder(tokenizer):
    with pytest.raises(UserError, match="{answer}"):
        template("plain", without_input="{answer}").render(record())
