"""One vector per prompt and the prompt's own perplexity: what IFD's pre-experience stage reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pyarrow as pa
import torch

from winnow.backbone.likelihood import token_nll
from winnow.data.records import Record
from winnow.data.templates import Encoded, Template
from winnow.scoring.passes.embedding import EMPTY_TEXT
from winnow.scoring.protocols import Pass, Steps, columns_of


@dataclass(frozen=True)
class PromptEmbedding(Pass):
    """One vector per prompt and the prompt's own perplexity, from one forward: IFD's pre-experience stage.

        vector = mean over the prompt's tokens of the final hidden state (after the last norm)
        prompt_nll = mean over the prompt's tokens but the first of -log p(token | tokens before), in nats

    Source: Cherry_LLM, `--mod pre`, which under the Wizard prompt reads the bare instruction. The answer is not read.
    """

    version: ClassVar[int] = 2
    schema: ClassVar[pa.Schema] = columns_of(vector=pa.list_(pa.float32()), prompt_nll=pa.float32())

    def encode(self, records: Sequence[Record], template: Template, tokenizer) -> list[Encoded]:
        prompts = [replace(one, ids=one.ids[: one.answer_start]) for one in template.alone.encode(records, tokenizer)]
        return [replace(one, answer_start=0, flag=one.flag or (None if one.ids else EMPTY_TEXT)) for one in prompts]

    def step(self, run: Steps, batch: dict[str, Any]) -> dict[str, list]:
        hidden = run.prefix.hidden(batch["input_ids"], batch["shared"])
        lengths = [record["tokens"] for record in batch["columns"]]
        states = run.prefix.causal.vectors(hidden)
        vectors = torch.stack([states[i, :length].float().mean(0) for i, length in enumerate(lengths)])
        rows = hidden[batch["row"], batch["position"]]
        nll = token_nll(rows, run.prefix.causal.logits, batch["target"]).cpu()
        losses = nll.split([record["scored"] for record in batch["columns"]])
        return {
            "vector": vectors.cpu().tolist(),
            "prompt_nll": [float(loss.mean()) if len(loss) else None for loss in losses],
        }
