"""MiniLM's vectors of texts: the offline sentence encoder, and the measure of similarity for every attack."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch

from winnow.backbone.loading import Backbone
from winnow.backbone.sentence_encoder import SentenceEncoder

WINDOW = 256  # tokens that the encoder was made for; what stands after them is not seen
_BATCH = 64


@cache
def encoder() -> Backbone:
    """The packaged encoder, loaded once per process."""
    return SentenceEncoder().load()


@torch.inference_mode()
def sentence_vectors(texts: Sequence[str]) -> torch.Tensor:
    """(texts, 384) fp32 vectors of length 1: the mean over a text's tokens of the last hidden states, normalised."""
    backbone, vectors = encoder(), []
    for start in range(0, len(texts), _BATCH):
        inputs = backbone.tokenizer(
            list(texts[start : start + _BATCH]), padding=True, truncation=True, max_length=WINDOW, return_tensors="pt"
        )
        hidden = backbone.model(**inputs).last_hidden_state
        mask = inputs["attention_mask"][..., None].to(hidden.dtype)
        vectors.append(torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=1))
    return torch.cat(vectors).clone()
