"""Log-likelihoods of many answers, computing every shared prompt once.

The harness asks for log p(answer | prompt) one pair at a time: four choices repeat the prompt four times, and the
57 MMLU subjects repeat their examples for every question. Here a prompt's keys and values are computed once,
and logits are made for answer positions only. A prompt that has one answer is run together with it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

import torch
from tqdm import tqdm

from winnow.backbone.causal_model import CausalModel, gap_mask
from winnow.backbone.likelihood import CHUNK_ROWS
from winnow.backbone.prefix import SharedPrefix
from winnow.backbone.shared import join_in
from winnow.data.batching import pad_right
from winnow.distributed import dealt

Ids = tuple[int, ...]
Pair = tuple[Ids, Ids]  # prompt, answer
Score = tuple[float, bool]
_PREFIX_KEY = 16  # prompts that agree on so many first tokens are taken together


def can_share_prompts(model) -> bool:
    """True for causal models whose answers can stand behind padded prompts: no window, no distance in places, and
    attention that takes a mask of numbers."""
    causal = CausalModel(model)
    return causal.window is None and causal.padding and causal.config._attn_implementation in ("sdpa", "eager")


@torch.no_grad()
def answer_loglikelihoods(model, pairs: Sequence[Pair], batch_size: int, progress: bool = True) -> list[Score]:
    """For each (prompt ids, answer ids): (sum over the answer of log p in nats, whether each token is the argmax).

    Both parts must be non-empty. batch_size: answers a forward pass. The result does not depend on it beyond
    rounding. Logits are normalised in fp32. The processes of a group call it together, and each runs its share of the
    batches, which are those of one process.
    """
    prefix = SharedPrefix(model)
    answers: dict[Ids, list[Ids]] = {}
    for prompt, answer in dict.fromkeys((tuple(prompt), tuple(answer)) for prompt, answer in pairs):
        answers.setdefault(prompt, []).append(answer)
    several = {prompt: own for prompt, own in answers.items() if len(own) > 1}
    single = {prompt: own for prompt, own in answers.items() if len(own) == 1}
    batches = [(_score_texts, *one) for one in _texts(single, batch_size)]
    batches += [(_score, *one) for one in _rows(several, batch_size)]

    def run(own: Sequence[tuple[Callable[..., list[Score]], int, list[Pair]]]) -> list[list[Score]]:
        with tqdm(total=sum(len(batch) for *_, batch in own), desc="Scoring answers", disable=not progress) as bar:
            scores = []
            for score, shared, batch in own:
                scores.append(score(prefix, shared, batch))
                bar.update(len(batch))
        return scores

    found: dict[Pair, Score] = {}
    for (*_, batch), scores in zip(batches, dealt(batches, run, partial(join_in, model)), strict=True):
        found |= dict(zip(batch, scores, strict=True))
    return [found[tuple(prompt), tuple(answer)] for prompt, answer in pairs]


def _score_texts(prefix: SharedPrefix, shared: int, batch: Sequence[Pair]) -> list[Score]:
    """Scores of pairs that begin with the same `shared` tokens, each run as one text, padded on the right."""
    hidden = prefix.hidden(_padded([prompt + answer[:-1] for prompt, answer in batch], prefix.causal.device), shared)
    return _sums(prefix, [own[len(prompt) - 1 :] for own, (prompt, _) in zip(hidden, batch, strict=True)], batch)


def _score(prefix: SharedPrefix, shared: int, batch: Sequence[Pair]) -> list[Score]:
    """Scores of pairs whose prompts all begin with the same `shared` tokens, each prompt run once.

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
    return _sums(prefix, hidden, batch)


def _sums(prefix: SharedPrefix, hidden: Iterable[torch.Tensor], batch: Sequence[Pair]) -> list[Score]:
    """hidden: of each pair, (answer length or more, width), from the state that predicts the answer's first token."""
    counts, found = [len(answer) for _, answer in batch], []
    rows = torch.cat([states[:count] for states, count in zip(hidden, counts, strict=True)])
    targets = torch.tensor([token for _, answer in batch for token in answer], device=rows.device)
    for states, target in zip(rows.split(CHUNK_ROWS), targets.split(CHUNK_ROWS), strict=True):
        own = prefix.causal.logits(states).float()  # (rows, vocabulary)
        chosen = own.gather(1, target[:, None])[:, 0] - own.logsumexp(1)
        found.append(torch.stack([chosen.double(), own.argmax(1) == target]))
    return [(float(one[0].sum()), bool(one[1].all())) for one in torch.cat(found, 1).cpu().split(counts, 1)]


def _padded(texts: Sequence[Ids], device) -> torch.Tensor:
    """(texts, longest): ids padded on the right with 0, which causal attention never shows to a real token."""
    return torch.tensor(pad_right(texts, 0), dtype=torch.long, device=device)


def _alike(prompts: Iterable[Ids], batch_size: int) -> Iterable[list[Ids]]:
    """Prompts with the same first tokens together where they fill a batch, all others in one list."""
    prompts = list(prompts)
    sizes = Counter(prompt[:_PREFIX_KEY] for prompt in prompts)
    lists: dict[Ids, list[Ids]] = {}
    for prompt in prompts:
        key = prompt[:_PREFIX_KEY]
        lists.setdefault(key if sizes[key] >= batch_size else (), []).append(prompt)
    return lists.values()


def _shared(prompts: Sequence[Ids]) -> int:
    return len(common_prefix([prompt[:-1] for prompt in prompts]))


def _texts(answers: dict[Ids, list[Ids]], batch_size: int) -> Iterator[tuple[int, list[Pair]]]:
    """Batches of texts of about one length, longest first: less than a quarter of a batch is padding."""
    for prompts in _alike(answers, batch_size):
        shared = _shared(prompts)
        texts = sorted(((prompt, answers[prompt][0]) for prompt in prompts), key=_length, reverse=True)
        lengths = [_length(pair) - shared for pair in texts]
        start = 0
        while start < len(texts):
            end, tokens = start + 1, lengths[start]
            while end < min(len(texts), start + batch_size):
                tokens += lengths[end]
                if 4 * tokens <= 3 * (end + 1 - start) * lengths[start]:
                    break
                end += 1
            yield shared, texts[start:end]
            start = end


def _length(pair: Pair) -> int:
    return len(pair[0]) + len(pair[1]) - 1


def _rows(answers: dict[Ids, list[Ids]], batch_size: int) -> Iterator[tuple[int, list[Pair]]]:
    """Batches in which neighbours are alike in what costs most, the prompts' length or their answers'; longest first,
    so that a batch that does not fit memory fails at once."""
    for prompts in _alike(answers, batch_size):
        common = len(common_prefix(prompts))
        reading = sum(len(prompt) - common for prompt in prompts)
        answering = sum(len(answer) for prompt in prompts for answer in answers[prompt])

        def cost(prompt: Ids, by_prompt: bool = reading > answering) -> tuple[int, int]:
            longest = max(map(len, answers[prompt]))
            return (len(prompt), longest) if by_prompt else (longest, len(prompt))

        shared = _shared(prompts)
        prompts.sort(key=cost, reverse=True)
        rows = [(prompt, answer) for prompt in prompts for answer in answers[prompt]]
        for start in range(0, len(rows), batch_size):
            yield shared, rows[start : start + batch_size]


def common_prefix(texts: Sequence[Ids]) -> Ids:
    first, last = min(texts), max(texts)
    for i, (a, b) in enumerate(zip(first, last, strict=False)):
        if a != b:
            return first[:i]
    return first
