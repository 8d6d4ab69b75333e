"""Saving a tuned model in the Hugging Face format, and loading it back for evaluation."""

from __future__ import annotations

import dataclasses
import gc
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from peft import PeftModel
from safetensors import SafetensorError
from torch import nn
from transformers import GenerationConfig, PreTrainedModel

import winnow
from winnow.backbone import quantized
from winnow.backbone.loading import Backbone, fixed
from winnow.backbone.shared import is_shared
from winnow.data.records import Record
from winnow.errors import UserError
from winnow.store.files import SEAL, damage, read_json, replacing, write_json
from winnow.tuning.trainable import shared_copy

if TYPE_CHECKING:
    from winnow.data.templates import Template

# Packaged backbones, which have no name elsewhere, and whose weights they hold.
HUB_NAMES = {"packaged:smollm2_135m": "HuggingFaceTB/SmolLM2-135M-Instruct"}
AGAIN = "tune again, or restore the file"
BACKBONE_FILE = "backbone.json"  # in a saved model's folder: the identity of the backbone that it was tuned from


class Prompt(NamedTuple):
    """How a tuned model is asked. text: holds {instruction}. special_tokens: whether the tokenizer adds its own."""

    text: str
    special_tokens: bool


def save_tuned(
    model: PeftModel | PreTrainedModel, backbone: Backbone, folder: Path, facts: dict[str, Any], prompt: Prompt
) -> Path:
    """Writes adapter or model (safetensors), tokenizer, the backbone's identity and model card to `folder`, all or
    nothing.

    facts: lines of the model card. prompt: what the model was tuned on. An adapter names the backbone by its name on
    the hub, with its revision; a backbone that has none by its absolute path, and only on this machine.
    """
    base = HUB_NAMES.get(backbone.name) or _resolved(backbone.model.config._name_or_path or backbone.name)
    revision = backbone.identity.get("revision")
    adapter = isinstance(model, PeftModel)
    with replacing(folder) as partial:
        if adapter:
            config: Any = model.peft_config
            config["default"].base_model_name_or_path, config["default"].revision = base, revision
            # "auto" would ask the hub whether the vocabulary has grown; adapters never touch it.
            model.save_pretrained(str(partial), save_embedding_layers=False)
        else:
            own = model.generation_config
            if own is not None:
                try:
                    own.validate(strict=True)
                except ValueError:  # values for sampling without do_sample: transformers reads, and does not write them
                    ids = {key: getattr(own, key) for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
                    model.generation_config = GenerationConfig(**ids)
            model.save_pretrained(str(partial))
        backbone.tokenizer.save_pretrained(partial)
        write_json(partial / BACKBONE_FILE, backbone.identity)
        dtype = quantized.dtype_name(backbone.model)
        card = model_card(base, backbone.name, adapter, facts, revision, prompt, dtype)
        (partial / "README.md").write_text(card, encoding="utf-8")
    return folder


def model_card(
    base: str, name: str, adapter: bool, facts: dict[str, Any], revision: str | None, prompt: Prompt, dtype: str
) -> str:
    """A short README.md: what the model is, how it came about, how to load it and generate with it.

    base: a name on the hub or a local folder, of which the card holds the last part only. dtype: of the backbone, named
    because transformers 4 would take fp32, and 5 what the file holds.
    """
    pinned = f', revision="{revision}"' if revision else ""
    public = None if Path(base).is_dir() else base
    origin = f"- base: {public or Path(base).name}"
    if name in HUB_NAMES:
        origin += f" ({name}: its weights as a package ships them, rounded; those of the hub differ a little)"
    elif public is None:
        origin += " (a local folder; give its place below)"
    settings = quantized.QUANTIZED.get(dtype)
    origin += f", in {dtype} by bitsandbytes {version('bitsandbytes')}" if settings else ""
    title = f"# {name if public else Path(base).name}, instruction-tuned {'adapter' if adapter else 'model'}"
    versions = {"winnow": winnow.__version__} | {one: version(one) for one in ("torch", "transformers", "peft")}
    rows = [origin, *(f"- {key}: {value}" for key, value in (facts | versions).items())]
    how = ", ".join(f"{key}={value!r}" for key, value in (settings or {}).items())
    typed = f', dtype="{"float32" if dtype == "fp32" else "bfloat16"}"'
    how = f"{typed}, quantization_config=BitsAndBytesConfig({how})" if settings else typed
    load = [
        *(["from peft import PeftModel"] if adapter else []),
        f"from transformers import AutoModelForCausalLM, AutoTokenizer{', BitsAndBytesConfig' if settings else ''}",
        "",
        'folder = "path/to/this/folder"',
        f'model = AutoModelForCausalLM.from_pretrained("{public or f"path/to/{Path(base).name}"}"{pinned}{how})'
        if adapter
        else f"model = AutoModelForCausalLM.from_pretrained(folder{typed})",
        *(["model = PeftModel.from_pretrained(model, folder)"] if adapter else []),
        "tokenizer = AutoTokenizer.from_pretrained(folder)",
        f"prompt = {prompt.text!r}",
        'text = prompt.replace("{instruction}", "Name three colours.")',
        f'ids = tokenizer(text, return_tensors="pt", add_special_tokens={prompt.special_tokens}).input_ids',
        "answer = model.generate(input_ids=ids, attention_mask=ids.new_ones(ids.shape), max_new_tokens=64)",
        "print(tokenizer.decode(answer[0, ids.shape[1] :], skip_special_tokens=True))",
    ]
    front = [
        "---",
        *([f'base_model: "{public}"'] if public else []),
        f"library_name: {'peft' if adapter else 'transformers'}",
        "tags: [winnow, instruction-tuning]",
        "---",
    ]
    parts = ["\n".join(lines) for lines in (front, [title], ["Tuned with Winnow."], rows, ["```python", *load, "```"])]
    return "\n\n".join(parts) + "\n"


def prompt_of(template: Template, tokenizer: Any) -> Prompt:
    """The prompt of a record without input and turns."""
    record = Record("", 0, "{instruction}", "", "", (), "", {})
    return Prompt(template.render(record, tokenizer), not template.is_chat and template.bos is not False)


def _resolved(base: str) -> str:
    return str(Path(base).expanduser().resolve()) if Path(base).expanduser().is_dir() else base


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


@contextmanager
def whole(folder: Path) -> Iterator[None]:
    """UserError in place of what libraries raise at a cut file, a missing one, or one of another shape."""
    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"The tuned model in {folder} cannot be loaded ({reason}): its files are cut, missing or of another "
            f"backbone; delete the folder and tune again."
        ) from error


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


