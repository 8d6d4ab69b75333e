"""Greedy answers to many prompts, computing what neighbouring prompts share once.

The prompts of an NLU task differ in their last line only, or, under noise, agree up to the instruction. The harness
runs each of them whole, and goes on with a batch until its slowest answer ends. Here the shared beginning of a batch is
run once, and an answer that has ended leaves the batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from tqdm import tqdm

from winnow.backbone.generation import HuggingFaceEngine, Prompt, Sampling
from winnow.backbone.shared import join_in
from winnow.distributed import dealt
from winnow.evaluation.shared_prompts import Ids, common_prefix

_ALIKE = 0.5  # neighbours that share so large a part of the shorter one are run as one group


def greedy_answers(
    model,
    tokenizer,
    prompts: Sequence[Ids],
    until: Sequence[str],
    max_tokens: int,
    batch_size: int,
    progress: bool = True,
) -> list[str]:
    """The most likely next token again and again, until the end-of-text token, a text of `until`, or `max_tokens`.

    prompts: non-empty token ids; equal ones are answered once. until: an answer ends before the first of these; one
    that stands before any word does not end it, since untuned models often begin with a line break. batch_size: answers
    a forward pass; changes nothing beyond rounding. White space around an answer is taken off. The processes of a group
    call it together, and each runs its share of the batches, which are those of one process.
    """
    engine = HuggingFaceEngine(model, tokenizer)
    sampling = Sampling(answers=1, temperature=0.0, max_new_tokens=max_tokens, layers=())

    def stopped(tokens: list[int]) -> bool:
        text = tokenizer.decode(tokens, skip_special_tokens=True).lstrip()
        return any(stop in text for stop in until)

    stop = stopped if until else None  # to decode an answer at each of its tokens takes time

    def answer(own: Sequence[list[Ids]]) -> list[list[str]]:
        with tqdm(total=sum(map(len, own)), desc="Generating answers", disable=not progress) as bar:
            texts = []
            for batch in own:
                shared = len(common_prefix(batch))
                found = engine.generate([Prompt("", list(prompt)) for prompt in batch], sampling, shared, stop)
                texts.append([_text(tokenizer, one[0].ids, until) for one in found])
                bar.update(len(batch))
        return texts

    batches = list(_batches(list(dict.fromkeys(prompts)), batch_size))
    texts = dealt(batches, answer, partial(join_in, model))
    answers = {
        prompt: text for batch, own in zip(batches, texts, strict=True) for prompt, text in zip(batch, own, strict=True)
    }
    return [answers[prompt] for prompt in prompts]


def _text(tokenizer, tokens: Sequence[int], until: Sequence[str]) -> str:
    text = tokenizer.decode(tokens, skip_special_tokens=True).lstrip()
    for stop in until:
        text = text.split(stop, 1)[0]
    return text.strip()


def _batches(prompts: list[Ids], batch_size: int) -> Iterator[list[Ids]]:
    """Batches of prompts that share long beginnings, alike in length inside a group.

    In the order of their ids prompts with the same beginning are neighbours. Neighbours that share at least half of
    the shorter one form a group; groups too small for a batch are taken together.
    """
    groups: list[list[Ids]] = []
    for prompt in sorted(prompts):
        if groups and len(common_prefix([groups[-1][-1], prompt])) >= _ALIKE * min(len(groups[-1][-1]), len(prompt)):
            groups[-1].append(prompt)
        else:
            groups.append([prompt])
    small = [prompt for group in groups if len(group) < batch_size for prompt in group]
    for group in [*(group for group in groups if len(group) >= batch_size), small]:
        ordered = sorted(group, key=lambda prompt: (-len(prompt), prompt))
        for start in range(0, len(ordered), batch_size):
            yield ordered[start : start + batch_size]
