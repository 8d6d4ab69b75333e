"""The loss that a greedy attack asks for: the mean over one common number of answer tokens."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from composed import build, template
from tiny_passes import TRAINER, Loaded

import winnow.scoring.runner
from winnow.data.records import Record
from winnow.scoring.answer_loss import AnswerLoss
from winnow.scoring.runner import PassRunner
from winnow.store.artifacts import Store


def record(output: str, instruction: str = "Name a river.") -> Record:
    return Record("r", 0, instruction, "", output, (), "test", {})


@torch.no_grad()
def plain(backbone, form, one: Record, n: int) -> float:
    """-mean log p of the first n answer tokens from the model's own logits."""
    encoded = form.encode([one], backbone.tokenizer)[0]
    ids = torch.tensor([encoded.ids])
    log_p = backbone.model(input_ids=ids).logits[0].log_softmax(-1)
    start = encoded.answer_start
    return -float(torch.stack([log_p[t - 1, ids[0, t]] for t in range(start, start + n)]).mean())


def test_equals_the_plain_computation(backbone):
    """Four variants of different length, in batches of one and of all, against the model's own logits; the answer of
    12 bytes is 12 tokens of the byte tokenizer. The next record is asked about by its own two tokens."""
    form, one = template("alpaca"), record("Danube, etc.")
    variants = ["Name a river.", "Nmae a river.", "Name a river. and true is true", ""]
    expected = [plain(backbone, form, replace(one, instruction=v), 12) for v in variants]
    for budget in (1, 10_000):
        losses = AnswerLoss(backbone, form, budget)
        assert losses(one, variants) == pytest.approx(expected, abs=1e-5)
    short = record("Po")
    assert losses(short, variants[:1]) == pytest.approx([plain(backbone, form, short, 2)], abs=1e-5)


@pytest.mark.parametrize(("first", "shared"), [(1, 2), (9, 0)])
def test_prompts_share_what_they_all_begin_with(first, shared):
    """The instructions begin at token 2 and, where one merged with what is before it, at 3: tokens 1 2 are shared, and
    nothing where a prompt begins with another token."""
    rows = [
        SimpleNamespace(ids=[start, 2, 3, 4], spans={"instruction": (begin, 4)})
        for start, begin in ((1, 2), (first, 3))
    ]
    assert AnswerLoss._shared(rows) == shared


def test_every_variant_is_judged_by_the_same_tokens(backbone):
    """Window 300. The plain prompt has p tokens and an instruction of 13, so the margin is 48 and n = 300 - p - 48: the
    loss of the original covers these n although more would fit, and a variant more than 48 tokens longer has none."""
    form, one = template("alpaca", max_length=300), record("x" * 400)
    p = form.encode([one], backbone.tokenizer)[0].answer_start
    n = 300 - p - 48
    longer = one.instruction + "y" * 48
    found = AnswerLoss(backbone, form)(one, [one.instruction, longer, longer + "y"])
    expected = [plain(backbone, form, replace(one, instruction=i), n) for i in (one.instruction, longer)]
    assert found[:2] == pytest.approx(expected, abs=1e-5)
    assert found[2] != found[2]


def test_no_answer_has_no_loss(backbone):
    """An empty answer, and a prompt that fills the window."""
    losses = AnswerLoss(backbone, template("alpaca"))
    assert all(value != value for value in losses(record(""), ["a", "b"]))
    full = AnswerLoss(backbone, template("alpaca", max_length=64))
    assert all(value != value for value in full(record("answer"), ["a", "b"]))


def test_the_model_is_where_the_trainer_computes(backbone, tmp_path, monkeypatch):
    """No Lightning moves it: a greedy attack asks by itself. A model that processes are to share stays where it is."""
    moved = []
    monkeypatch.setattr(winnow.scoring.runner, "on_device", lambda model, trainer: moved.append(trainer))
    runner = PassRunner(Loaded(backbone), Store(tmp_path), TRAINER)
    attack = build("attack/checklist", search="greedy", query_budget=2)
    runner.prompts({"checklist": attack}, [record("Danube")], template("alpaca"))
    assert moved and all(trainer == TRAINER for trainer in moved)
    moved.clear()
    assert PassRunner(Loaded(backbone), Store(tmp_path), TRAINER | {"strategy": "fsdp"}).backbone and not moved
