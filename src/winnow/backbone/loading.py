"""Loading a backbone: from the packaged GGUF, a local folder, or the Hugging Face hub."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from winnow.backbone import packaged
from winnow.backbone.likelihood import decoder
from winnow.errors import UserError
from winnow.store.describe import Free, Identified

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass
class Backbone:
    """A loaded causal language model in evaluation mode, its fast tokenizer, and what identifies them.

    identity goes into the fingerprint of everything that is computed with the backbone.
    """

    model: Any
    tokenizer: Any
    identity: dict
    name: str


@dataclass
class BackboneSource(Identified):
    """Where a backbone comes from and how it is to be loaded. Nothing is loaded before it is asked for.

    name: `packaged:...`, a local folder, or a hub name. revision: branch, tag or commit on the hub.
    dtype: `fp32` or `bf16`. cache: folder for the unpacked packaged backbone.
    Raises UserError, in one sentence, for whatever cannot be had.
    """

    name: str
    revision: str | None = None
    dtype: str = "fp32"
    attn_implementation: str = "sdpa"
    trust_remote_code: bool = False
    cache: Free[str] = "~/.cache/winnow"

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise UserError(f"backbone.dtype={self.dtype} is unknown; choose one of {', '.join(DTYPES)}.")

    @property
    def is_packaged(self) -> bool:
        return self.name.startswith("packaged:")

    @cached_property
    def folder(self) -> str:
        """What to hand to `from_pretrained`: a local folder, or the hub name."""
        if self.is_packaged:
            return str(packaged.unpack(self.name, self.cache))
        local = Path(self.name).expanduser()
        return str(local) if local.is_dir() else self.name

    @cached_property
    def identity(self) -> dict:
        """Name, content or commit, dtype, attention and tokenizer; costs no loading of weights."""
        origin: dict[str, Any] = {"name": self.name, "dtype": self.dtype, "attention": self.attn_implementation}
        if self.is_packaged:
            origin |= packaged.packaged_identity(self.name)
        elif Path(self.folder).is_dir():
            # A folder can be moved or renamed: its content is what it is.
            origin |= {"name": "local folder", "content": folder_hash(self.folder)}
        else:
            origin |= {"revision": self._config()._commit_hash or self.revision}
        tokenizer = self.tokenizer
        described = tokenizer.backend_tokenizer.to_str() + str(tokenizer.chat_template)
        origin["tokenizer"] = hashlib.sha256(described.encode()).hexdigest()[:16]
        return origin

    @cached_property
    def tokenizer(self):
        from transformers import AutoTokenizer

        tokenizer = self._pretrained(AutoTokenizer)
        if not tokenizer.is_fast:
            raise UserError(
                f"backbone.name={self.name} has no fast tokenizer, which is needed to know where instruction and "
                f"answer lie in the tokens: save one with `AutoTokenizer.from_pretrained(..., use_fast=True)`."
            )
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        return tokenizer

    def load(self) -> Backbone:
        """Load the weights (safetensors only) and check that logits can be made from the hidden states alone."""
        from transformers import AutoModelForCausalLM

        model = self._pretrained(
            AutoModelForCausalLM,
            dtype=DTYPES[self.dtype],
            attn_implementation=self.attn_implementation,
            use_safetensors=True,
        ).eval()
        model.requires_grad_(False)
        _check_head(model, self.name)
        return Backbone(model, self.tokenizer, self.identity, self.name)

    def _config(self):
        from transformers import AutoConfig

        return self._pretrained(AutoConfig)

    def _pretrained(self, auto_class, **options):
        try:
            return auto_class.from_pretrained(
                self.folder, revision=self.revision, trust_remote_code=self.trust_remote_code, **options
            )
        except (OSError, ValueError, ImportError) as error:
            reason = " ".join(str(error).split())
            raise UserError(
                f"backbone.name={self.name} could not be loaded by {auto_class.__name__}: it is no local folder that "
                f"holds such a model, and the hub did not give it (no network, no access, or no such name); give the "
                f"path of a local folder, or backbone=smollm2_135m, which needs no hub. Reason given: {reason[:300]}"
            ) from error


def folder_hash(folder: str) -> str:
    """Hash of the weights and configuration in a local model folder."""
    digest = hashlib.sha256()
    files = sorted(p for p in Path(folder).iterdir() if p.suffix in (".safetensors", ".json"))
    for path in files:
        digest.update(path.name.encode())
        with path.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:16]


@torch.no_grad()
def _check_head(model, name: str) -> None:
    """Passes run the body and the head apart: refuse a model whose logits are more than head(body(x))."""
    head = model.get_output_embeddings()
    if head is None:
        raise UserError(f"backbone.name={name} has no language-model head, so answers cannot be scored with it.")
    device = next(model.parameters()).device
    ids = torch.arange(4, device=device)[None] % model.config.vocab_size
    apart = head(decoder(model)(input_ids=ids, use_cache=False)[0]).float()
    whole = model(input_ids=ids, use_cache=False).logits.float()
    if not torch.allclose(apart, whole, atol=1e-3 * float(whole.abs().max().clamp(min=1.0))):
        raise UserError(
            f"backbone.name={name} changes its logits after the head (capping or scaling, "
            f"{json.dumps(model.config.model_type)}), which the passes do not support."
        )
