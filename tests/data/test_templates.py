"""Templates: spans by construction, truncation that never eats an answer silently, BOS as the tokenizer says."""

from __future__ import annotations

import string

import pytest
from composed import build, template
from tokenizer_kinds import CHATS, MARKERS, tokenizer_of
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from winnow.data.records import Record, record_id
from winnow.data.tokens import text_ids
from winnow.errors import UserError
from winnow.scoring.passes.embedding import BackboneEmbedding, SentenceEmbedding
from winnow.scoring.passes.prompt_embedding import PromptEmbedding
from winnow.store.describe import describe


def record(instruction="Say hi", input="", output="Hello!", turns=()):
    identity = record_id(instruction, input, output, turns)
    return Record(identity, 0, instruction, input, output, turns, "test", {})


def text(tokenizer, ids):
    return tokenizer.decode(ids)


@pytest.mark.parametrize("name", ["alpaca", "vicuna", "wizard", "plain", "chat"])
def test_spans_hold_exactly_the_records_own_text(name, tokenizer):
    """One token per byte, so a span must decode to the field itself, wherever the template put it. `<|eos|>` typed by a
    user is seven bytes, not the control token; only the chat template writes control tokens."""
    tricky = record("Repeat ### Response: <|eos|> twice", "### Input: <|eos|> x", "### Response: <|eos|> done")
    encoded = template(name).encode([tricky], tokenizer)[0]
    spans = encoded.spans | {"output": (encoded.answer_start, len(encoded.ids))}
    for field in ("instruction", "input", "output"):
        own = encoded.ids[slice(*spans[field])]
        assert text(tokenizer, own) == getattr(tricky, field) and tokenizer.eos_token_id not in own


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
        [record("Hi", "", "Hello!"), record("Hi", "", "Hello there"), record("Hi", "", "Hello!!")], tokenizer, eos=True
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


def test_who_reads_the_prompt_alone_reads_no_answer():
    """A tokenizer with the token `:*`, which joins `### Response:` and an answer that begins with `*`."""
    letters = {letter: i for i, letter in enumerate(string.printable)}
    model = models.BPE(letters | {":*": len(letters)}, merges=[(":", "*")])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(model))
    joint = template("alpaca", boundary="joint")
    starred, plain = (record(output=output) for output in ("*x", "x"))
    assert joint.encode([starred], tokenizer)[0].ids[-2:] == [len(letters), letters["x"]]
    passes = (PromptEmbedding(), build("method/adg").passes["answers"], BackboneEmbedding("prompt", -1, "last"))
    for pass_ in passes:
        ids = [pass_.encode([one], joint, tokenizer)[0].ids for one in (starred, plain)]
        assert ids[0] == ids[1] and ids[0][-1] == letters[":"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"bos": "maybe"}, "template.bos=maybe"),
        ({"boundary": "fuzzy"}, "template.boundary=fuzzy"),
        ({"max_length": 1}, "template.max_length=1"),
        ({"date": "today"}, "template.date=today is no date"),
        ({"without_input": None}, "give both, or null for both"),
        ({"with_input": None, "without_input": None, "boundary": "joint"}, "works for text templates only"),
    ],
)
def test_bad_settings_are_told_in_one_sentence(options, expected):
    with pytest.raises(UserError, match=expected):
        build("template/alpaca", **options)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (
            {"without_input": "{answer}"},
            "template.without_input: placeholder {answer} is unknown; known: {instruction}",
        ),
        ({"with_input": "{instruction} }"}, r"template.with_input is no format string \(Single '}'.*; write {{ and }}"),
        ({"turns": {"user": "Q: "}}, "template.turns.user='Q: ' drops the turn; write {text} where"),
        ({"with_input": "{instruction} A:"}, "with_input='{instruction} A:' drops the input; write {input} where"),
        ({"without_input": "{turns}A:"}, "without_input='{turns}A:' drops the instruction; write {instruction} where"),
    ],
)
def test_texts_that_cannot_be_filled_in(options, told):
    """Told when the template is made, not amid scoring; doubled braces are text."""
    with pytest.raises(UserError, match=told):
        template("plain", **options)
    assert template("plain", without_input="{{{instruction}}}").render(record("Hi")) == "{Hi}"


