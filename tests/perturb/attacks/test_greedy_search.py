"""search=greedy: it raises the loss that it is given, and asks no more often than it may."""

from __future__ import annotations

import math

import pytest
from composed import template
from six_attacks import CACHE, INSTRUCTIONS, KINDS, attack_of, record

from winnow.perturb.attacks import base
from winnow.perturb.attacks.checklist import STRINGS
from winnow.perturb.attacks.prompts import attacked_prompts
from winnow.scoring.answer_loss import AnswerLoss
from winnow.store.artifacts import Store

pytestmark = pytest.mark.slow


def greedy(name: str, **options):
    return attack_of(name, search="greedy", cache=CACHE, **options)


@pytest.mark.parametrize("name", list(KINDS))
def test_no_more_questions_than_the_budget(name):
    """A loss that grows with every new text keeps the search going; the last question is the last of the budget."""
    asked: list[str] = []

    def losses(instructions):
        asked.extend(instructions)
        return [float(len(asked) + i) for i, _ in enumerate(instructions)]

    outcome = greedy(name, query_budget=9).attack("r", INSTRUCTIONS[0], losses)
    assert len(asked) <= 9 and outcome.queries <= 9
    assert asked[0] == INSTRUCTIONS[0]


def test_the_word_that_matters_is_found():
    """The loss is 5 without the word `particles` and 1 with it: the greedy search changes that word and needs no
    second one, as nothing raises the loss further."""

    def losses(texts):
        return [1.0 if "particles" in text else 5.0 for text in texts]

    outcome = greedy("deepwordbug").attack("r", INSTRUCTIONS[0], losses)
    assert outcome.words_changed == 1 and "particles" not in outcome.prompt and "structure" in outcome.prompt


@pytest.mark.parametrize("name", list(KINDS))
def test_a_loss_that_cannot_be_raised_is_no_success(name):
    """Every change lowers the loss; or there is no loss at all."""
    for losses, flags in [
        (lambda ts: [2.0 if t == INSTRUCTIONS[1] else 1.0 for t in ts], {base.LOSS_NOT_RAISED}),
        (lambda ts: [math.nan] * len(ts), {base.NO_LOSS}),
    ]:
        outcome = greedy(name).attack("r", INSTRUCTIONS[1], losses)
        assert outcome.prompt is None and outcome.flag in flags


def test_a_long_instruction_leaves_questions_for_changes():
    """250 words that may be changed, and 40 questions: 20 for the ranking, and 19 for changes, each of which counts."""
    text = " ".join(f"{word}{'xyz'[i % 3]}ing" for i, word in enumerate(["table", "garden", "window", "river"] * 63))
    known = set(text.split())

    def losses(texts):
        return [float(sum(word not in known for word in one.split())) for one in texts]

    outcome = greedy("deepwordbug", query_budget=40).attack("r", text, losses)
    assert outcome.flag is None and outcome.words_changed >= 1 and outcome.queries == 40


def test_an_attack_that_failed_leaves_no_loss_to_the_next_record():
    """The first record's loss of the same text is 9; the second record is asked about it again."""
    attack, asked = greedy("checklist"), []

    def fails(texts):
        if len(texts) > 1:
            raise ValueError("no answer")
        return [9.0]

    def losses(texts):
        asked.extend(texts)
        return [1.0 + i for i, _ in enumerate(texts)]

    with pytest.raises(ValueError, match="no answer"):
        attack.attack("one", "Name a river.", fails)
    assert attack.attack("other", "Name a river.", losses).prompt is not None and asked[0] == "Name a river."


def test_checklist_takes_the_option_with_the_largest_loss():
    """50 options and the original are 51 questions; the loss is largest for the 17th."""
    best = STRINGS[16]

    def losses(texts):
        return [3.0 if text.endswith(best) else 1.0 for text in texts]

    outcome = greedy("checklist").attack("r", "Name a river.", losses)
    assert outcome.prompt == f"Name a river. {best}" and outcome.queries == 51 and outcome.words_changed == 1


@pytest.mark.parametrize("name", ["deepwordbug", "textbugger"])
def test_raises_the_loss_under_a_backbone(name, backbone, tmp_path):
    """With a tiny model: the loss of the answer under each attacked prompt, computed anew, is above the original's;
    constraints hold as in the random search."""
    loss = AnswerLoss(backbone, template("alpaca"))
    records = [record(text, i, "Some answer text.") for i, text in enumerate(INSTRUCTIONS[:3])]
    attack = greedy(name, query_budget=40)
    table = attacked_prompts(attack, records, Store(tmp_path), loss, backbone.identity, progress=False)
    assert sum(p is not None for p in table.prompts()) >= 2
    for one, prompt, row in zip(records, table.prompts(), table.table.to_pylist(), strict=True):
        assert row["queries"] <= 40
        if prompt is not None:
            before, after = loss(one, [one.instruction, prompt])
            assert after > before and row["words_changed"] <= 2
            assert row["similarity"] >= 0.8 - 1e-5 or name == "deepwordbug"


def test_repeats_itself(backbone):
    """Two searches with the same seed give the same prompt, whatever was drawn between."""
    loss = AnswerLoss(backbone, template("alpaca"))
    one = record(INSTRUCTIONS[2])
    attacks = [greedy("deepwordbug", query_budget=30) for _ in range(2)]
    first, second = [attack.attack(one.id, one.instruction, lambda texts: loss(one, texts)) for attack in attacks]
    assert first == second
