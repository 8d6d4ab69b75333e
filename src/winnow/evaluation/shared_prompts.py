"""Log-likelihoods of many answers, computing every shared prompt once.

The harness asks for log p(answer | prompt) one pair at a time: four choices repeat the prompt four times, and the
57 MMLU subjects repeat their examples for every question. Here a prompt's keys and values are computed once,
and logits are made for answer positions only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import torch
from tqdm import tqdm

from winnow.backbone.causal_model import CausalModel, gap_mask
from winnow.backbone.prefix import SharedPrefix

Ids = tuple[int, ...]
_PREFIX_KEY = 16  # prompts that agree on so many first tokens are taken together


def can_share_prompts(model) -> bool:
    """True for causal models whose answers can stand behind padded prompts: no window, no distance in places."""
    causal = CausalModel(model)
    return causal.window is None and causal.padding


@torch.no_grad()
def answer_loglikelihoods(
    model, pairs: Sequence[tuple[Ids, Ids]], batch_size: int, progress: bool = True
) -> list[tuple[float, bool]]:
    """For each (prompt ids, answer ids): (sum over the answer of log p in nats, whether each token is the argmax).

    Both parts must be non-empty. batch_size: answers a forward pass. The result does not depend on it beyond
    rounding. Logits are normalised in fp32.
    """
    prefix = SharedPrefix(model)
    answers: dict[Ids, list[Ids]] = {}
    for prompt, answer in dict.fromkeys((tuple(prompt), tuple(answer)) for prompt, answer in pairs):
        answers.setdefault(prompt, []).append(answer)
    found: dict[tuple[Ids, Ids], tuple[float, bool]] = {}
    with tqdm(total=sum(map(len, answers.values())), desc="Scoring answers", disable=not progress) as bar:
        for prompts in _alike(answers, batch_size):
            shared = len(common_prefix([prompt[:-1] for prompt in prompts]))
            for batch in _batches(prompts, answers, batch_size):
                found |= _score(prefix, shared, batch)
                bar.update(len(batch))
    return [found[tuple(prompt), tuple(answer)] for prompt, answer in pairs]


def _score(
    prefix: SharedPrefix, shared: int, batch: Sequence[tuple[Ids, Ids]]
) -> dict[tuple[Ids, Ids], tuple[float, bool]]:
    """Scores of (prompt, answer) pairs whose prompts all begin with the same `shared` tokens.

    The last prompt token goes with the answer, because its logits predict the first answer token. Rows are laid
    out as [shared | rest of the prompt, padded | last prompt token and answer, padded]; the attention mask hides
    the padding in the middle, and positions count real tokens only.
    """
    causal = prefix.causal
    prompts = list(dict.fromkeys(prompt for prompt, _ in batch))
    cache, _ = prefix.cache(_padded([prompt[:-1] for prompt in prompts], causal.device), shared)
    start = cache.get_seq_length()
    if start:
        rows = [prompts.index(prompt) for prompt, _ in batch]
        cache.batch_select_indices(torch.tensor(rows, device=causal.device))
    ids = _padded([(prompt[-1], *answer[:-1]) for prompt, answer in batch], causal.device)
    lengths = torch.tensor([len(prompt) - 1 for prompt, _ in batch], device=causal.device)
    hidden = causal.hidden(
        cache,
        input_ids=ids,
        attention_mask=gap_mask(lengths, start, ids.shape[1], causal.model.dtype),
        position_ids=lengths[:, None] + torch.arange(ids.shape[1], device=causal.device),
    )
    scores = {}
    for row, (prompt, answer) in enumerate(batch):
        target = torch.tensor(answer, device=causal.device)
        own = causal.logits(hidden[row, : len(answer)]).float()  # (answer length, vocabulary)
        chosen = own.gather(1, target[:, None])[:, 0] - own.logsumexp(1)
        scores[prompt, answer] = (chosen.double().sum().item(), bool((own.argmax(1) == target).all()))
    return scores


def _padded(texts: Sequence[Ids], device) -> torch.Tensor:
    """(texts, longest): ids padded on the right with 0, which causal attention never shows to a real token."""
    ids = torch.zeros(len(texts), max(map(len, texts)), dtype=torch.long)
    for row, text in enumerate(texts):
        ids[row, : len(text)] = torch.tensor(text)
    return ids.to(device)


def _alike(answers: dict[Ids, list[Ids]], batch_size: int) -> Iterator[list[Ids]]:
    """Prompts with the same first tokens together where they fill a batch, all others in one list.

    Inside a list neighbours are alike in what costs most, the prompts' length or their answers', so that little is
    padded; longest first, so that a batch that does not fit memory fails at once.
    """
    sizes = Counter(prompt[:_PREFIX_KEY] for prompt in answers)
    lists: dict[Ids, list[Ids]] = {}
    for prompt in answers:
        key = prompt[:_PREFIX_KEY]
        lists.setdefault(key if sizes[key] >= batch_size else (), []).append(prompt)
    for prompts in lists.values():
        shared = len(common_prefix(prompts))
        reading = sum(len(prompt) - shared for prompt in prompts)
        answering = sum(len(answer) for prompt in prompts for answer in answers[prompt])

        def cost(prompt: Ids, by_prompt: bool = reading > answering) -> tuple[int, int]:
            longest = max(map(len, answers[prompt]))
            return (len(prompt), longest) if by_prompt else (longest, len(prompt))

        yield sorted(prompts, key=cost, reverse=True)


def _batches(prompts: Sequence[Ids], answers: dict[Ids, list[Ids]], batch_size: int) -> Iterator[list[tuple[Ids, Ids]]]:
    rows = [(prompt, answer) for prompt in prompts for answer in answers[prompt]]
    for start in range(0, len(rows), batch_size):
        yield rows[start : start + batch_size]


def common_prefix(texts: Sequence[Ids]) -> Ids:
    first, last = min(texts), max(texts)
    for i, (a, b) in enumerate(zip(first, last, strict=False)):
        if a != b:
            return first[:i]
    return first