@pytest.mark.parametrize(
    ("chat", "opening"),
    [
        ("chatml", "<|im_start|>assistant\n"),
        ("phi", "<|assistant|>\n"),
        ("gemma", "<s><start_of_turn>model\n"),
        ("mistral", "<s>"),
        ("llama3", "<s><|start_header_id|>assistant<|end_header_id|>\n\n"),
    ],
)
@pytest.mark.parametrize("kind", ["byte-level BPE", "byte-level BPE with BOS", "SentencePiece-like, Metaspace first"])
def test_prompt_of_an_answer_alone(kind, chat, opening):
    """What the generation prompt adds, read off the templates; Phi's other rendering ends in EOS, which begins like
    `<|assistant|>` with `<`. BOS where the template writes it, whatever the tokenizer puts before a text by itself."""
    tokenizer = tokenizer_of(kind, chat)
    encoded = template("chat").encode([record()], tokenizer, "direct")[0]
    assert tokenizer.decode(encoded.ids[: encoded.answer_start]) == opening
    clean = template("chat").encode([record()], tokenizer)[0]
    assert clean.ids[clean.answer_start :] == encoded.ids[encoded.answer_start :]
    assert clean.ids.count(tokenizer.bos_token_id) == opening.count("<s>")


def test_a_marker_of_the_opening_is_never_cut(tokenizer):
    """The renderings part in the middle of a control token of the one without an answer: `<|` is common to both."""
    odd = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer, bos_token="<|bos|>", eos_token="<|eos|>"
    )
    odd.chat_template = CHATS["phi"]
    encoded = template("chat").encode([record()], odd, "direct")[0]
    assert odd.decode(encoded.ids[: encoded.answer_start]) == "<|assistant|>\n"


def test_direct_prompt_that_cannot_be_told():
    """A template that writes the turns otherwise when an answer is opened leaves no common prefix to cut after."""
    tokenizer = tokenizer_of("byte-level BPE", "chatml")
    written = "{% if add_generation_prompt %}Q: {% endif %}{{ messages[0]['content'] }}"
    tokenizer = _with_chat(tokenizer, written)
    with pytest.raises(UserError, match="no prompt of an answer alone"):
        template("chat").encode([record()], tokenizer, "direct")


def _with_chat(tokenizer, written: str):
    made = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, bos_token="<s>", eos_token="</s>")
    made.chat_template = written
    return made


@pytest.mark.fault(
    "a chat template that refuses a record or loses its text",
    promise="the record is flagged with the reason",
    trials="each kind",
)
@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ("{{ messages[-1]['content'] }}", "drops, repeats or reorders turns"),
        ("{% for m in messages | reverse %}{{ m['content'] }}.{% endfor %}", "drops, repeats or reorders turns"),
        ("{% for m in messages %}{{ m['content'] }}{{ m['content'] }}{% endfor %}", "drops, repeats or reorders turns"),
        ("{% for m in messages %}{{ m['content'] | upper }}{% endfor %}", "rewrites the text of a turn"),
        ("{% for m in messages %}{{ m['content'] + m['name'] }}{% endfor %}", "has no attribute 'name'"),
        ("{% for m in messages %}{{ m['content'] + 1 }}{% endfor %}", "TypeError: "),
    ],
)
@pytest.mark.parametrize("view", ["clean", "direct"])
def test_a_template_that_loses_text_flags_the_record(written, reason, view):
    """With the reason; the others go on. The direct view has no turns, so it can tell refusals only."""
    tokenizer = _with_chat(tokenizer_of("byte-level BPE"), written)
    spoken = record("And now?", turns=(("user", "First"), ("assistant", "Reply")))
    encoded = template("chat").encode([spoken, spoken], tokenizer, view)
    if view == "clean" or "turn" not in reason:
        assert all(one.flag.startswith("template_refuses_turns: ") and reason in one.flag for one in encoded)
        with pytest.raises(UserError, match="use template=alpaca"):
            template("chat").render(spoken, tokenizer)
    else:
        assert [one.flag for one in encoded] == [None, None]


def test_a_chat_template_that_is_none():
    tokenizer = _with_chat(tokenizer_of("byte-level BPE"), "{% for %}")
    with pytest.raises(UserError, match="no Jinja template"):
        template("chat").encode([record()], tokenizer)


def test_a_role_that_the_template_has_no_form_for(tokenizer):
    """A turn of a tool, which alpaca does not know: that record is flagged, with the key to add."""
    odd, good = record(turns=(("tool", "42"),)), record()
    flags = [one.flag for one in template("alpaca").encode([odd, good], tokenizer)]
    assert "add template.turns.tool" in flags[0] and flags[1] is None


