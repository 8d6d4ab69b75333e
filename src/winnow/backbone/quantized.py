"""Weights of linear layers in 8 or 4 bits, through bitsandbytes. Embeddings, norms and head stay in bf16, as does the
arithmetic, so body and head of the model are read as ever.

    int8   w = s q / 127           s: the largest |w| of the row, q: a whole number. Inputs likewise for each token, but
                                   for columns in which an entry is 6 or more: these stay in bf16. LLM.int8(), arXiv
                                   2208.07339
    nf4    w = m code[q]           m: the largest |w| of 64 weights, itself in 8 bits for blocks of 256; code: 16
                                   quantiles of a normal distribution. QLoRA, arXiv 2305.14314

No weight that is a whole number has a gradient; adapters beside it do, and inputs (straight through the rounding).
"""

from __future__ import annotations

import importlib.util
from typing import Any

import torch
from torch import nn

from winnow.errors import UserError

QUANTIZED: dict[str, dict[str, Any]] = {  # backbone.dtype -> arguments of transformers' BitsAndBytesConfig
    "int8": {"load_in_8bit": True, "llm_int8_threshold": 6.0},  # [paper]
    "nf4": {  # [paper]
        "load_in_4bit": True,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": True,
        "bnb_4bit_compute_dtype": "bfloat16",
    },
}
_STORED = {torch.uint8: "nf4", torch.int8: "int8"}  # dtype of a quantised weight -> backbone.dtype


def dtype_name(model: nn.Module) -> str:
    """What `backbone.dtype` a loaded model has: by its quantised weights, otherwise by whether any is bf16."""
    kinds = {weight.dtype for weight in model.parameters()}
    quantized = [name for kind, name in _STORED.items() if kind in kinds]
    return quantized[0] if quantized else "bf16" if torch.bfloat16 in kinds else "fp32"


def count(weight: torch.Tensor) -> int:
    """How many weights a tensor holds: two in a byte of nf4."""
    return weight.numel() * (2 if weight.dtype == torch.uint8 else 1)


def layers(model: nn.Module) -> list[nn.Module]:
    """The quantised layers of a model."""
    return [one for one in model.modules() if any(w.dtype in _STORED for w in one.parameters(recurse=False))]


def check_installed(dtype: str) -> None:
    """Raises UserError if bitsandbytes is not there."""
    if importlib.util.find_spec("bitsandbytes") is None:
        raise UserError(
            f"backbone.dtype={dtype} needs bitsandbytes, which is not installed: run `pip install bitsandbytes`, or "
            f"give backbone.dtype=bf16."
        )


def options(dtype: str, gpu: int | None) -> dict[str, Any]:
    """Arguments of `from_pretrained`. gpu: number of the one on which the weights are quantised, None for the CPU."""
    from transformers import BitsAndBytesConfig

    place = "cpu" if gpu is None else gpu
    return {"quantization_config": BitsAndBytesConfig(**QUANTIZED[dtype]), "device_map": {"": place}}


def settle(model: nn.Module) -> None:
    """Makes a model that was just loaded movable and differentiable on every device."""
    from accelerate.hooks import remove_hook_from_submodules

    # They take inputs to the device on which the weights were quantised, and a copy's `to` to the original.
    remove_hook_from_submodules(model)
    for layer in layers(model):
        if dtype_name(layer) == "nf4":
            # Otherwise the first pass on a CPU with bf16 instructions turns the weights into a form whose product has
            # no gradient, and autograd goes on in silence.
            layer.support_avx512bf16_for_cpu = False
        else:
            layer.register_forward_pre_hook(_follow)


def _follow(layer: Any, _: Any) -> None:
    """Takes along the rows' scales, which bitsandbytes leaves behind when a module that holds the layer is moved."""
    state, weight = layer.state, layer.weight
    if state.CB is not None and state.CB.device != weight.device:
        state.CB, state.SCB = weight.data, state.SCB.to(weight.device)
