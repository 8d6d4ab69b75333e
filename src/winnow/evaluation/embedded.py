"""The embedded suite: 80 held-out records written for this project, measured without any download.

`embedded_answers/bits_per_byte` = -(sum of log2 p(answer | prompt)) / (sum of the answers' UTF-8 bytes): how well
the model predicts the right answers, comparable over tokenizers. Low is good.
`embedded_choice/acc`, `acc_norm`: how often the right answer beats three distractors of about its length, by
log-likelihood and by log-likelihood per UTF-8 byte. Chance is 0.25.

Prompts come from the run's own template, so that evaluation and tuning use the same form.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from winnow.data.records import Record, record_id
from winnow.data.templates import Template
from winnow.errors import UserError
from winnow.store.files import read_lines

HELDOUT = Path(__file__).parents[1] / "data" / "embedded" / "heldout.jsonl"
HUB_NAME = "winnow/heldout"  # the name of the data in the embedded tasks' YAMLs


@dataclass(frozen=True)
class HeldOut:
    """A record kept out of every pool, and three wrong answers of about the right one's length."""

    record: Record
    distractors: tuple[str, ...]
    category: str


def load_heldout(path: Path = HELDOUT) -> list[HeldOut]:
    """The held-out records, in file order."""
    items = []
    for number, raw in read_lines(path):
        instruction, given, output = raw["instruction"], raw["input"], raw["output"]
        identity = record_id(instruction, given, output)
        record = Record(identity, number - 1, instruction, given, output, (), path.name, raw)
        items.append(HeldOut(record, tuple(raw["distractors"]), raw["category"]))
    return items


def choices(item: HeldOut) -> tuple[list[str], int]:
    """(the four answers in an order drawn from the record's id, index of the right one).

    The order matters only for ties, which go to the first: a model that cannot tell the answers apart gets 0.25.
    """
    answers = [item.record.output, *item.distractors]
    order = list(range(len(answers)))
    random.Random(item.record.id).shuffle(order)
    return [answers[i] for i in order], order.index(0)


def documents(items: Sequence[HeldOut], template: Template, tokenizer) -> list[dict[str, Any]]:
    """What the harness evaluates: id, category, prompt, answer, choices, gold (index of the answer in choices)."""
    rows = []
    for item in items:
        options, gold = choices(item)
        rows.append(
            {
                "id": item.record.id,
                "category": item.category,
                "prompt": template.render(item.record, tokenizer),
                "answer": item.record.output,
                "choices": options,
                "gold": gold,
            }
        )
    return rows


def token_pairs(
    items: Sequence[HeldOut], template: Template, tokenizer
) -> dict[tuple[str, str], tuple[list[int], list[int]]]:
    """{(prompt, answer): (prompt ids, answer ids)} as the template encodes them: BOS, boundary and chat markup.

    The window is lifted: a held-out answer is scored whole, whatever window the tuning used.
    """
    whole = copy.copy(template)
    whole.max_length = 1_000_000
    answers = [(item.record, answer) for item in items for answer in (item.record.output, *item.distractors)]
    records = [replace(record, output=answer) for record, answer in answers]
    encoded = whole.encode(records, tokenizer)
    refused = next((one for one in encoded if one.flag is not None), None)
    if refused is not None:
        raise UserError(f"Held-out record {refused.id} cannot be asked ({refused.flag}); choose another template.")
    return {
        (template.render(record, tokenizer), record.output): (e.ids[: e.answer_start], e.ids[e.answer_start :])
        for record, e in zip(records, encoded, strict=True)
    }


def answer_results(doc: Mapping[str, Any], results: Sequence[tuple[float, bool]]) -> dict[str, tuple[float, int]]:
    """(log-likelihood in nats, UTF-8 bytes) of one answer; the harness sums both and divides."""
    return {"bits_per_byte": (results[0][0], len(doc["answer"].encode()))}


def choice_results(doc: Mapping[str, Any], results: Sequence[tuple[float, bool]]) -> dict[str, float]:
    """1.0 where the right answer has the highest log-likelihood (acc), and the highest per byte (acc_norm)."""
    total = [loglikelihood for loglikelihood, _ in results]
    per_byte = [value / len(text.encode()) for value, text in zip(total, doc["choices"], strict=True)]
    return {
        "acc": float(total.index(max(total)) == doc["gold"]),
        "acc_norm": float(per_byte.index(max(per_byte)) == doc["gold"]),
    }
