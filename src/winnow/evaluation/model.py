"""Our model behind the harness's interface.

Imported only when an evaluation runs: lm-eval takes seconds to import.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from winnow.backbone.causal_model import CausalModel, positions
from winnow.backbone.shared import join_in
from winnow.distributed import dealt, from_all, from_leader, is_leader
from winnow.errors import UserError
from winnow.evaluation.greedy import greedy_answers
from winnow.evaluation.shared_prompts import Ids, answer_loglikelihoods, can_share_prompts

Pair = tuple[str, str]


class HarnessModel(HFLM):
    """The harness's own Hugging Face model, built from a loaded model *and* its tokenizer.

    BOS follows the tokenizer (`add_bos_token=None`): a tokenizer that adds none, such as SmolLM2's, gets none.
    Log-probabilities are normalised in fp32 for any weights, because bf16 has steps of 1/32 between 4 and 8 nats.

    pairs: (prompt, answer) texts with known token ids. The embedded suite passes the ids of its template, so that a
    held-out answer has the same form as in tuning; the harness tokenises every other pair. prompts: {prompt: token ids}
    for tasks that generate. Answers to these are decoded greedily with shared prompts (`winnow.evaluation.greedy`); the
    harness generates all others.

    In a group of processes the leader runs the harness, and the others are in `follow`: each runs its share of the
    batches. The batches are those of one process, and so are the numbers; only models that cannot share prompts get
    likelihoods in other batches, equal to rounding.

    Attributes: truncated, the number of requests that this process cut on the left to fit the model's window.
    Raises UserError when an answer alone is longer than the window, and for a likelihood that is not finite.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerFast,
        batch_size: int,
        pairs: Mapping[Pair, tuple[list[int], list[int]]] | None = None,
        prompts: Mapping[str, list[int]] | None = None,
    ) -> None:
        super().__init__(
            pretrained=model,
            # A copy, because the harness may set a padding token.
            tokenizer=copy.deepcopy(tokenizer),
            backend="causal",
            # The harness pads on the left to generate, and some models cannot mask that.
            batch_size=batch_size if CausalModel(model).padding else 1,
            add_bos_token=None,
            max_length=positions(model.config),
            softmax_dtype="float32",
        )
        self.pairs = dict(pairs or {})
        self.prompts = dict(prompts or {})
        self.truncated = 0

    def _together(self, work: Callable[..., list], *given: Any) -> list:
        """`work(self, *given)`, by all processes of the group."""
        from_leader((work, given))
        return work(self, *given)

    def follow(self) -> None:
        """Takes part in all that the leader's model is asked, until the leader calls `finish`."""
        while (call := from_leader(None)) is not None:
            work, given = call
            work(self, *given)
        from_all(self.truncated)

    def finish(self) -> int:
        """Lets the other processes go. Returns how many requests were cut to fit the model's window, by any process."""
        from_leader(None)
        return sum(from_all(self.truncated))

    def tok_decode(self, tokens, skip_special_tokens=True):
        # Some decoders (Llama 1 and 2) drop the blank before the first word, with which a line of code may begin.
        if isinstance(tokens, int):
            return super().tok_decode(tokens, skip_special_tokens)
        anchor = self.tokenizer("\n", add_special_tokens=False)["input_ids"]
        before = super().tok_decode(anchor, skip_special_tokens)
        whole = super().tok_decode([*anchor, *tokens], skip_special_tokens)
        if before and whole.startswith(before):
            return whole.removeprefix(before)
        return super().tok_decode(tokens, skip_special_tokens)

    def loglikelihood(self, requests, disable_tqdm=False):
        found = super().loglikelihood(requests, disable_tqdm)
        _check_finite(requests, [value for value, _ in found])
        return found

    def loglikelihood_rolling(self, requests, disable_tqdm=False):
        # All windows at once: the harness asks for a batch at a time, which leaves nothing to deal out.
        windows = [self._windows(request.args[0]) for request in requests]
        scores = iter(self._loglikelihood_tokens([one for own in windows for one in own], disable_tqdm))
        found = [sum(next(scores)[0] for _ in own) for own in windows]
        _check_finite(requests, found)
        return found

    def _windows(self, text: str) -> list[tuple[None, list[int], list[int]]]:
        """The text as the harness cuts it: every token is predicted once, from as many as fit the model before it."""
        ids = self.tok_encode(text)
        rolling = get_rolling_token_windows(ids, self.prefix_token_id, max_seq_len=self.max_length, context_len=1)
        return [(None, *make_disjoint_window(window)) for window in rolling]

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        known = self.pairs.get((context, continuation))
        return known if known is not None else super()._encode_pair(context, continuation)

    def _loglikelihood_tokens(self, requests, disable_tqdm=False, override_bs=None):
        room = self.max_length + 1  # the last token is predicted, never read
        pairs, prompts = [], {}  # a prompt of many answers is sent to the other processes once
        for _, prompt_ids, answer_ids in requests:
            if len(answer_ids) > self.max_length:
                answer = self.tok_decode(answer_ids)
                raise UserError(
                    f"An answer of {len(answer_ids)} tokens ({answer[:40]!r}...) does not fit the model's window of "
                    f"{self.max_length}: evaluate a model with a longer window or drop the task from the suite."
                )
            cut = max(0, len(prompt_ids) + len(answer_ids) - room)
            self.truncated += cut > 0
            prompt = tuple(prompt_ids[cut:])
            pairs.append((prompts.setdefault(prompt, prompt), tuple(answer_ids)))
        return self._together(HarnessModel._likelihoods, pairs, disable_tqdm)

    def _likelihoods(self, pairs: Sequence[tuple[Ids, Ids]], quiet: bool) -> list[tuple[float, bool]]:
        quiet = quiet or not is_leader()
        if can_share_prompts(self.model):
            return answer_loglikelihoods(self.model, pairs, self.batch_size, progress=not quiet)
        # The harness runs a prompt once for all its answers of one token.
        prompts: dict[Ids, list[int]] = {}
        for i, (prompt, _) in enumerate(pairs):
            prompts.setdefault(prompt, []).append(i)
        blocks = [prompts[prompt] for prompt in sorted(prompts, key=len, reverse=True)]

        def score(own: Sequence[int]) -> list[tuple[float, bool]]:
            asked = [(None, list(pairs[i][0]), list(pairs[i][1])) for i in own]
            return HFLM._loglikelihood_tokens(self, asked, disable_tqdm=quiet)

        return _by_blocks(blocks, score, self.model)

    def generate_until(self, requests, disable_tqdm=False):
        tasks = ", ".join(sorted({str(request.task_name) for request in requests}))
        return self._together(HarnessModel._generate, [request.args for request in requests], tasks, disable_tqdm)

    def _generate(self, asked: Sequence[tuple[str, dict]], tasks: str, quiet: bool) -> list[str]:
        quiet = quiet or not is_leader()
        kinds: dict[str, list[int]] = {}
        for i, (_, settings) in enumerate(asked):
            kinds.setdefault(json.dumps(settings, sort_keys=True), []).append(i)
        answer = self._greedy if all(self._ours(*one) for one in asked) else self._by_harness
        answers: dict[int, str] = {}
        # The most likely of numbers that are none would be the first token, and the answer would be wrong, not missing.
        watch = self.model.get_output_embeddings().register_forward_hook(partial(_refuse_nan, tasks))
        try:
            for chosen in kinds.values():
                answers |= dict(zip(chosen, answer(asked, chosen, quiet), strict=True))
        finally:
            watch.remove()
        return [answers[i] for i in range(len(asked))]

    def _greedy(self, asked: Sequence[tuple[str, dict]], chosen: Sequence[int], quiet: bool) -> list[str]:
        settings = asked[chosen[0]][1]
        room = self.max_length - settings["max_gen_toks"]
        prompts = [self.prompts[asked[i][0]] for i in chosen]
        if is_leader():
            self.truncated += sum(len(ids) > room for ids in prompts)
        return greedy_answers(
            self.model,
            self.tokenizer,
            [tuple(ids[-room:]) for ids in prompts],
            settings["until"],
            settings["max_gen_toks"],
            self.batch_size,
            progress=not quiet,
        )

    def _by_harness(self, asked: Sequence[tuple[str, dict]], chosen: Sequence[int], quiet: bool) -> list[str]:
        # In the order of the harness, whose batches these are.
        order = sorted(chosen, key=lambda i: (-len(self.tok_encode(asked[i][0])), asked[i][0]))
        blocks = [order[start : start + self.batch_size] for start in range(0, len(order), self.batch_size)]

        def answer(own: Sequence[int]) -> list[str]:
            requests = [Instance("generate_until", {}, asked[i], i) for i in own]
            return HFLM.generate_until(self, requests, disable_tqdm=quiet)

        return _by_blocks(blocks, answer, self.model)

    def _ours(self, prompt: str, settings: Mapping) -> bool:
        """Whether a request is greedy, with a prompt whose ids are known, and asks for nothing else."""
        greedy = set(settings) == {"until", "max_gen_toks", "do_sample"} and settings["do_sample"] is False
        return prompt in self.prompts and greedy and 0 < settings["max_gen_toks"] < self.max_length

    def tok_batch_encode(self, strings, padding_side="left", left_truncate_len=None, truncation=False):
        if any(string in self.prompts for string in strings):  # the ids that the template makes, here as well
            rows = [self.prompts[string] if string in self.prompts else self.tok_encode(string) for string in strings]
            padded = self.tokenizer.pad({"input_ids": rows}, padding_side=padding_side, return_tensors="pt")
            ids, mask = padded["input_ids"], padded["attention_mask"]
        else:
            ids, mask = super().tok_batch_encode(strings, padding_side, None, truncation)
        if left_truncate_len:
            self.truncated += int((mask.sum(1) > left_truncate_len).sum())
            ids, mask = ids[:, -left_truncate_len:], mask[:, -left_truncate_len:]
        return ids, mask


