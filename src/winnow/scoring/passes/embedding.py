"""Passes that give one vector per record, for clustering, near copies and maps: from the backbone's hidden states, or
from a sentence encoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import takewhile
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa
import pytorch_lightning as pl
import torch
from torch import Tensor

from winnow.backbone.causal_model import CausalModel
from winnow.backbone.loading import Backbone
from winnow.backbone.prefix import SharedPrefix
from winnow.backbone.sentence_encoder import SentenceEncoder, mean_states
from winnow.data.batching import pad_right
from winnow.data.records import Record
from winnow.data.templates import Encoded, Template
from winnow.data.tokens import Piece, RefusedError, tokens_of
from winnow.errors import UserError
from winnow.scoring.protocols import Pass, Steps, columns_of
from winnow.store.describe import Identified

if TYPE_CHECKING:
    from winnow.perturb.attacks.base import PromptAttack

REGIONS = ("all", "prompt", "instruction_in_prompt", "instruction", "answer")
POOLINGS = ("mean", "last", "weighted")
EMPTY_TEXT = "empty_instruction_and_input"
NO_INSTRUCTION = "empty_instruction"
_BATCH = 1000  # texts tokenised at once

_SCHEMA = columns_of(vector=pa.list_(pa.float32()), tokens=pa.int32())


def _texts(texts: Sequence[str], records: Sequence[Record], tokenizer, max_length: int, blank: str) -> list[Encoded]:
    """A text of each record by itself, between what the tokenizer puts around one, cut on the right. A blank one, or
    one without tokens, is flagged with the reason `blank`."""
    around = tokenizer("a", return_special_tokens_mask=True)
    whole, added = around["input_ids"], around["special_tokens_mask"]
    before = whole[: len(list(takewhile(bool, added)))]
    after = whole[len(whole) - len(list(takewhile(bool, added[len(before) :][::-1]))) :]
    room = max(0, max_length - len(before) - len(after))
    encoded = []
    for start in range(0, len(texts), _BATCH):
        own = texts[start : start + _BATCH]
        found = tokens_of([[Piece(text, "turns")] for text in own], tokenizer)
        for record, text, tokens in zip(records[start : start + _BATCH], own, found, strict=True):
            if isinstance(tokens, RefusedError):
                encoded.append(Encoded(record.id, [], 0, 0, {}, str(tokens)))
                continue
            ids = before + tokens.ids[:room] + after
            encoded.append(Encoded(record.id, ids, len(ids), 0, {}, None if tokens.ids and text.strip() else blank))
    return encoded


@dataclass(frozen=True)
class BackboneEmbedding(Pass):
    """One vector per record from the backbone's hidden states.

        pooling=mean   H = 1/n sum over the region's tokens of h_t
        pooling=last   H = h of the region's last token
        pooling=weighted   H = sum of t h_t / sum of t,   t = 1 .. n over the region's tokens

    "Priority on High-Quality" (EMNLP 2025) takes the mean over all tokens, prompt and answer, of the final hidden
    states; RDS+ (arXiv 2503.01807) weights them by position. region: `all`, `prompt`, `instruction_in_prompt` or
    `answer`, cut to the template's window; or `instruction`, its text run alone, without template and input, so that no
    vector depends on the form of the prompt. layer: -1 is the final state after the last norm; otherwise an index into
    the model's hidden states, 0 for the input embeddings, k for what block k puts out. The mean is taken in fp32.
    attack: the vectors of prompts whose instruction was attacked.

    Columns per record: `vector`, the backbone's width in floats; `tokens`, n, how many were pooled; `flag`.
    """

    region: str
    layer: int
    pooling: str
    attack: PromptAttack | None = None
    version: ClassVar[int] = 3
    schema: ClassVar[pa.Schema] = _SCHEMA

    def __post_init__(self) -> None:
        if self.region not in REGIONS:
            raise UserError(f"An embedding has no region={self.region}; choose {', '.join(REGIONS)}.")
        if self.pooling not in POOLINGS:
            raise UserError(f"An embedding has no pooling={self.pooling}; choose {', '.join(POOLINGS)}.")

    def encode(self, records: Sequence[Record], template: Template, tokenizer) -> list[Encoded]:
        if self.region == "instruction":
            texts = [record.instruction for record in records]
            return _texts(texts, records, tokenizer, template.max_length, NO_INSTRUCTION)
        if self.region not in ("prompt", "instruction_in_prompt"):
            return template.encode(records, tokenizer)
        # What comes later is not seen from here: it is not run, and a record may lack an answer. The stand-in has a
        # token.
        prompts = template.alone.encode([replace(record, output="?") for record in records], tokenizer)
        whole = self.region == "prompt"
        blank = EMPTY_TEXT if whole else NO_INSTRUCTION
        return [
            replace(prompt, ids=[] if flag else prompt.ids[: prompt.answer_start], flag=flag)
            for prompt in prompts
            for there in [prompt.answer_start if whole else "instruction" in prompt.spans]
            for flag in [prompt.flag or (None if there else blank)]
        ]

    def module(self, backbone: Backbone) -> pl.LightningModule:
        CausalModel(backbone.model, backbone.name).check_layers([self.layer], f"layer={self.layer} of an embedding")
        return super().module(backbone)

    def collate(self, batch: Sequence[Encoded]) -> dict[str, Any]:
        """input_ids: (batch, length), padded. region: the half-open token range to pool in each record."""
        columns = [{"id": record.id, "region": self._range(record)} for record in batch]
        return {"input_ids": torch.tensor(pad_right([record.ids for record in batch], 0)), "columns": columns}

    def cost(self, encoded: Encoded, shared: int) -> int:
        """Tokens that a record takes: of all layers but the last one the shared beginning is run again."""
        return len(encoded.ids) - (shared if self.layer == -1 else 0)

    def _range(self, record: Encoded) -> tuple[int, int]:
        if self.region == "instruction_in_prompt":
            return record.spans["instruction"]
        return (record.answer_start if self.region == "answer" else 0), len(record.ids)

    def step(self, run: Steps, batch: dict[str, Any]) -> dict[str, list]:
        hidden = self._states(run.prefix, batch["input_ids"], batch["shared"])
        ranges = [record["region"] for record in batch["columns"]]
        if self.pooling == "last":
            pooled = [hidden[i, stop - 1].float() for i, (_, stop) in enumerate(ranges)]
        elif self.pooling == "weighted":
            pooled = [_weighted(hidden[i, begin:stop].float()) for i, (begin, stop) in enumerate(ranges)]
        else:
            pooled = [hidden[i, begin:stop].float().mean(0) for i, (begin, stop) in enumerate(ranges)]
        return {
            "vector": torch.stack(pooled).cpu().tolist(),
            "tokens": [1 if self.pooling == "last" else stop - begin for begin, stop in ranges],
        }

    def _states(self, prefix: SharedPrefix, ids: Tensor, shared: int) -> Tensor:
        """Hidden states (batch, length, width) of the wanted layer."""
        if self.layer == -1:
            return prefix.causal.vectors(prefix.hidden(ids, shared))
        # The shared prefix keeps final states only, so other layers run the whole text.
        return prefix.causal.run(layers=[self.layer], input_ids=ids)[1][0]


def _weighted(states: Tensor) -> Tensor:
    """(width,) mean of (tokens, width), each token weighted by its place, 1 for the first."""
    places = torch.arange(1, len(states) + 1, dtype=states.dtype, device=states.device)
    return places @ states / places.sum()


@dataclass(frozen=True)
class SentenceEmbedding(Pass, Identified):
    """One unit vector per record from a sentence encoder, which reads its instruction, or this and its input.

        v = m / |m|,   m = mean over the text's tokens of the encoder's last hidden state

    as sentence-transformers/all-MiniLM-L6-v2 is meant to be used. region: `prompt`, the instruction and, where there is
    one, a line break and the input; or `instruction`. name, revision: see `SentenceEncoder`. max_length: window in the
    encoder's tokens, 256 for MiniLM [its model card]; the text is cut on the right. The backbone and the template play
    no part, neither here nor in the fingerprint.

    Columns per record: `vector`, the encoder's width in floats, of length 1; `tokens`, read by the encoder; `flag`.
    """

    name: str
    revision: str | None
    max_length: int
    region: str
    version: ClassVar[int] = 2
    schema: ClassVar[pa.Schema] = _SCHEMA

    def __post_init__(self) -> None:
        if self.region not in ("prompt", "instruction"):
            raise UserError(f"A sentence embedding has no region={self.region}; choose prompt or instruction.")

    @cached_property
    def encoder(self) -> SentenceEncoder:
        """The model that the runner loads for this pass, in place of the backbone."""
        return SentenceEncoder(self.name, self.revision)

    @property
    def identity(self) -> dict[str, Any]:
        return {"encoder": self.encoder, "max_length": self.max_length, "region": self.region}

    def encode(self, records: Sequence[Record], template: Template | None, tokenizer) -> list[Encoded]:
        both = self.region == "prompt"
        texts = [f"{one.instruction}\n{one.input}" if both and one.input else one.instruction for one in records]
        return _texts(texts, records, tokenizer, self.max_length, EMPTY_TEXT if both else NO_INSTRUCTION)

    def collate(self, batch: Sequence[Encoded]) -> dict[str, Any]:
        """input_ids, attention_mask: (batch, length). The encoder looks both ways, so padding must be masked."""
        return {
            "input_ids": torch.tensor(pad_right([record.ids for record in batch], self.encoder.tokenizer.pad_token_id)),
            "attention_mask": torch.tensor(pad_right([[1] * len(record.ids) for record in batch], 0)),
            "columns": [{"id": record.id, "tokens": len(record.ids)} for record in batch],
        }

    def step(self, run: Steps, batch: dict[str, Any]) -> dict[str, list]:
        mean = mean_states(run.model, batch["input_ids"], batch["attention_mask"])
        return {"vector": torch.nn.functional.normalize(mean, dim=-1).cpu().tolist()}
