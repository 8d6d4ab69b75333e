"""Loading a backbone: from the packaged GGUF, a local folder, or the Hugging Face hub."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from winnow.backbone import packaged, quantized
from winnow.backbone.causal_model import CausalModel, check_finite, positions
from winnow.data.tokens import written_ids
from winnow.errors import UserError, check_choice, login, out_of_memory
from winnow.store.describe import Free, Identified
from winnow.store.files import read_json

# Of the arithmetic and of all weights but quantised ones.
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16} | dict.fromkeys(quantized.QUANTIZED, torch.bfloat16)
NO_SAFETENSORS = (
    "has no weights as *.safetensors; a pytorch_model.bin can run code when it is opened: if you trust it, convert it "
    "by `{}.from_pretrained(NAME).save_pretrained(FOLDER, safe_serialization=True)` and name that folder."
)
# Of configurations that have them. rescale_every: in evaluation RWKV would divide weights in place, which a tuned model
# shares. use_mamba_kernels: Jamba and Zamba would refuse to run without their kernels and a GPU.
FIXED = {"rescale_every": 0, "use_mamba_kernels": False}
REASON = 1000  # characters of a library's own message; some list every model there is


class OptimizerState(NamedTuple):
    """Adam at the end of an epoch. rate: mean learning rate of its steps. first, second: by the name of a trained
    weight, the moving means of its gradient and of the gradient's square."""

    rate: float
    first: dict[str, Tensor]
    second: dict[str, Tensor]


@dataclass
class Backbone:
    """A loaded causal language model in evaluation mode, its fast tokenizer, and what identifies them.

    identity goes into the fingerprint of everything that is computed with the backbone. optimizer: of a model in the
    midst of its tuning.
    """

    model: Any
    tokenizer: Any
    identity: dict
    name: str
    optimizer: OptimizerState | None = None


