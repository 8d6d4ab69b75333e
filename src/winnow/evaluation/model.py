"""Our model behind the harness's interface.

Imported only when an evaluation runs: lm-eval takes seconds to import.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Mapping, Sequence

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from winnow.backbone.causal_model import CausalModel
from winnow.errors import UserError
from winnow.evaluation.greedy import greedy_answers
from winnow.evaluation.shared_prompts import answer_loglikelihoods, can_share_prompts

Pair = tuple[str, str]


class HarnessModel(HFLM):
    """The harness's own Hugging Face model, built from a loaded model *and* its tokenizer.

    BOS follows the tokenizer (`add_bos_token=None`): a tokenizer that adds none, such as SmolLM2's, gets none.
    Log-probabilities are normalised in fp32 for any weights, because bf16 has steps of 1/32 between 4 and 8 nats.

    pairs: (prompt, answer) texts with known token ids. The embedded suite passes the ids of its template, so that a
    held-out answer has the same form as in tuning; the harness tokenises every other pair. prompts: {prompt: token ids}
    for tasks that generate. Answers to these are decoded greedily with shared prompts (`winnow.evaluation.greedy`); the
    harness generates all others.

    Attributes: truncated, the number of requests cut on the left to fit the model's window.
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
            softmax_dtype="float32",
        )
        self.pairs = dict(pairs or {})
        self.prompts = dict(prompts or {})
        self.truncated = 0

    def loglikelihood(self, requests, disable_tqdm=False):
        found = super().loglikelihood(requests, disable_tqdm)
        _check_finite(requests, [value for value, _ in found])
        return found

    def loglikelihood_rolling(self, requests, disable_tqdm=False):
        found = super().loglikelihood_rolling(requests, disable_tqdm)
        _check_finite(requests, found)
        return found

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        known = self.pairs.get((context, continuation))
        return known if known is not None else super()._encode_pair(context, continuation)

    def _loglikelihood_tokens(self, requests, disable_tqdm=False, override_bs=None):
        room = self.max_length + 1  # the last token is predicted, never read
        pairs = []
        for (_, answer), prompt_ids, answer_ids in requests:
            if len(answer_ids) > self.max_length:
                raise UserError(
                    f"An answer of {len(answer_ids)} tokens ({answer[:40]!r}...) does not fit the model's window of "
                    f"{self.max_length}: evaluate a model with a longer window or drop the task from the suite."
                )
            cut = max(0, len(prompt_ids) + len(answer_ids) - room)
            self.truncated += cut > 0
            pairs.append((tuple(prompt_ids[cut:]), tuple(answer_ids)))
        if not can_share_prompts(self.model):
            return super()._loglikelihood_tokens(requests, disable_tqdm, override_bs)
        return answer_loglikelihoods(self.model, pairs, self.batch_size, progress=not disable_tqdm)

    def generate_until(self, requests, disable_tqdm=False):
        # The most likely of numbers that are none would be the first token, and the answer would be wrong, not missing.
        watch = self.model.get_output_embeddings().register_forward_hook(_refuse_nan)
        try:
            return self._generate(requests, disable_tqdm)
        except FloatingPointError:
            tasks = ", ".join(sorted({str(request.task_name) for request in requests}))
            raise UserError(
                f"The model gives logits that are not a number while it answers {tasks}: its weights or its dtype are "
                f"broken; tune it again with a lower tuning.learning_rate, or load it with backbone.dtype=fp32."
            ) from None
        finally:
            watch.remove()

    def _generate(self, requests, disable_tqdm):
        if not all(self._ours(*request.args) for request in requests):
            return super().generate_until(requests, disable_tqdm)
        answers: dict[int, str] = {}
        kinds = {json.dumps(request.args[1], sort_keys=True): request.args[1] for request in requests}
        for kind, settings in kinds.items():
            chosen = [i for i, request in enumerate(requests) if json.dumps(request.args[1], sort_keys=True) == kind]
            room = self.max_length - settings["max_gen_toks"]
            prompts = [self.prompts[requests[i].args[0]] for i in chosen]
            self.truncated += sum(len(ids) > room for ids in prompts)
            texts = greedy_answers(
                self.model,
                self.tokenizer,
                [tuple(ids[-room:]) for ids in prompts],
                settings["until"],
                settings["max_gen_toks"],
                self.batch_size,
                progress=not disable_tqdm,
            )
            answers |= dict(zip(chosen, texts, strict=True))
        return [answers[i] for i in range(len(requests))]

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


def _check_finite(requests: Sequence[Instance], values: Sequence[float]) -> None:
    for request, value in zip(requests, values, strict=True):
        if not math.isfinite(value):
            raise UserError(
                f"Task {request.task_name!r}, item {request.doc_id}: the model gives the log-likelihood {value}: its "
                f"weights or its dtype are broken; tune it again with a lower tuning.learning_rate, or load it with "
                f"backbone.dtype=fp32."
            )


def _refuse_nan(head: nn.Module, inputs: tuple, logits: torch.Tensor) -> None:
    if bool(logits.isnan().any()):
        raise FloatingPointError("a logit is not a number")
