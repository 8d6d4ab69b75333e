"""Saving a tuned model in the Hugging Face format, and loading it back for evaluation."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

from peft import PeftModel
from transformers import PreTrainedModel

from winnow.backbone.loading import Backbone
from winnow.errors import UserError
from winnow.store.files import SEAL, damage, replacing
from winnow.tuning.trainable import shared_copy

BACKBONE_FILE = "backbone.json"  # in a saved model's folder: the identity of the backbone that it was tuned from


def save_tuned(model: PeftModel | PreTrainedModel, backbone: Backbone, folder: Path, facts: dict[str, Any]) -> Path:
    """Writes adapter or model (safetensors), tokenizer, the backbone's identity and model card to `folder`, all or
    nothing.

    facts: lines of the model card. An adapter names the backbone as `from_pretrained` takes it, with its revision on
    the hub, so that it is never put on another one.
    """
    base, revision = backbone.model.config._name_or_path or backbone.name, backbone.identity.get("revision")
    adapter = isinstance(model, PeftModel)
    with replacing(folder) as partial:
        if adapter:
            model.peft_config["default"].base_model_name_or_path = base
            model.peft_config["default"].revision = revision
            # "auto" would ask the hub whether the vocabulary has grown; adapters never touch it.
            model.save_pretrained(partial, safe_serialization=True, save_embedding_layers=False)
        else:
            model.save_pretrained(partial, safe_serialization=True)
        backbone.tokenizer.save_pretrained(partial)
        (partial / BACKBONE_FILE).write_text(json.dumps(backbone.identity, indent=1), encoding="utf-8")
        card = model_card(base, backbone.name, adapter, facts, revision)
        (partial / "README.md").write_text(card, encoding="utf-8")
    return folder


def model_card(base: str, name: str, adapter: bool, facts: dict[str, Any], revision: str | None = None) -> str:
    """A short README.md: what the model is, how it came about, how to load it."""
    pinned = f', revision="{revision}"' if revision else ""
    if adapter:
        library = "peft"
        load = (
            "from peft import PeftModel\nfrom transformers import AutoModelForCausalLM\n\n"
            f'model = AutoModelForCausalLM.from_pretrained("{base}"{pinned})\n'
            'model = PeftModel.from_pretrained(model, "path/to/this/folder")'
        )
    else:
        library = "transformers"
        load = (
            "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
            'model = AutoModelForCausalLM.from_pretrained("path/to/this/folder")\n'
            'tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")'
        )
    rows = "\n".join(f"- {key}: {value}" for key, value in facts.items())
    front = f'---\nbase_model: "{base}"\nlibrary_name: {library}\ntags: [winnow, instruction-tuning]\n---\n'
    title = f"# {name}, instruction-tuned {'adapter' if adapter else 'model'}"
    return f"{front}\n{title}\n\nTuned with Winnow.\n\n{rows}\n\n```python\n{load}\n```\n"


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a saved adapter or model. Raises UserError if there are none, or if the store has a
    checksum that says otherwise."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise UserError(f"{folder} holds no tuned model: expected *.safetensors as written by the tune stage.")
    artifact = folder.resolve().parent
    fault = damage(artifact) if (artifact / SEAL).exists() else None
    if fault:
        raise UserError(f"{fault}, so the model is not used; run the stage `tune` that made it again.")
    return files


def weights_digest(folder: Path) -> str:
    """A hash of the weights of a saved adapter or model: 16 hex digits; needs no model in memory."""
    digest = hashlib.sha256()
    for path in weight_files(folder):
        with path.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:16]


def tuned_identity(identity: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The backbone's identity and the hash of the tuned weights."""
    return {**identity, "tuned": weights_digest(folder)}


def load_tuned(backbone: Backbone, folder: str | Path) -> Backbone:
    """The tuned model as a backbone of its own, in evaluation mode, with the dtype and device of `backbone`.

    folder: what `save_tuned` wrote. Adapters sit on a copy of the layers that shares the weights of
    `backbone`, which stays as it is and can be evaluated beside it; a full model is loaded next to it.
    Raises UserError if there is no tuned model in the folder.
    """
    folder = Path(folder)
    weight_files(folder)
    reference = next(backbone.model.parameters())
    if (folder / "adapter_config.json").is_file():
        # Not merged: merging would write into the shared weights, and rounds in bf16.
        model = PeftModel.from_pretrained(shared_copy(backbone.model), str(folder)).get_base_model()
    else:
        attention = backbone.model.config._attn_implementation
        model = type(backbone.model).from_pretrained(
            folder, dtype=reference.dtype, attn_implementation=attention, local_files_only=True
        )
    model = model.to(reference.device).eval().requires_grad_(False)
    identity = tuned_identity(backbone.identity, folder)
    return dataclasses.replace(backbone, model=model, identity=identity, name=f"{backbone.name}+tuned")
