"""Every kind of tokenizer with every kind of chat template: the ids are the library's own, and text stays text."""

from __future__ import annotations

import datetime
import os
import random
from types import SimpleNamespace
from unittest.mock import patch

import pytest
from composed import template
from jinja2 import TemplateError
from tokenizer_kinds import BLANK_FIRST, CHATS, ENDS, KINDS, LOSSLESS, MARKERS, tokenizer_of

from winnow.data import tokens
from winnow.data.records import Record

FUZZ_CASES = int(os.environ.get("WINNOW_FUZZ_CASES", "600"))
TEXTS = ("alpaca", "vicuna", "wizard", "plain")
DAY = datetime.datetime(2024, 7, 26)
SPECIAL = [*MARKERS, *ENDS, "[CLS]", "[SEP]"]

CLEAN = [
    ("Name a fruit.", "", "A pear.", ()),
    ("Sum up", "Rain fell; the match was off.\nNobody minded.", "It rained", ()),
    ("And in French?", "", "Une poire", (("user", "Name a fruit."), ("assistant", "A pear."))),
    ("  blanks around \n", "", " blank first", ()),
    ("Name it", "", "Ünïcode 中文 🙂", (("system", "Be brief."),)),
    ("Who?", "", "Me", (("system", "Be brief."), ("user", "Hi"), ("assistant", "Hello"))),
    ("Go on", "", "Yes", (("assistant", "Hello"),)),
    ("Twice", "", "No", (("user", "One"), ("user", "Two"))),
]


def record(instruction, given, output, turns=(), row=0):
    return Record(str(row), row, instruction, given, output, turns, "test", {})


def library(one: Record, tokenizer):
    """Ids of the prompt as transformers makes them on the day that the template is told, or its refusal."""
    last = f"{one.instruction}\n\n{one.input}" if one.input else one.instruction
    messages = [{"role": role, "content": text} for role, text in (*one.turns, ("user", last))]
    clock = SimpleNamespace(now=lambda: DAY)
    try:
        with patch("transformers.utils.chat_template_utils.datetime", clock):
            return tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    except TemplateError as error:
        return error


@pytest.mark.parametrize("chat", CHATS)
@pytest.mark.parametrize("kind", KINDS)
def test_chat_ids_are_the_librarys_own(kind, chat):
    """BOS, blanks and merges included. What the library refuses is flagged in the template's own words.

    Of the 8 records, Gemma's rules refuse 2 with a system turn, 1 that begins with the assistant and 1 with two user
    turns; those of Llama-2 the last two; those of Mistral four.
    """
    tokenizer = tokenizer_of(kind, chat)
    records = [record(*fields, row=i) for i, fields in enumerate(CLEAN)]
    encoded = template("chat").encode(records, tokenizer)
    refused = 0
    for one, own in zip(records, encoded, strict=True):
        expected = library(one, tokenizer)
        if isinstance(expected, TemplateError):
            refused += 1
            assert own.ids == [] and own.flag == f"template_refuses_turns: {expected}"
        else:
            assert own.flag is None and own.ids[: own.answer_start] == expected
    assert refused == {"gemma": 4, "mistral": 4, "llama2": 2}.get(chat, 0)


def test_the_work_grows_with_the_turns(monkeypatch):
    """A marker is held against the texts that it touches: 200 turns have 400 markers, which touch none."""
    holds, calls = tokens._holds, []
    monkeypatch.setattr(tokens, "_holds", lambda *given: calls.append(given) or holds(*given))
    long = record("Go on", "", "Yes", (("user", "One"), ("assistant", "Two")) * 100)
    tokenizer = tokenizer_of("byte-level BPE", "chatml")
    (own,) = template("chat", max_length=100_000).encode([long], tokenizer)
    assert own.ids[: own.answer_start] == library(long, tokenizer) and len(calls) <= 400


@pytest.mark.parametrize("name", [*TEXTS, "chat"])
@pytest.mark.parametrize("kind", LOSSLESS)
def test_spans_decode_to_the_records_text(kind, name):
    """Wherever no token holds text of two parts, which these words, ending in letters, see to."""
    tokenizer = tokenizer_of(kind, "chatml")
    words = record("Sum up the news", "Rain fell on the match", "It rained")
    encoded = template(name).encode([words], tokenizer)[0]
    for field in ("instruction", "input"):
        begin, end = encoded.spans[field]
        assert tokenizer.decode(encoded.ids[begin:end]).strip() == getattr(words, field)
    assert tokenizer.decode(encoded.ids[encoded.answer_start :]) == "It rained"


def _joint(kind: str, name: str, one: Record):
    """Ids of prompt and answer as one text, and whether a token holds both."""
    tokenizer, prompt = tokenizer_of(kind), template(name).render(one)
    out = tokenizer(
        prompt + one.output, add_special_tokens=False, return_offsets_mapping=True, split_special_tokens=True
    )
    return out["input_ids"], any(a < len(prompt) < b for a, b in out["offset_mapping"])


ANSWERS = ["Hello", " Hello", "hello there.", "\n\nTwo lines", "中文", "🙂", "12", ": x", "a", "  two", "", "\t", "é"]


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("kind", KINDS)
def test_apart_is_together_wherever_no_merge_crosses(kind, name):
    """The definition of `separate`: one text, with the merges over the boundary left out."""
    tokenizer, compared = tokenizer_of(kind), 0
    for answer in ANSWERS:
        one = record("Say hi", "", answer)
        whole, crossed = _joint(kind, name, one)
        own = template(name).encode([one], tokenizer)[0]
        if crossed or own.flag is not None:
            assert crossed or answer.strip() == ""
            continue
        prefix = [tokenizer.bos_token_id] if tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id else []
        assert own.ids == prefix + whole
        compared += 1
    assert compared >= 5