@dataclass
class BackboneSource(Identified):
    """Where a backbone comes from and how it is to be loaded. Nothing is loaded before it is asked for.

    name: `packaged:...`, a local folder, or a hub name. revision: branch, tag or commit on the hub.
    dtype: `fp32`, `bf16`, or `int8` or `nf4` for linear layers in 8 or 4 bits; see `winnow.backbone.quantized`.
    cache: folder for the unpacked packaged backbone.
    Raises UserError, in one sentence, for whatever cannot be had.
    """

    name: str
    revision: str | None
    dtype: str
    attn_implementation: str
    trust_remote_code: bool
    cache: Free[str]

    def __post_init__(self) -> None:
        check_choice("backbone.dtype", self.dtype, DTYPES)
        if self.is_quantized:
            quantized.check_installed(self.dtype)
        if self.dtype == "fp32" and self.lacks_fp32:
            raise UserError(
                f"backbone.attn_implementation={self.attn_implementation} has no fp32, in which backbone.dtype=fp32 "
                f"computes: give backbone.dtype=bf16, or backbone.attn_implementation=sdpa."
            )

    @property
    def lacks_fp32(self) -> bool:
        """Whether its attention computes in 16 bits alone."""
        return self.attn_implementation.startswith("flash_attention")

    @property
    def is_quantized(self) -> bool:
        return self.dtype in quantized.QUANTIZED

    @property
    def is_packaged(self) -> bool:
        return self.name.startswith("packaged:")

    @cached_property
    def folder(self) -> str:
        """What to hand to `from_pretrained`: a local folder, or the hub name."""
        if self.is_packaged:
            return str(packaged.unpack(self.name, self.cache))
        local = Path(self.name).expanduser()
        if not local.is_dir():
            if self.name.startswith(("/", "~", ".")):
                raise UserError(f"backbone.name={self.name} is no folder on this machine; check the path.")
            return self.name
        if (local / "adapter_config.json").is_file():
            key, cure = "base_model_name_or_path", "it is an adapter's: set backbone.name to the adapter's base"
            raise self._adapter(read_json(local / "adapter_config.json", key, cure=cure)[key] or "its base", self.name)
        if not any(local.glob("*.safetensors")):
            raise UserError(f"backbone.name={self.name} {NO_SAFETENSORS.format('AutoModelForCausalLM')}")
        for path in local.glob("*.safetensors"):
            with path.open("rb") as file:
                if file.read(24).startswith(b"version https://git-lfs"):
                    raise UserError(
                        f"{path} is a pointer of Git LFS, not the weights: get the file with `git lfs pull`."
                    )
        return str(local)

    @cached_property
    def attention(self) -> str:
        """`attn_implementation`, or `eager` for a model without SDPA or with caps that it would leave out (Gemma-2)."""
        if self.attn_implementation != "sdpa" or self.is_packaged:
            return self.attn_implementation
        if getattr(self._config.get_text_config(), "attn_logit_softcapping", None):
            print(f"backbone.name={self.name} caps its attention: attn_implementation=eager is used.", flush=True)
            return "eager"
        try:
            self._on_meta("sdpa")
        except UserError as error:
            if "scaled_dot_product_attention" not in str(error.__cause__):
                raise
            print(f"backbone.name={self.name} has no SDPA attention: attn_implementation=eager is used.", flush=True)
            return "eager"
        return "sdpa"

    @cached_property
    def skeleton(self) -> Any:
        """The model's modules on the meta device: shapes without weights."""
        return self._on_meta("eager")

    def _on_meta(self, attention: str) -> Any:
        from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoModelForCausalLM

        config: Any = self._config
        # As `from_pretrained` does, and `from_config` does not: Llama-4's text model alone.
        kind = getattr(MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None), "config_class", None)
        if kind is not None and kind is config.sub_configs.get("text_config"):
            config = config.get_text_config()
        try:
            with torch.device("meta"):
                return AutoModelForCausalLM.from_config(
                    config, attn_implementation=attention, trust_remote_code=self.trust_remote_code
                )
        except (ValueError, ImportError) as error:
            raise refusal(AutoModelForCausalLM, self.folder, f"backbone.name={self.name}", "", error) from error

    def check_markers(self) -> None:
        """Raises UserError if the tokenizer's chat template writes tokens that have no embedding."""
        rows = self._config.get_text_config().vocab_size
        beyond = sorted({token for token in written_ids(self.tokenizer) if token >= rows})
        if beyond:
            raise UserError(
                f"backbone.name={self.name} has {rows} embeddings, but its chat template writes "
                f"{', '.join(self.tokenizer.convert_ids_to_tokens(beyond))}, whose numbers are higher: take "
                f"template=alpaca, or resize the model's embeddings."
            )

    def check_window(self, tokens: int, settings: str) -> None:
        """Raises UserError if the model has fewer positions than `tokens`, which `settings` asks for."""
        limit = positions(self._config)
        if limit is not None and tokens > limit:
            raise UserError(
                f"{settings} asks for {tokens} tokens, but backbone.name={self.name} is made for {limit}: lower "
                f"it by {tokens - limit} or more in all."
            )

    @cached_property
    def identity(self) -> dict:
        """Name, content or commit, dtype, attention and tokenizer; costs no loading of weights."""
        origin: dict[str, Any] = {"name": self.name, "dtype": self.dtype, "attention": self.attention}
        if self.is_packaged:
            origin |= packaged.packaged_identity(self.name)
        elif Path(self.folder).is_dir():
            # A folder can be moved or renamed: its content is what it is.
            origin |= {"name": "local folder", "content": folder_hash(self.folder)}
        else:
            origin |= {"revision": self._config._commit_hash or self.revision}
        tokenizer = self.tokenizer
        described = tokenizer.backend_tokenizer.to_str() + str(tokenizer.chat_template)
        origin["tokenizer"] = hashlib.sha256(described.encode()).hexdigest()[:16]
        return origin

    @cached_property
    def tokenizer(self):
        from transformers import AutoTokenizer

        folder = Path(self.folder)
        if folder.is_dir() and not any(p.name.startswith(("tokenizer", "vocab")) for p in folder.iterdir()):
            raise UserError(
                f"backbone.name={self.name} holds no tokenizer: save the model's own beside it with "
                f"`AutoTokenizer.from_pretrained(<its name>).save_pretrained(<this folder>)`."
            )
        tokenizer = self._pretrained(AutoTokenizer)
        if not tokenizer.is_fast:
            raise UserError(
                f"backbone.name={self.name} has no fast tokenizer, which is needed to know where instruction and "
                f"answer lie in the tokens: save one with `AutoTokenizer.from_pretrained(..., use_fast=True)`."
            )
        if tokenizer.eos_token_id is None:
            raise UserError(
                f"backbone.name={self.name} has a tokenizer without an end-of-sequence token, with which every answer "
                f"ends: set `eos_token` in its tokenizer_config.json."
            )
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        rows = self._config.get_text_config().vocab_size
        for kind in ("bos", "eos", "pad"):
            number = getattr(tokenizer, f"{kind}_token_id")
            if number is not None and number >= rows:
                raise UserError(
                    f"backbone.name={self.name} has {rows} embeddings, but its tokenizer's {kind}_token "
                    f"{getattr(tokenizer, f'{kind}_token')!r} is token {number}: name another {kind}_token in its "
                    f"tokenizer_config.json, or resize the model's embeddings."
                )
        return tokenizer

    def load(self) -> Backbone:
        """Load the weights (safetensors only) and find out how the model is to be read; see `CausalModel`."""
        from transformers import AutoModelForCausalLM

        from winnow.backbone.memory import on_device, own_gpu

        options = fixed(self._config) | quantized.check_stored(self.name, self._config, self.dtype)
        options |= quantized.options(self.dtype, own_gpu()) if self.is_quantized else {}
        model = self._pretrained(
            AutoModelForCausalLM,
            dtype=DTYPES[self.dtype],
            attn_implementation=self.attention,
            use_safetensors=True,
            **options,
        ).eval()
        if getattr(model, "_hf_peft_config_loaded", False):  # transformers loads its base, and the adapter into it
            raise self._adapter()
        model.requires_grad_(False)
        check_finite(model, self.name)
        if self.is_quantized:
            quantized.settle(model)
        elif self.attention not in ("sdpa", "eager"):  # its kernel may be for GPUs alone
            model = on_device(model, {})
        try:
            CausalModel(model, self.name)
        except RuntimeError as error:
            if not self.is_quantized or out_of_memory(error):
                raise
            raise UserError(
                f"backbone.dtype={self.dtype} cannot be computed on this device "
                f"({' '.join(str(error).split())[:REASON]}): give backbone.dtype=bf16."
            ) from error
        return Backbone(model, self.tokenizer, self.identity, self.name)

    @cached_property
    def _config(self):
        from transformers import AutoConfig
        from transformers.utils import find_adapter_config_file

        try:
            return self._pretrained(AutoConfig, **FIXED)
        except UserError as error:
            lacks = "does not appear to have a file named config.json" in str(error)
            if lacks and find_adapter_config_file(self.folder, revision=self.revision):
                raise self._adapter() from error
            raise

    def _adapter(self, base: str = "its base", folder: str = "FOLDER") -> UserError:
        return UserError(
            f"backbone.name={self.name} is an adapter, not a model: set backbone.name to {base}, and go on from the "
            f"adapter in a local folder with start=model start.path={folder}, or merge the two into a model first."
        )

    def _pretrained(self, auto_class, **options):
        options |= {"revision": self.revision, "trust_remote_code": self.trust_remote_code}
        about = f"backbone.name={self.name}", "backbone=smollm2_135m"
        return pretrained(auto_class, self.folder, *about, **options)


