"""Sampling K answers per prompt together with their vectors: a small engine interface, and the engine on transformers.

An engine for a serving system is one more class with `generate`; nothing above it knows how answers come about.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from winnow.backbone.causal_model import CausalModel, gap_mask, positions
from winnow.backbone.grouped_attention import grouped
from winnow.backbone.prefix import SharedPrefix
from winnow.backbone.row_cache import RowLayer, row_cache
from winnow.backbone.sampling import next_tokens, uniforms
from winnow.data.batching import pad_right
from winnow.errors import UserError

LAST_FOUR = (-4, -3, -2, -1)  # [paper]; the last one after the final norm, as transformers counts hidden states (ours)
CHECK_EVERY = 4  # steps between looks for finished answers: a look makes the device wait (ours)

Stop = Callable[[list[int]], bool]  # an answer's tokens so far -> whether it may end here


@dataclass(frozen=True)
class Prompt:
    """A prompt as token ids, and the record that its draws belong to."""

    record_id: str
    ids: list[int]


@dataclass(frozen=True)
class Sampling:
    """How answers are drawn.

    answers: K. temperature: of the soft-max; 0 takes the likeliest token. top_p: mass of the set drawn from. top_k:
    likeliest tokens kept before that; None: all. max_new_tokens: limit of an answer. seed: of the draws, which are a
    function of (seed, record id, number of the answer, position). layers: whose hidden states make the vectors.
    """

    answers: int = 5
    temperature: float = 1.4
    top_p: float = 0.9
    top_k: int | None = None
    max_new_tokens: int = 256
    seed: int = 0
    layers: tuple[int, ...] = LAST_FOUR


@dataclass(frozen=True)
class Answer:
    """One sampled answer.

    ids: its tokens without the end-of-sequence token. finish: `eos`, or `length` if it was cut at the limit. vector:
    (width,) fp32 on the CPU, the mean over these tokens and the chosen layers of the hidden state at each token (which
    has seen that token and all before it); None for an answer without tokens.
    """

    ids: list[int]
    finish: str
    vector: Tensor | None


class HuggingFaceEngine:
    """Batched decoding with a transformers model: answers are those of the model alone with the prompt.

    Each prompt is run once; its keys and values are then repeated for its K answers. Prompts of a batch are padded on
    the right, where nothing looks; answers of all rows start at the same place behind the longest prompt, and a mask
    hides the gap, whose weight is exactly 0. Room for keys and values is made once and written in place. Rows that have
    ended give their place to a row from the end, so that the batch shrinks without being copied.

    A model that counts distance in places (ALiBi), or looks back over a window that the text outgrows, decodes prompts
    of equal length together, without a gap. One whose cache cannot be repeated (recurrent state) runs every text whole
    at every step: exact, and slow.

    eos: ids that end an answer; None takes those of the model's generation settings and of the tokenizer.
    forwards: rows that went through the transformer while decoding, for benchmarks.
    """

    def __init__(self, model: nn.Module, tokenizer, eos: Sequence[int] | None = None) -> None:
        self.prefix = SharedPrefix(model)
        self.causal = self.prefix.causal
        self.padding = self.causal.padding
        self.eos = sorted(end_tokens(model, tokenizer) if eos is None else set(eos))
        self.forwards = 0

    @torch.no_grad()
    def generate(
        self, prompts: Sequence[Prompt], sampling: Sampling, shared: int = 0, stop: Stop | None = None
    ) -> list[list[Answer]]:
        """`sampling.answers` answers for every prompt, in order, each by its prompt and (seed, record id, its number)
        alone.

        shared: first tokens that all prompts have in common. stop: looks at an answer's tokens after each step and says
        whether it may end.
        Raises UserError if prompt and answer do not fit the model's positions.
        """
        if not prompts:
            return []
        longest = max(len(prompt.ids) for prompt in prompts) + sampling.max_new_tokens
        limit = positions(self.causal.config)
        if limit is not None and longest > limit:
            raise UserError(
                f"A prompt and method.max_new_tokens make {longest} tokens, but the backbone reads {limit}; lower "
                f"template.max_length or method.max_new_tokens."
            )
        window = self.causal.window
        padding = self.padding and (window is None or longest <= window)
        groups: dict[int, list[int]] = {}
        for i, prompt in enumerate(prompts):
            groups.setdefault(0 if padding or not self.causal.reuse else len(prompt.ids), []).append(i)
        answers: list[list[Answer]] = [[] for _ in prompts]
        for group in groups.values():
            made = self._decode([prompts[i] for i in group], sampling, shared, padding, stop)
            for i, own in zip(group, made, strict=True):
                answers[i] = own
        return answers

    def _decode(
        self, prompts: Sequence[Prompt], sampling: Sampling, shared: int, padding: bool, stop: Stop | None
    ) -> list[list[Answer]]:
        # Without chance all answers of a record are one answer.
        copies = 1 if sampling.temperature == 0 else sampling.answers
        state = _Decoding(self.prefix, prompts, sampling, copies, shared, padding)
        every = CHECK_EVERY if stop is None else 1
        with grouped(self.causal.body) if padding else nullcontext():
            for step in range(sampling.max_new_tokens):
                state.choose(step, sampling, self.eos)
                if (step + 1) % every == 0 and not state.drop_ended(stop):
                    break
                # Also after the last token: its hidden state is part of the vector.
                self._advance(state, sampling.layers, step, last=step + 1 == sampling.max_new_tokens)
        return state.answers(copies, sampling.answers // copies)

    def _advance(self, state: _Decoding, layers: Sequence[int], step: int, last: bool) -> None:
        """Run the chosen tokens; add their hidden states to the sums; make the next logits unless it was the last."""
        if last and not layers:
            return
        seen, place = state.start + step + 1, state.prompt + step
        rows = torch.arange(len(place), device=place.device)
        if state.cache is None:
            state.texts[rows, place] = state.token
            inputs, at = {"input_ids": state.texts[:, :seen]}, place
        else:
            inputs, at = {"input_ids": state.token[:, None]}, torch.zeros_like(place)
        if state.mask is not None:
            inputs |= {"attention_mask": state.mask[..., :seen], "position_ids": place[:, None]}
        hidden, states = self.causal.run(state.cache, layers, **inputs)
        self.forwards += len(state.token)
        if layers:
            state.add(torch.stack([layer[rows, at] for layer in states]).float().mean(0))
        if not last:
            state.logits = self.causal.logits(hidden[rows, at])


def _draws(prompts: Sequence[Prompt], sampling: Sampling, copies: int) -> Tensor:
    """(rows, tokens, UNIFORMS): the uniform numbers behind each answer."""
    if sampling.temperature == 0:  # none is read
        return torch.zeros(len(prompts), sampling.max_new_tokens, 1)
    return torch.stack(
        [
            uniforms(sampling.seed, prompt.record_id, draw, sampling.max_new_tokens)
            for prompt in prompts
            for draw in range(copies)
        ]
    )


class _Decoding:
    """The rows of one batch while they are decoded. `row` names each by its place in the results."""

    def __init__(
        self,
        prefix: SharedPrefix,
        prompts: Sequence[Prompt],
        sampling: Sampling,
        copies: int,
        shared: int,
        padding: bool,
    ) -> None:
        causal, limit = prefix.causal, sampling.max_new_tokens
        lengths = torch.tensor([len(prompt.ids) for prompt in prompts], device=causal.device)
        ids = torch.tensor(pad_right([prompt.ids for prompt in prompts], 0)).to(lengths)
        past = None
        if causal.reuse:
            shared = min(shared, int(lengths.min()) - 1)
            past, states = prefix.cache(ids, shared)
        else:
            shared, states = 0, causal.hidden(input_ids=ids)
        last = states[torch.arange(len(ids), device=ids.device), lengths - shared - 1]
        self.start = ids.shape[1]
        self.prompt = lengths.repeat_interleave(copies)
        self.mask: Tensor | None = None
        if padding:
            mask = gap_mask(self.prompt, self.start, 1, last.dtype)[..., : self.start]
            self.mask = nn.functional.pad(mask, (0, limit))
        self.cache = None if past is None else row_cache(past, copies, limit)
        self.texts = nn.functional.pad(ids, (0, limit)).repeat_interleave(copies, 0)
        self.logits = causal.logits(last).repeat_interleave(copies, 0)
        self.draws = _draws(prompts, sampling, copies).to(ids.device)
        rows, device = len(self.prompt), ids.device
        self.row = torch.arange(rows, device=device)
        self.open = torch.ones(rows, dtype=torch.bool, device=device)
        self.token = torch.zeros(rows, dtype=torch.long, device=device)
        # Results, one per row of the whole batch.
        self.tokens = torch.zeros(rows, limit, dtype=torch.long, device=device)
        self.counts = torch.zeros(rows, dtype=torch.long, device=device)
        self.sums = torch.zeros(rows, 0, device=device)
        self.ended = torch.zeros(rows, dtype=torch.bool, device=device)

    def choose(self, step: int, sampling: Sampling, eos: Sequence[int]) -> None:
        """The next token of every row; a row that meets the end is closed."""
        chosen = next_tokens(self.logits, self.draws[:, step], sampling.temperature, sampling.top_p, sampling.top_k)
        for end in eos:
            self.open &= chosen != end
        self.token = chosen
        self.tokens[self.row, step] = chosen
        self.counts[self.row] += self.open
        self.ended[self.row] = ~self.open

    def add(self, vectors: Tensor) -> None:
        """Vectors (rows going on, width) of the tokens chosen last."""
        if not self.sums.shape[1]:  # not every layer is as wide as the last
            self.sums = self.sums.new_zeros(len(self.sums), vectors.shape[1])
        self.sums[self.row] += vectors * self.open[:, None]

    def drop_ended(self, stop: Stop | None) -> bool:
        """Take closed rows, and those that `stop` closes, out of the batch; False if none is left."""
        if stop is not None:
            counts = self.counts[self.row].tolist()
            rows = zip(self.open.tolist(), self.tokens[self.row, : max(counts)].tolist(), counts, strict=True)
            self.open = torch.tensor([on and not stop(ids[:n]) for on, ids, n in rows]).to(self.open)
        going = self.open.nonzero()[:, 0].tolist()
        count = len(going)
        if count == len(self.open):
            return True
        # A row behind the new end moves into a hole before it: only as many rows are copied as have ended.
        holes = sorted(set(range(count)) - set(going))
        movers = [place for place in going if place >= count]
        order = list(range(count))
        for hole, mover in zip(holes, movers, strict=True):
            order[hole] = mover
        keep = torch.tensor(order, dtype=torch.long, device=self.row.device)
        self.mask = None if self.mask is None else self.mask[keep]
        self.texts, self.prompt, self.draws = self.texts[keep], self.prompt[keep], self.draws[keep]
        self.row, self.open, self.token = self.row[keep], self.open[keep], self.token[keep]
        places = torch.tensor([holes, movers], dtype=torch.long, device=self.row.device)
        for layer in self.cache.layers if self.cache else []:
            assert isinstance(layer, RowLayer)  # see row_cache
            layer.move(places[0], places[1], count)
        return count > 0

    def answers(self, copies: int, times: int) -> list[list[Answer]]:
        """Answers by prompt, in the order of their draws; a prompt has `copies` rows, each used `times` times."""
        tokens, counts, ended = self.tokens.tolist(), self.counts.tolist(), self.ended.tolist()
        vectors = (self.sums / self.counts.clamp(min=1)[:, None]).cpu()
        made = [
            Answer(ids[:n], "eos" if end else "length", vectors[i].clone() if n else None)
            for i, (ids, n, end) in enumerate(zip(tokens, counts, ended, strict=True))
        ]
        return [made[i : i + copies] * times for i in range(0, len(made), copies)]


def end_tokens(model: nn.Module, tokenizer) -> set[int]:
    """Ids that end an answer: those of the model's generation settings and the tokenizer's own."""
    settings = getattr(model, "generation_config", None)
    told = getattr(settings, "eos_token_id", None)
    ids = {told} if isinstance(told, int) else set(told or [])
    return ids | ({tokenizer.eos_token_id} - {None})


@torch.no_grad()
def pooled(model: nn.Module, ids: Tensor, weights: Tensor, layers: Sequence[int] = LAST_FOUR) -> Tensor:
    """Vectors of texts by running them whole: the weighted mean over tokens of the chosen layers' hidden states.

    ids: (texts, length), padded on the right; weights: (texts, length), 0 on padding, each row with a sum above 0.
    Returns (texts, width) in fp32. With weight 1 on an answer's tokens behind its prompt this is the vector that
    decoding gives.
    """
    states = torch.stack(CausalModel(model).run(layers=layers, input_ids=ids)[1]).float().mean(0)
    return (states * weights[..., None]).sum(1) / weights.sum(1, keepdim=True)
