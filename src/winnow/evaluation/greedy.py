"""Greedy answers to many prompts, computing what neighbouring prompts share once.

The prompts of an NLU task differ in their last line only, or, under noise, agree up to the instruction. The harness
runs each of them whole, and goes on with a batch until its slowest answer ends. Here the shared beginning of a batch is
run once, and an answer that has ended leaves the batch.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence

import torch
from tqdm import tqdm
from transformers import DynamicCache

from winnow.evaluation.shared_prompts import Ids, common_prefix, extend

_ALIKE = 0.5  # neighbours that share so large a part of the shorter one are run as one group


@torch.no_grad()
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
    a forward pass; changes nothing beyond rounding. White space around an answer is taken off.

    Needs a model for which `can_share_prompts` holds.
    """
    ends = _end_tokens(model, tokenizer)
    answers: dict[Ids, str] = {}
    kept: tuple[Ids, DynamicCache] | None = None
    with tqdm(total=len(set(prompts)), desc="Generating answers", disable=not progress) as bar:
        for batch in _batches(list(dict.fromkeys(prompts)), batch_size):
            shared = common_prefix([prompt[:-1] for prompt in batch])
            if kept is None or kept[0] != shared:
                kept = (shared, extend(model, DynamicCache(), [shared], 0))
            cache = copy.deepcopy(kept[1])
            for prompt, tokens in _decode(model, tokenizer, cache, len(shared), batch, ends, until, max_tokens):
                answers[prompt] = _text(tokenizer, tokens, until)
            bar.update(len(batch))
    return [answers[prompt] for prompt in prompts]


def _decode(
    model,
    tokenizer,
    cache: DynamicCache,
    shared: int,
    prompts: Sequence[Ids],
    ends: frozenset[int],
    until: Sequence[str],
    max_tokens: int,
) -> Iterator[tuple[Ids, list[int]]]:
    """(prompt, answer tokens) of one batch, whose first `shared` tokens `cache` holds.

    Rows are laid out as [shared | rest of the prompt, padded | last prompt token, answer]: the attention mask hides the
    padding in the middle, and positions count real tokens only. A row that ends is taken out of the cache.
    """
    device = model.device
    if shared and len(prompts) > 1:
        cache.batch_repeat_interleave(len(prompts))
    rests = [prompt[shared:-1] for prompt in prompts]
    cache = extend(model, cache, rests, shared)
    width = max(map(len, rests))
    mask = torch.ones(len(prompts), shared + width, dtype=torch.long, device=device)
    for row, rest in enumerate(rests):
        mask[row, shared + len(rest) :] = 0
    position = torch.tensor([[len(prompt) - 1] for prompt in prompts], device=device)
    last = torch.tensor([[prompt[-1]] for prompt in prompts], device=device)
    open_rows = [(prompt, []) for prompt in prompts]
    for _ in range(max_tokens):
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        logits = model(
            input_ids=last, attention_mask=mask, position_ids=position, past_key_values=cache, use_cache=True
        ).logits
        chosen = logits[:, -1].argmax(-1).tolist()
        going = []
        for row, token in enumerate(chosen):
            prompt, tokens = open_rows[row]
            if token not in ends:
                tokens.append(token)
            if token in ends or _stopped(tokenizer.decode(tokens, skip_special_tokens=True), until):
                yield prompt, tokens
            else:
                going.append(row)
        if not going:
            return
        last, position = torch.tensor([[chosen[row]] for row in going], device=device), position[going] + 1
        if len(going) < len(open_rows):
            cache.batch_select_indices(torch.tensor(going, device=device))
            mask, open_rows = mask[going], [open_rows[row] for row in going]
    yield from open_rows


def _end_tokens(model, tokenizer) -> frozenset[int]:
    """The tokenizer's end-of-text token, with which tuned answers end, and those of the model's own settings."""
    own = model.generation_config.eos_token_id
    own = own if isinstance(own, list) else [own]
    return frozenset(token for token in (tokenizer.eos_token_id, *own) if token is not None)


def _stopped(text: str, until: Sequence[str]) -> bool:
    return any(stop in text.lstrip() for stop in until)


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