def fixed(config: Any) -> dict[str, Any]:
    """Arguments of `from_pretrained`: those of FIXED that the configuration has."""
    return {name: value for name, value in FIXED.items() if hasattr(config, name)}


def pretrained(auto_class, folder: str, what: str, instead: str, **options) -> Any:
    """`auto_class.from_pretrained`. folder: a local one, or a hub name. what: stands first in the sentence. instead:
    what needs no hub. Raises UserError for whatever cannot be loaded, unless memory ended."""
    try:
        return auto_class.from_pretrained(folder, **options)
    except Exception as error:  # tokenizers and safetensors have kinds of their own, and remote code any
        if isinstance(error, UserError) or out_of_memory(error):
            raise
        raise refusal(auto_class, folder, what, instead, error) from error


def refusal(auto_class, folder: str, what: str, instead: str, error: Exception) -> UserError:
    """The cause first; a remedy only where the hub was asked."""
    if any(words in str(error) for words in ("use_safetensors=True", "no file named model.safetensors")):
        return UserError(f"{what} {NO_SAFETENSORS.format(auto_class.__name__)}")
    sentence = f"{what} could not be loaded by {auto_class.__name__}: {' '.join(str(error).split())[:REASON]}"
    if isinstance(error, OSError) and not Path(folder).is_dir():
        sentence += (
            f" (It is no local folder, so the hub was asked: {login(error)}check the name and the network; "
            f"{instead} needs no hub.)"
        )
    return UserError(sentence)


def folder_hash(folder: str) -> str:
    """Hash of the weights, configuration and code in a local model folder."""
    digest = hashlib.sha256()
    files = sorted(p for p in Path(folder).iterdir() if p.suffix in (".safetensors", ".json", ".py"))
    for path in files:
        digest.update(path.name.encode())
        with path.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:16]