def test_a_text_that_the_template_has_no_place_for(tokenizer):
    """One form for all records, without input and turns: a record that has them is flagged, never cut in silence."""
    records = [record(), record(input="data"), record(turns=(("system", "Be brief."),))]
    short = template("plain", with_input="{instruction}:", without_input="{instruction}:")
    flags = [one.flag for one in short.encode(records, tokenizer)]
    assert flags[0] is None and "drops the input, add {input}" in flags[1] and "drops the turns, add {tu" in flags[2]


def test_the_date_is_told_and_counts(monkeypatch):
    """A template that writes the date gives the same ids on every day; another date is another template."""
    tokenizer = tokenizer_of("byte-level BPE", "llama3")
    then = template("chat").encode([record()], tokenizer)[0]
    assert "Today Date: 26 Jul 2024" in tokenizer.decode(then.ids)
    other = template("chat", date="2031-01-02")
    assert "Today Date: 02 Jan 2031" in tokenizer.decode(other.encode([record()], tokenizer)[0].ids)
    assert describe(other) != describe(template("chat"))


def test_a_text_that_the_tokenizer_refuses_is_flagged():
    """WordPiece without an unknown token raises on the sign that it does not know; only that record is lost."""
    core = Tokenizer(models.WordPiece({"hi": 0, "hello": 1, "</s>": 2}, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="</s>")
    records = [record("hi", "", "hello"), record("\u4e2d", "", "hello"), record("hi", "", "\u4e2d")]
    flags = [one.flag for one in template("plain").encode(records, tokenizer)]
    assert flags[0] is None and all("Missing [UNK]" in flag for flag in flags[1:])
    assert all(flag.startswith("tokenizer_fails: ") for flag in flags[1:])


@pytest.mark.fault("control tokens in the text of a record", promise="they stay text", trials="each kind of tokenizer")
def test_control_tokens_of_every_make_stay_text():
    """Markers that `split_special_tokens` does not see: special=False, pieces of a Unigram vocabulary, merges."""
    for kind, chat in (
        ("byte-level BPE, markers special=False", "chatml"),
        ("Unigram with markers as pieces", "chatml"),
        ("byte-level BPE that merges to EOS", "mistral"),
    ):
        tokenizer = tokenizer_of(kind, chat)
        hostile = record("a <|im_start|>system", "b</s>", "c </s><|im_end|> d</s>")
        forbidden = {tokenizer.convert_tokens_to_ids(marker) for marker in (*MARKERS, "</s>")} - {None}
        forbidden.discard(tokenizer.unk_token_id)
        assert forbidden & set(tokenizer(hostile.output)["input_ids"])  # what would have been
        for name in ("alpaca", "plain", "chat"):
            encoded = template(name).encode([hostile], tokenizer)[0]
            for field in ("instruction", "input"):
                begin, end = encoded.spans[field]
                assert forbidden.isdisjoint(encoded.ids[begin:end])
            assert forbidden.isdisjoint(encoded.ids[encoded.answer_start :])
        assert forbidden.isdisjoint(text_ids([hostile.output], tokenizer)[0])
        for pass_ in (BackboneEmbedding("instruction", -1, "mean"), SentenceEmbedding("none", None, 99, "prompt")):
            assert forbidden.isdisjoint(pass_.encode([hostile], template("plain"), tokenizer)[0].ids)


def test_an_end_of_one_character_is_refused():
    """`.` as EOS cannot be kept out of a text by cutting it in two."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(alphabet)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token=".")
    assert template("plain").encode([record("Say hi", "", "Hi")], tokenizer)[0].flag is None
    with pytest.raises(UserError, match="control token '.' is a character of ordinary text"):
        template("plain").encode([record("Say hi.", "", "Hi")], tokenizer)
    padded = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="z", pad_token="!")
    assert template("plain").encode([record("Say hi!", "", "Hi!")], padded)[0].flag is None  # padding ends nothing


def test_no_eos():
    """Told in one sentence wherever answers are to be ended."""
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokenizer_of("byte-level BPE").backend_tokenizer)
    assert template("plain").encode([record()], tokenizer)[0].flag is None
    with pytest.raises(UserError, match="no EOS token"):
        template("plain").encode([record()], tokenizer, eos=True)
