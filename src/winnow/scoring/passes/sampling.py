"""The pass behind answer divergence: K sampled answers per record, and the products of their vectors."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import pyarrow as pa
import pytorch_lightning as pl
import torch
from torch import Tensor

from winnow.backbone.causal_model import CausalModel
from winnow.backbone.generation import Answer, HuggingFaceEngine, Prompt, Sampling, pooled
from winnow.backbone.loading import Backbone
from winnow.data.batching import pad_right
from winnow.data.records import Record
from winnow.data.templates import Encoded, Template
from winnow.data.tokens import text_ids
from winnow.errors import UserError
from winnow.scoring.passes.embedding import EMPTY_TEXT
from winnow.scoring.protocols import Pass, columns_of
from winnow.store.describe import Free

POOLINGS = ("paper", "authors")
PROMPTS = ("whole", "authors")
AUTHORS_LAYERS = (-4, -3, -2)  # [code]
AUTHORS_PROMPT = 80  # tokens of a prompt that are kept, BOS included [code]
AUTHORS_WINDOW = 1024  # tokens of instruction and answer together [code]
NUMBERS = re.compile(r"[\d%℃°]")
PUNCTUATION = re.compile(r"[\s,.;:!?()\[\]{}\"'`~\-_/\\]+")


@dataclass(frozen=True, kw_only=True)
class SampledAnswers(Pass):
    """K answers per record, drawn at a temperature, and the Gram matrix of their vectors.

    answers: K [paper: 5]. temperature, top_p, top_k, max_new_tokens, seed: see `Sampling`.

    layers: hidden states averaged, the last four [paper]; 0 is the input embeddings, k what block k puts out, -1 the
    state after the final norm, as transformers counts (ours).
    pooling: `paper`, the mean over the answer's own tokens (without the end token) of these hidden states, taken while
    decoding; or `authors`, for parity: the text `instruction + " " + answer` is run again, hidden states
    -4, -3 and -2, all its tokens, weight 0 for one of punctuation or blanks alone and 1.3 for one with a digit, %, ℃
    or °. prompt: `whole`; or `authors`, the template's form without input, cut to its first 80 tokens.
    tokens_per_batch: prompt and answer tokens whose keys and values are held at once; None for what suits the device.
    It changes speed and memory, never numbers.

    Columns per record, K entries each: `answers`, texts; `tokens`, without the end token; `finish`, `eos` or `length`;
    `usable`, whether there is a text and a finite vector; and `gram`, K x K products v_i . v_j in fp64, row by row, 0
    where one of the two is not usable. Every measure that no rotation changes is a function of them, and they take 200
    bytes where the vectors of an 8-billion-parameter model take 80 KB. `prompt_tokens`; `answer_tokens`, of the
    record's own answer before any cut; `flag`.

    Answers of a record with the same tokens have one and the same vector, so that rounding is no divergence.
    """

    answers: int
    temperature: float
    top_p: float
    top_k: int | None
    max_new_tokens: int
    seed: int
    layers: tuple[int, ...]
    pooling: str
    prompt: str
    tokens_per_batch: Free[int | None]
    version: ClassVar[int] = 3
    schema: ClassVar[pa.Schema] = columns_of(
        answers=pa.list_(pa.string()),
        tokens=pa.list_(pa.int32()),
        finish=pa.list_(pa.string()),
        usable=pa.list_(pa.bool_()),
        gram=pa.list_(pa.float64()),
        prompt_tokens=pa.int32(),
        answer_tokens=pa.int32(),
    )

    def __post_init__(self) -> None:
        held = self.tokens_per_batch
        # A configuration gives a list; `authors` has layers of its own.
        layers = AUTHORS_LAYERS if self.pooling == "authors" else tuple(self.layers)
        object.__setattr__(self, "layers", layers)
        for name, ok, wanted in (
            ("answers", self.answers >= 2, "at least 2, because divergence is between answers"),
            ("temperature", self.temperature >= 0, "at least 0"),
            ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1"),
            ("top_k", self.top_k is None or self.top_k >= 1, "null or at least 1"),
            ("max_new_tokens", self.max_new_tokens >= 1, "at least 1"),
            ("tokens_per_batch", held is None or (isinstance(held, int) and held >= 1), "at least 1, or auto"),
            ("layers", len(self.layers) > 0, "one or more indices of hidden states"),
            ("pooling", self.pooling in POOLINGS, " or ".join(POOLINGS)),
            ("prompt", self.prompt in PROMPTS, " or ".join(PROMPTS)),
        ):
            if not ok:
                raise UserError(f"method.{name}={getattr(self, name)} must be {wanted}.")

    @cached_property
    def sampling(self) -> Sampling:
        """What the engine is asked for."""
        return Sampling(
            self.answers, self.temperature, self.top_p, self.top_k, self.max_new_tokens, self.seed, self.layers
        )

    def encode(self, records: Sequence[Record], template: Template, tokenizer) -> list[Encoded]:
        """Prompts alone. A record with neither instruction nor input is flagged: answers to nothing diverge most."""
        if self.prompt == "authors":
            records = [replace(record, input="") for record in records]
        limit = AUTHORS_PROMPT if self.prompt == "authors" else None
        encoded = template.alone.encode(records, tokenizer)
        return [_asked(one, record, limit) for one, record in zip(encoded, records, strict=True)]

    def cost(self, encoded: Encoded, shared: int) -> int:
        """Tokens whose keys and values a record needs when its answers are at their longest."""
        return self.answers * (len(encoded.ids) + self.max_new_tokens)

    def progress(self, columns: dict[str, list]) -> dict[str, int]:
        """What a finished batch adds to the counts beside the progress bar."""
        return {
            "answers": sum(len(texts) for texts in columns["answers"]),
            "tokens": sum(sum(counts) for counts in columns["tokens"]),
        }

    def module(self, backbone: Backbone) -> pl.LightningModule:
        CausalModel(backbone.model, backbone.name).check_layers(self.layers, f"method.layers={list(self.layers)}")
        engine = HuggingFaceEngine(backbone.model, backbone.tokenizer)
        if not engine.eos:
            raise UserError(
                f"{backbone.name} has no EOS token, so sampled answers would never end: set `eos_token` in its "
                f"tokenizer_config.json, or `eos_token_id` in its generation_config.json."
            )
        return _SamplingModule(backbone, self, engine)

    def collate(self, batch: Sequence[Encoded]) -> dict[str, Any]:
        """Prompts of different lengths, as they are: the engine pads them."""
        keys = ("id", "ids", "answer_total", "instruction")
        return {"columns": [{key: getattr(record, key) for key in keys} for record in batch]}

    def flagged(self, encoded: Encoded) -> dict[str, Any]:
        return super().flagged(encoded) | {name: [] for name in ("answers", "tokens", "finish", "usable", "gram")}


@dataclass(frozen=True)
class _Asked(Encoded):
    """A prompt, with the instruction as text for `pooling=authors`."""

    instruction: str = ""


def _asked(encoded: Encoded, record: Record, limit: int | None) -> _Asked:
    flag = encoded.flag or (None if encoded.spans else EMPTY_TEXT)
    ids = [] if flag else encoded.ids[: encoded.answer_start][:limit]
    return _Asked(encoded.id, ids, len(ids), encoded.answer_total, encoded.spans, flag, record.instruction)


class _SamplingModule(pl.LightningModule):
    def __init__(self, backbone: Backbone, settings: SampledAnswers, engine: HuggingFaceEngine) -> None:
        super().__init__()
        self.model, self.tokenizer = backbone.model, backbone.tokenizer
        self.settings, self.engine = settings, engine

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, list]:
        records = batch["columns"]
        prompts = [Prompt(record["id"], record["ids"]) for record in records]
        sampled = self.engine.generate(prompts, self.settings.sampling, batch["shared"])
        texts = [self.tokenizer.batch_decode([a.ids for a in own], skip_special_tokens=True) for own in sampled]
        rows = [self._row(*one) for one in zip(records, sampled, texts, strict=True)]
        return {name: [row[name] for row in rows] for name in rows[0]}

    def _row(self, record: dict[str, Any], answers: list[Answer], texts: list[str]) -> dict[str, Any]:
        vectors = self._vectors(record, answers, texts)
        return {
            "id": record["id"],
            "answers": texts,
            "tokens": [len(answer.ids) for answer in answers],
            "finish": [answer.finish for answer in answers],
            "usable": [vector is not None for vector in vectors],
            "gram": gram(vectors).flatten().tolist(),
            "prompt_tokens": len(record["ids"]),
            "answer_tokens": record["answer_total"],
            "flag": None,
        }

    def _vectors(self, record: dict[str, Any], answers: list[Answer], texts: list[str]) -> list[Tensor | None]:
        """A vector per answer; None for one that has no text, no token that counts or no finite vector."""
        made: dict[tuple[int, ...], Tensor | None] = {}
        whole: dict[tuple[int, ...], str] = {}  # of the answers with a vector
        for answer, text in zip(answers, texts, strict=True):
            key = tuple(answer.ids)
            if made.setdefault(key, answer.vector if text.strip() else None) is not None:
                whole[key] = f"{record['instruction']} {text.strip()}"
        if self.settings.pooling == "authors":
            made |= zip(whole, authors_vectors(self.model, self.tokenizer, list(whole.values())), strict=True)
        finite = {key for key, one in made.items() if one is not None and one.isfinite().all() and one.any()}
        return [made[key] if key in finite else None for key in (tuple(answer.ids) for answer in answers)]


def gram(vectors: Sequence[Tensor | None]) -> Tensor:
    """(K, K) products of the vectors in fp64; 0 wherever a vector is None."""
    zero = torch.zeros_like(next((vector for vector in vectors if vector is not None), torch.zeros(1)))
    rows = torch.stack([zero if vector is None else vector for vector in vectors]).double()
    return rows @ rows.T


def authors_vectors(model, tokenizer, texts: Sequence[str]) -> list[Tensor | None]:
    """Vectors as the published code makes them: layers -4, -3, -2, all tokens, weighted by `token_weight`.

    Where all weights are 0 that code has a zero vector; here it is None. The arithmetic is the backbone's, not fp16.
    """
    encoded = [ids[:AUTHORS_WINDOW] for ids in text_ids(texts, tokenizer)] if texts else []
    weights = [[token_weight(tokenizer.decode([token])) for token in ids] for ids in encoded]
    counted = [i for i, own in enumerate(weights) if sum(own) > 0]
    result: list[Tensor | None] = [None] * len(texts)
    if counted:
        device = next(model.parameters()).device
        ids = torch.tensor(pad_right([encoded[i] for i in counted], 0), device=device)
        own = torch.tensor(pad_right([weights[i] for i in counted], 0.0), device=device)
        for i, vector in zip(counted, pooled(model, ids, own, AUTHORS_LAYERS).cpu(), strict=True):
            result[i] = vector
    return result


def token_weight(text: str) -> float:
    """What a token counts in the published code: 0 for punctuation and blanks alone, 1.3 with a number in it, else
    1."""
    text = text.strip()
    if not text or PUNCTUATION.fullmatch(text):
        return 0.0
    return 1.3 if NUMBERS.search(text) else 1.0
