"""MiniLM's vectors of texts: the offline sentence encoder, and the measure of similarity for every attack."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch

from winnow.backbone.loading import Backbone
from winnow.backbone.sentence_encoder import SentenceEncoder, text_vectors

WINDOW = 256  # tokens that the encoder was made for; what stands after them is not seen


@cache
def encoder() -> Backbone:
    """The packaged encoder, loaded once per process."""
    return SentenceEncoder().load()


def sentence_vectors(texts: Sequence[str]) -> torch.Tensor:
    """(texts, 384) fp32 vectors of length 1: the mean over a text's tokens of the last hidden states, normalised."""
    return torch.nn.functional.normalize(text_vectors(encoder(), texts, WINDOW), dim=1)