def is_adapter(folder: Path) -> bool:
    """Whether a saved model is an adapter."""
    return (folder / "adapter_config.json").is_file()


def load_tuned(backbone: Backbone, folder: str | Path) -> Backbone:
    """The tuned model as a backbone of its own, in evaluation mode, with the dtype and device of `backbone`.

    folder: what `save_tuned` wrote. Adapters sit on a copy of the layers that shares the weights of
    `backbone`, which stays as it is and can be evaluated beside it; a full model takes its place on the device.
    Raises UserError if there is no tuned model in the folder.
    """
    folder = Path(folder)
    weight_files(folder)
    reference = next(backbone.model.parameters())
    if is_adapter(folder):
        read_json(folder / "adapter_config.json", "peft_type", "r", "target_modules", cure=AGAIN)
        with whole(folder):
            # Not merged: merging would write into the shared weights, and rounds in bf16.
            model = PeftModel.from_pretrained(shared_copy(backbone.model), str(folder)).get_base_model()
    else:
        if (dtype := quantized.dtype_name(backbone.model)) in quantized.QUANTIZED:
            raise UserError(
                f"{folder} holds a full model, whose weights backbone.dtype={dtype} does not quantise: name the folder "
                f"as backbone.name, or give backbone.dtype=bf16."
            )
        attention = backbone.model.config._attn_implementation
        with whole(folder):
            model = type(backbone.model).from_pretrained(
                folder,
                dtype=reference.dtype,
                attn_implementation=attention,
                local_files_only=True,
                **fixed(backbone.model.config),
            )
        if not is_shared(backbone.model):  # one that is too large for a device is shared later
            device = reference.device
            nn.Module.to(backbone.model, "cpu")  # the GPU need not hold both; who computes with it moves it back
            gc.collect()  # models of earlier work, which Lightning holds in cycles
            model = model.to(device)
    model = model.eval().requires_grad_(False)
    identity = tuned_identity(backbone.identity, folder)
    return dataclasses.replace(backbone, model=model, identity=identity, name=f"{backbone.name}+tuned")
