"""Distortion beta: how far the noised instructions of a data set are from the raw ones, as one number in [0, 1].

Part of the Noise Response Method (AAAI 2025, doi 10.1609/aaai.v39i22.34513): the more the words are distorted, the
smaller the random start of the perturbation, (1 - beta). Both ways are called as `distortion(raw, noisy)` with two
aligned lists of instructions; pairs are what `Noising.pairs` gives.

    rule-based    beta = mean over the set of (d_i - min d) / (max d - min d),   d_i = word Levenshtein distance
    LM-based      beta = mean over the set of 1 - cos(E(noisy_i), E(raw_i))
"""

from __future__ import annotations

import http.client
import json
import logging
import os
import urllib.request
from collections.abc import Sequence
from typing import Any

import torch
from rapidfuzz.distance import Levenshtein
from torch import Tensor

from winnow.backbone.sentence_encoder import SentenceEncoder, text_vectors
from winnow.errors import UserError
from winnow.store.describe import Free, Identified

log = logging.getLogger(__name__)

_OPENAI = "https://api.openai.com/v1/embeddings"
_OPENAI_TEXTS = 512  # texts a request; the service takes at most 2,048


class RuleDistortion:
    """The rule-based beta.

    Where all d_i are equal (min-max would divide 0 by 0; the rule for a data set with a single instruction, in which
    replacement touches the same number of words everywhere), beta is the mean of min(1, d_i / n_i), n_i words of the
    raw instruction, and a warning says so (ours).
    """

    def __call__(self, raw: Sequence[str], noisy: Sequence[str]) -> float:
        """beta of aligned raw and noised instructions. Raises ValueError for lists that are empty or not aligned."""
        _check(raw, noisy)
        words = [(one.split(), other.split()) for one, other in zip(raw, noisy, strict=True)]
        distances = [Levenshtein.distance(one, other) for one, other in words]
        low, high = min(distances), max(distances)
        if low < high:
            return sum(distance - low for distance in distances) / ((high - low) * len(distances))
        shares = [min(1.0, distance / max(1, len(one))) for distance, (one, _) in zip(distances, words, strict=True)]
        beta = sum(shares) / len(shares)
        log.warning(
            "All %d word distances are %d, so min-max normalisation says nothing: beta = %.4f is the mean of d / n.",
            len(distances),
            low,
            beta,
        )
        return beta


class EmbeddingDistortion(Identified):
    """The LM-based beta with a local sentence encoder: mean of its last hidden state over the text's tokens.

    name, revision: see `SentenceEncoder`. max_length: window in the encoder's tokens, longer texts are cut.
    batch_size: texts a forward pass.
    """

    def __init__(self, name: str, revision: str | None, max_length: int, batch_size: Free[int]) -> None:
        self.encoder = SentenceEncoder(name, revision)
        self.max_length, self.batch_size = max_length, batch_size

    @property
    def identity(self) -> dict[str, Any]:
        return {"encoder": self.encoder, "max_length": self.max_length}

    def __call__(self, raw: Sequence[str], noisy: Sequence[str]) -> float:
        """beta of aligned raw and noised instructions. Raises ValueError for lists that are empty or not aligned."""
        _check(raw, noisy)
        encoder = self.encoder.load()
        return _mean_distance(raw, noisy, lambda texts: text_vectors(encoder, texts, self.max_length, self.batch_size))


class OpenAIDistortion:
    """The LM-based beta with OpenAI's embeddings: the instructions are sent to OpenAI.

    model: name of an embedding model. timeout: seconds for one request. The key is read from the environment variable
    OPENAI_API_KEY when beta is asked for, and is kept nowhere.
    """

    def __init__(self, model: str, timeout: Free[float]) -> None:
        self.model, self.timeout = model, timeout

    def __call__(self, raw: Sequence[str], noisy: Sequence[str]) -> float:
        """beta of aligned raw and noised instructions. Raises ValueError for lists that are empty or not aligned,
        UserError without a key or when the service does not answer as expected."""
        _check(raw, noisy)
        return _mean_distance(raw, noisy, self._embed)

    def key(self) -> str:
        """The key. Raises UserError without one."""
        key = os.environ.get("OPENAI_API_KEY")
        if not key:
            raise UserError(
                "distortion=openai needs a key in the environment variable OPENAI_API_KEY: set it, or choose "
                "distortion=embedding, which runs locally."
            )
        return key

    def _embed(self, texts: Sequence[str]) -> Tensor:
        """(texts, width)."""
        key = self.key()
        found: list[list[float]] = []
        for start in range(0, len(texts), _OPENAI_TEXTS):
            content = {"model": self.model, "input": list(texts[start : start + _OPENAI_TEXTS])}
            request = urllib.request.Request(
                _OPENAI,
                data=json.dumps(content).encode(),
                headers={"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
            )
            try:
                with urllib.request.urlopen(request, timeout=self.timeout) as response:
                    rows = json.load(response)["data"]
                found += [row["embedding"] for row in sorted(rows, key=lambda row: row["index"])]
            except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError) as error:
                raise UserError(
                    f"distortion.model={self.model}: OpenAI gave no embeddings ({error}); check key, model, network, "
                    f"or choose distortion=embedding."
                ) from None
        return torch.tensor(found)


def _check(raw: Sequence[str], noisy: Sequence[str]) -> None:
    if not raw or len(raw) != len(noisy):
        raise ValueError(f"{len(raw)} raw and {len(noisy)} noised instructions; as many of each, and at least one")


def _mean_distance(raw: Sequence[str], noisy: Sequence[str], embed) -> float:
    """Mean of 1 - cos; a text that occurs often, as the instruction of a task does, is embedded once."""
    texts = sorted({*raw, *noisy})
    vectors = torch.nn.functional.normalize(embed(texts).double(), dim=1)
    place = {text: i for i, text in enumerate(texts)}
    cosines = (vectors[[place[text] for text in raw]] * vectors[[place[text] for text in noisy]]).sum(1)
    return float((1 - cosines).clamp(0, 1).mean())  # an angle beyond 90 degrees counts as the largest distortion (ours)
