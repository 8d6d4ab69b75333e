"""s(A|Q_adv) of one record under many instructions: what a loss-guided attack asks the backbone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from winnow.backbone.likelihood import token_nll
from winnow.backbone.loading import Backbone
from winnow.backbone.memory import Halves
from winnow.backbone.prefix import SharedPrefix
from winnow.data.batching import token_budget_batches
from winnow.data.records import Record
from winnow.data.templates import Encoded, Template
from winnow.scoring.protocols import padded

# Room that is kept free for instructions longer than the record's own: this many tokens, or this part of the
# instruction's, whichever is more (ours). StressTest's longest option is 15 words.
MARGIN_TOKENS, MARGIN_SHARE = 48, 0.5


def _tell(prompts: int, tokens: int) -> None:
    print(
        f"{prompts} attacked prompts ({tokens} tokens) are more than memory holds; they are run in parts.", flush=True
    )


class AnswerLoss:
    """Mean loss of a record's answer given each of several instructions.

        s(A|Q_v) = 1/n sum over i < n of -log p(a_i | Q_v, a_<i)

    n is a function of the record alone: the answer tokens that fit the window beside its own prompt and the margin. So
    every instruction ever tried for a record is judged by the same answer tokens. Logits exist for a few rows at once.
    """

    def __init__(self, backbone: Backbone, template: Template, tokens_per_batch: int = 512) -> None:
        self.backbone, self.template, self.tokens_per_batch = backbone, template, tokens_per_batch
        self._prefix = SharedPrefix(backbone.model)
        self._halves = Halves(_tell)
        self._answer: tuple[Record, int] | None = None  # the record asked about last, and its n

    @torch.inference_mode()
    def __call__(self, record: Record, instructions: Sequence[str]) -> list[float]:
        """Nats per answer token, one per instruction; NaN where the prompt does not leave room for the n tokens."""
        variants = self.template.encode([replace(record, instruction=i) for i in instructions], self.backbone.tokenizer)
        n, losses = self._answer_tokens(record), [float("nan")] * len(instructions)
        fitting = [i for i, v in enumerate(variants) if v.flag is None and 0 < n <= len(v.ids) - v.answer_start]
        rows = [replace(variants[i], ids=variants[i].ids[: variants[i].answer_start + n]) for i in fitting]
        shared = self._shared(rows)
        own = [len(row.ids) - shared for row in rows]

        def size(batch: Sequence[int]) -> int:
            return len(batch) * max(own[i] for i in batch)

        def work(batch: Sequence[int]) -> None:
            for i, loss in zip(batch, self._means([rows[i] for i in batch], shared), strict=True):
                losses[fitting[i]] = loss

        for batch in token_budget_batches(own, self.tokens_per_batch):
            self._halves(batch, size, work)
        return losses

    def _answer_tokens(self, record: Record) -> int:
        if self._answer is None or self._answer[0] is not record:
            own = self.template.encode([record], self.backbone.tokenizer)[0]
            begin, end = own.spans.get("instruction", (0, 0))
            margin = max(MARGIN_TOKENS, int(MARGIN_SHARE * (end - begin)))
            room = self.template.max_length - own.answer_start - margin
            self._answer = (record, 0 if own.flag else min(own.answer_total, room))
        return self._answer[1]

    @staticmethod
    def _shared(variants: Sequence[Encoded]) -> int:
        """Tokens that all prompts begin with: those before the instruction, as far as they agree."""
        begins = [variant.spans.get("instruction", (0, 0))[0] for variant in variants]
        shortest = min(begins, default=0)
        heads = {tuple(variant.ids[:shortest]) for variant in variants}
        return shortest if len(heads) == 1 else 0

    def _means(self, rows: Sequence[Encoded], shared: int) -> list[float]:
        causal, batch = self._prefix.causal, padded(rows)
        hidden = self._prefix.hidden(batch["input_ids"].to(causal.device), shared)
        states = hidden[batch["row"], batch["position"]]
        nll = token_nll(states, causal.logits, batch["target"].to(causal.device)).cpu()
        return [float(part.mean()) for part in nll.split([row["scored"] for row in batch["columns"]])]
