"""Greedy answers with shared prompts equal the harness's own, and cost less."""

from __future__ import annotations

import pytest
from lm_eval.api.instance import Instance
from tiny import tiny_model

from winnow.backbone.generation import HuggingFaceEngine
from winnow.evaluation.greedy import _batches, _text, greedy_answers
from winnow.evaluation.model import HarnessModel

PROMPTS = [
    "Do this.\nText: one",
    "Do this.\nText: another one",
    "Do this.\nText: 3",
    "Quite different",
    "Do that.\nText: one",
    "x",
    "Do this.\nText: one more of them",
]


def ids_of(tokenizer, text: str) -> tuple[int, ...]:
    return tuple(tokenizer(text)["input_ids"])


def requests(until: list[str], tokens: int) -> list[Instance]:
    settings = {"until": until, "max_gen_toks": tokens, "do_sample": False}
    return [Instance("generate_until", {}, (prompt, settings), i) for i, prompt in enumerate(PROMPTS)]


@pytest.mark.parametrize("batch_size", [1, 3, 16])
@pytest.mark.parametrize("stop", [None, 5])
def test_answers_are_the_harnesss_own(tokenizer, batch_size, stop):
    """Token for token the same as the harness's generate, whatever the batch; with a stop text taken out of the first
    answer too. The harness keeps outer blanks and lets a stop text count at the very start, so both are compared
    without."""
    model = tiny_model()
    plain = HarnessModel(model, tokenizer, 1).generate_until(requests(["\u2603"], 12), disable_tqdm=True)
    until = ["\u2603"] if stop is None else [plain[0].lstrip()[stop]]
    wanted = HarnessModel(model, tokenizer, 1).generate_until(requests(until, 12), disable_tqdm=True)
    known = {prompt: list(ids_of(tokenizer, prompt)) for prompt in PROMPTS}
    found = HarnessModel(model, tokenizer, batch_size, prompts=known)
    assert found.generate_until(requests(until, 12), disable_tqdm=True) == [answer.strip() for answer in wanted]


def test_a_stop_text_before_any_word_ends_no_answer(tokenizer):
    """Untuned models often begin with a line break; the one behind the first word counts."""
    assert _text(tokenizer, ids_of(tokenizer, "\n yes\nno"), ["\n"]) == "yes"


def test_equal_prompts_are_answered_once_and_in_order(tokenizer):
    model, one, two = tiny_model(), ids_of(tokenizer, "one"), ids_of(tokenizer, "two")
    asked = [one, two, one, one]
    answers = greedy_answers(model, tokenizer, asked, ["\u2603"], 4, 2, progress=False)
    assert answers[0] == answers[2] == answers[3]
    assert answers == [greedy_answers(model, tokenizer, [ids], ["\u2603"], 4, 1, False)[0] for ids in asked]


def test_it_stops_early_and_reads_the_shared_part_once(tokenizer, monkeypatch):
    """Four prompts of 40 shared bytes and 2 of their own. Tokens read: 40 once (not four times), then 2 each. A stop
    text at the first character ends every answer before its first token is read."""
    model = tiny_model()
    prompts = [ids_of(tokenizer, "s" * 40 + f"{i}:") for i in range(4)]
    free = greedy_answers(model, tokenizer, prompts, ["\u2603"], 6, 4, progress=False)
    read: list[int] = []
    forward = model.model.forward

    def counting(*args, input_ids, **options):
        read.append(input_ids.numel())
        return forward(*args, input_ids=input_ids, **options)

    monkeypatch.setattr(model.model, "forward", counting)
    first = sorted({answer[0] for answer in free})
    stopped = greedy_answers(model, tokenizer, prompts, first, 6, 4, progress=False)
    assert stopped == [""] * 4 and read == [40, 8]


def test_without_a_stop_text_no_answer_is_looked_at(tokenizer, monkeypatch):
    stops, generate = [], HuggingFaceEngine.generate
    monkeypatch.setattr(HuggingFaceEngine, "generate", lambda *given: stops.append(given[-1]) or generate(*given))
    for until in ([], ["x"]):
        greedy_answers(tiny_model(), tokenizer, [ids_of(tokenizer, "one")], until, 2, 1, progress=False)
    assert stops[0] is None and stops[1] is not None


def test_groups(tokenizer):
    """Prompts with long common beginnings stand together; a group smaller than a batch joins the others that are."""
    batches = list(_batches([ids_of(tokenizer, prompt) for prompt in PROMPTS], 3))
    texts = [[tokenizer.decode(ids) for ids in batch] for batch in batches]
    assert sorted(text for batch in texts for text in batch) == sorted(PROMPTS)
    assert all(len(batch) <= 3 for batch in texts)
    grouped = [text.startswith("Do th") for text in texts[0]]
    assert all(grouped) and "Quite different" not in texts[0]


def test_other_requests_take_the_harnesss_way(tokenizer):
    """A prompt whose ids are not known, or sampling, is none of ours."""
    model = HarnessModel(tiny_model(), tokenizer, 2, prompts={"x": [5]})
    greedy = {"until": ["a"], "max_gen_toks": 3, "do_sample": False}
    assert model._ours("x", greedy)
    assert not model._ours("y", greedy)
    assert not model._ours("x", greedy | {"do_sample": True}) and not model._ours("x", greedy | {"temperature": 0.5})
