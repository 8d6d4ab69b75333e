"""The embedded suite: its data, its measures, and their way through the harness."""

from __future__ import annotations

import json
import math

import pytest
from composed import build, template
from tiny import tiny_model
from tokenizer_kinds import tokenizer_of

from winnow.evaluation.embedded import (
    HELDOUT,
    answer_results,
    choice_results,
    choices,
    documents,
    load_heldout,
    token_pairs,
)
from winnow.evaluation.harness import evaluate_model
from winnow.evaluation.suite import Suite


def suite(**options) -> Suite:
    tasks = [
        {"task": "embedded_answers", "num_fewshot": 0, "metrics": ["bits_per_byte"]},
        {"task": "embedded_choice", "num_fewshot": 0, "metrics": ["acc", "acc_norm"]},
    ]
    return build(
        "evaluation/none", name="embedded", tasks=tasks, headline=["embedded_answers/bits_per_byte"], **options
    )


def test_heldout_records_are_sound():
    """80 different records with four different, non-empty answers each; none is in the embedded pool."""
    items = load_heldout()
    assert len(items) == len({item.record.id for item in items}) == 80
    for item in items:
        assert len({item.record.output, *item.distractors} - {""}) == 4
    pool = (HELDOUT.parent / "pool.jsonl").read_text(encoding="utf-8")
    asked = {(row["instruction"], row.get("input", "")) for row in map(json.loads, pool.strip().split("\n"))}
    assert not asked & {(item.record.instruction, item.record.input) for item in items}


def test_choice_order():
    """The index points to the right answer, the order is the same each time, and all four places occur."""
    drawn = [(item, *choices(item)) for item in load_heldout()]
    assert all(options[gold] == item.record.output for item, options, gold in drawn)
    assert [choices(item) for item in load_heldout()] == [(options, gold) for _, options, gold in drawn]
    assert {gold for *_, gold in drawn} == {0, 1, 2, 3}


def test_documents_hold_the_templates_prompt(tokenizer):
    """The alpaca form ends in `### Response:`, to which the answer is glued; it holds the instruction."""
    items = load_heldout()
    for item, row in zip(items, documents(items, template("alpaca"), tokenizer), strict=True):
        assert row["prompt"].endswith("### Response:") and item.record.instruction in row["prompt"]
        assert row["answer"] == item.record.output == row["choices"][row["gold"]]


def test_tokens_are_the_templates(tokenizer):
    """BOS, boundary and window come from the template; the tiny tokenizer has one token per byte, BOS is 1.

    So prompt ids = BOS + bytes of the prompt, answer ids = bytes of the answer, although the window is 16.
    """
    item = load_heldout()[0]
    pairs = token_pairs([item], template("alpaca", bos=True, max_length=16), tokenizer)
    assert len(pairs) == 4
    for (prompt, answer), (prompt_ids, answer_ids) in pairs.items():
        assert prompt_ids[0] == 1 and len(prompt_ids) == 1 + len(prompt.encode())
        assert len(answer_ids) == len(answer.encode())


def test_answers_are_glued_to_the_prompt_under_every_tokenizer():
    """Under a tokenizer that puts a blank before each text, the answer's ids are those that it has as a part of the
    whole text `prompt + answer`: no token holds both, since the prompt ends in a colon."""
    tokenizer = tokenizer_of("SentencePiece-like, Prepend")
    for (prompt, answer), (prompt_ids, answer_ids) in token_pairs(
        load_heldout()[:8], template("alpaca"), tokenizer
    ).items():
        assert prompt_ids + answer_ids == tokenizer(prompt + answer)["input_ids"]


def test_measures_of_one_item():
    """bits_per_byte keeps (nats, bytes); `é` has 2 bytes.

    Choice: totals -6, -4, -9, -8 over 1, 2, 9, 4 bytes are -6, -2, -1, -2 per byte: by total the second wins,
    per byte the third.
    """
    doc = {"answer": "né", "choices": ["a", "é", "abcdefghi", "abcd"], "gold": 2}
    assert answer_results(doc, [(-7.5, False)]) == {"bits_per_byte": (-7.5, 3)}
    results = [(-6.0, False), (-4.0, False), (-9.0, False), (-8.0, False)]
    assert choice_results(doc, results) == {"acc": 0.0, "acc_norm": 1.0}
    assert choice_results(doc | {"gold": 1}, results) == {"acc": 1.0, "acc_norm": 0.0}


@pytest.mark.parametrize("form", ["alpaca", "chat"])
def test_uniform_model_through_the_harness(tokenizer, tmp_path, form):
    """A zero output matrix gives each of 259 tokens probability 1/259. One token is one byte, so every answer
    costs log2(259) = 8.0167 bits per byte, whatever the template, and every item has the same ratio: error 0."""
    model = tiny_model()
    model.lm_head.weight.zero_()
    result = evaluate_model(model, tokenizer, suite(limit=4), template(form), tmp_path)
    entry = result["metrics"]["embedded_answers/bits_per_byte"]
    assert entry["value"] == pytest.approx(math.log2(259), abs=1e-4)
    assert entry["stderr"] == pytest.approx(0, abs=1e-4)
    assert entry["n"] == 4 and entry["higher_is_better"] is False


def test_samples_explain_the_result(tokenizer, tmp_path):
    """The reported number is -(sum of nats) / ln 2 / (sum of bytes) over the rows of samples.jsonl."""
    result = evaluate_model(tiny_model(), tokenizer, suite(limit=3), template("alpaca"), tmp_path)
    with open(result["samples"], encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    answers = [row["metrics"]["bits_per_byte"] for row in rows if row["task"] == "embedded_answers"]
    nats, size = (sum(column) for column in zip(*answers, strict=True))
    value = result["metrics"]["embedded_answers/bits_per_byte"]["value"]
    assert value == pytest.approx(-nats / math.log(2) / size)
    assert size == sum(len(item.record.output.encode()) for item in load_heldout()[:3])
    hits = [row["metrics"]["acc"] for row in rows if row["task"] == "embedded_choice"]
    assert result["metrics"]["embedded_choice/acc"]["value"] == sum(hits) / 3
    assert all(len(row[key]) == 64 for row in rows for key in ("doc_hash", "prompt_hash", "target_hash"))


def test_batch_size_changes_nothing(tokenizer, tmp_path):
    """Scores belong to the record: batches of 1 and of 16 agree to rounding."""
    values = [
        evaluate_model(tiny_model(), tokenizer, suite(limit=3, batch_size=size), template("plain"), tmp_path)
        for size in (1, 16)
    ]
    one, many = (result["metrics"]["embedded_answers/bits_per_byte"]["value"] for result in values)
    assert one == pytest.approx(many, abs=1e-5)
