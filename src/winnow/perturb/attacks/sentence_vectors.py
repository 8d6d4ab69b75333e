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


def remembered_vectors(texts: Sequence[str]) -> torch.Tensor:
    """`sentence_vectors`, each text's made once: the limit on candidates and the measure ask for the same texts."""
    new = [text for text in dict.fromkeys(texts) if text not in _made]
    if new:
        _made.update(zip(new, sentence_vectors(new), strict=True))
    return torch.stack([_made[text] for text in texts])


def forget_vectors() -> None:
    """Forget the texts of the last records, so that no number depends on which records a process made before."""
    _made.clear()


_made: dict[str, torch.Tensor] = {}