@pytest.mark.parametrize("view", ["clean", "direct"])
@pytest.mark.parametrize("name", [*TEXTS, "chat"])
@pytest.mark.parametrize("kind", BLANK_FIRST)
def test_no_blank_is_put_before_an_answer(kind, name, view):
    """`Hello`, not `▁Hello`, whatever stands before it, and the same ids in every view; a blank that the answer itself
    begins with stays."""
    tokenizer = tokenizer_of(kind, "mistral")
    glued, blank = template(name).encode([record("Hi", "", "Hello"), record("Hi", "", " Hello")], tokenizer, view)
    answers = [tokenizer.convert_ids_to_tokens(one.ids[one.answer_start :]) for one in (glued, blank)]
    assert "".join(answers[0]) == "Hello" and "".join(answers[1]) == "▁Hello"


def _hostile(draws: random.Random, marked: bool) -> str:
    """Template words, parts of markers, blanks, letters of all kinds; and whole markers, if `marked`."""
    pieces = [
        *(SPECIAL if marked else ()), "<|im_", "end|>", "</", "s>", "<", ">", "|", "[INST]", "[/INST]", "<<SYS>>",
        "### Response:", "\n", "\n\n", " ", "   ", "\t", "\r\n", "▁", "\ue0000\ue001", "\u200b", "e\u0301", "é",
        "中文", "🙂", "\x00", "\u2028", "word", "Hello", "the", "123", ".", ":", "'s", "{text}", "{{ x }}", "{% if %}",
        "{instruction}",
    ]  # fmt: skip
    return "".join(draws.choice(pieces) for _ in range(draws.randint(0, 9)))


def _holds_marker(one: Record) -> bool:
    texts = (*(text for _, text in one.turns), one.instruction, one.input, one.output)
    return any(marker in text for marker in SPECIAL for text in texts)


def _control(tokenizer, plain) -> set[int]:
    """BOS, EOS, special tokens, and the markers that a chat holds whose words are all `x`."""
    written = set() if isinstance(plain, TemplateError) else set(plain)
    vocabulary, added = tokenizer.get_vocab(), tokenizer.added_tokens_decoder
    markers = {vocabulary[marker] for marker in MARKERS if marker in vocabulary}
    special = {i for i in markers if i in added and added[i].special}
    return {tokenizer.bos_token_id, tokenizer.eos_token_id} | special | (markers & written)


@pytest.mark.fault(
    "random texts through templates and tokenizers",
    promise="spans hold the text, no control token appears",
    trials="600 cases in CI, more with WINNOW_FUZZ_CASES",
)
def test_fuzz(record_property):
    """Seeded records of hostile text through every kind, with a chat template and with a text template.

    Control ids: those of a chat prompt are those of the same chat of the words `x`, in that order, so that none came
    from a record; none in a text prompt but BOS; none in an answer. Without a marker in the text the prompt is the
    library's. An answer of a tokenizer that loses nothing decodes to itself. Llama-2's rules strip the blank line after
    the system text away when the turn that follows is blank: such a record is flagged.
    """
    record_property("trials", FUZZ_CASES)
    draws, same, flagged = random.Random(20240726), 0, 0
    forms = {name: template(name, max_length=100_000) for name in ("chat", *TEXTS)}
    for case in range(FUZZ_CASES):
        kind, chat, name = draws.choice(list(KINDS)), draws.choice(list(CHATS)), draws.choice(TEXTS)
        marked = draws.random() < 0.6
        turns = draws.choice([(), ("system",), ("user", "assistant"), ("system", "user", "assistant")])
        one = record(
            _hostile(draws, marked),
            _hostile(draws, marked),
            _hostile(draws, marked) + "x",
            tuple((role, _hostile(draws, marked)) for role in turns),
        )
        tokenizer = tokenizer_of(kind, chat)
        plain = library(record("x", "", "x", tuple((role, "x") for role in turns)), tokenizer)
        control = _control(tokenizer, plain)
        where = f"case {case}: {kind}, {chat}, {name}, {one}"

        spoken = forms["chat"].encode([one], tokenizer)[0]
        expected = library(one, tokenizer)
        if spoken.flag is not None:
            flagged += 1
            texts = [*(text for _, text in one.turns), one.instruction + one.input]
            blank_turn = chat == "llama2" and not all(map(str.strip, texts))
            reason = "the chat template rewrites the text of a turn" if blank_turn else str(expected)
            assert spoken.flag in (f"template_refuses_turns: {reason}", f"template_refuses_turns: {expected}"), where
        else:
            prompt, answer = spoken.ids[: spoken.answer_start], spoken.ids[spoken.answer_start :]
            assert [i for i in prompt if i in control] == [i for i in plain if i in control], where
            assert control.isdisjoint(answer), where
            if not _holds_marker(one):
                same += 1
                assert prompt == expected, where
            if kind in LOSSLESS and set(answer).isdisjoint(tokenizer.added_tokens_decoder):
                read = one.output.replace("▁", " ") if kind in BLANK_FIRST else one.output  # to these it is a blank
                assert tokenizer.decode(answer) == read, where

        written = forms[name].encode([one], tokenizer)[0]
        assert written.flag is None, where
        assert [i for i in written.ids[1:] if i in control] == [], where
    assert same > FUZZ_CASES / 5 and 0 < flagged < FUZZ_CASES / 2
    print(f"{FUZZ_CASES} records, {2 * FUZZ_CASES - flagged} prompts, {same} compared with the library's")