def _by_blocks(
    blocks: Sequence[Sequence[int]], work: Callable[[Sequence[int]], Sequence[Any]], model: Any
) -> list[Any]:
    """What `work` gives for the numbers in all blocks, in the order of the numbers. Each process of the group asks it
    once, for its share of the blocks, and joins the others in the model's forwards."""

    def of_blocks(own: Sequence[Sequence[int]]) -> list[list[Any]]:
        numbers = [i for block in own for i in block]
        found = dict(zip(numbers, work(numbers), strict=True)) if numbers else {}
        return [[found[i] for i in block] for block in own]

    results = dealt(blocks, of_blocks, partial(join_in, model))
    found = {i: one for block, own in zip(blocks, results, strict=True) for i, one in zip(block, own, strict=True)}
    return [found[i] for i in sorted(found)]


def _check_finite(requests: Sequence[Instance], values: Sequence[float]) -> None:
    for request, value in zip(requests, values, strict=True):
        if not math.isfinite(value):
            raise UserError(
                f"Task {request.task_name!r}, item {request.doc_id}: the model gives the log-likelihood {value}: its "
                f"weights or its dtype are broken; tune it again with a lower tuning.learning_rate, or load it with "
                f"backbone.dtype=fp32."
            )


def _refuse_nan(tasks: str, head: nn.Module, inputs: tuple, logits: torch.Tensor) -> None:
    if bool(logits.isnan().any()):
        raise UserError(
            f"The model gives logits that are not a number while it answers {tasks}: its weights or its dtype are "
            f"broken; tune it again with a lower tuning.learning_rate, or load it with backbone.dtype=fp32."
        )
