"""Weights of linear layers in 8 or 4 bits, through bitsandbytes. Embeddings, norms and head stay in bf16, as does the
arithmetic, so body and head of the model are read as ever.

    int8   w = s q / 127           s: the largest |w| of the row, q: a whole number. LLM.int8(), arXiv 2208.07339
    nf4    w = m code[q]           m: the largest |w| of 64 weights, itself in 8 bits for blocks of 256; code: 16
                                   quantiles of a normal distribution. QLoRA, arXiv 2305.14314

In a product int8 stands as its w in bf16, made for that product alone. LLM.int8() rounds the inputs too, but for the
columns in which a token of the batch has an entry of 6 or more; a record's numbers would then hang on its neighbours.
Products of nf4 are bitsandbytes' own: on a GPU it chooses a kernel by the number of tokens, so that a record's numbers
hang on its batch by rounding.

No quantised weight has a gradient; adapters beside it and inputs have theirs.
"""

from __future__ import annotations

import importlib.util
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from winnow.errors import UserError

QUANTIZED: dict[str, dict[str, Any]] = {  # backbone.dtype -> arguments of transformers' BitsAndBytesConfig
    "int8": {"load_in_8bit": True},
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


def count(weight: Tensor) -> int:
    """How many weights a tensor holds: two in a byte of nf4."""
    return weight.numel() * (2 if weight.dtype == torch.uint8 else 1)


def layers(model: nn.Module) -> list[Any]:
    """The quantised layers of a model."""
    return [one for one in model.modules() if any(w.dtype in _STORED for w in one.parameters(recurse=False))]


def check_installed(dtype: str) -> None:
    """Raises UserError if bitsandbytes is not there."""
    if importlib.util.find_spec("bitsandbytes") is None:
        raise UserError(
            f"backbone.dtype={dtype} needs bitsandbytes, which is not installed: run `pip install bitsandbytes`, or "
            f"give backbone.dtype=bf16."
        )


def check_stored(name: str, config: Any, dtype: str) -> dict[str, Any]:
    """Arguments of `from_pretrained` for the model `name` with this configuration. Weights that are stored in mxfp4
    (gpt-oss) become bf16. Raises UserError for weights that are quantised otherwise."""
    stored = getattr(config, "quantization_config", None)
    if not stored:
        return {}
    method = (stored if isinstance(stored, dict) else stored.to_dict()).get("quant_method")
    if method == "mxfp4" and dtype == "bf16":
        from transformers.utils.quantization_config import Mxfp4Config

        return {"quantization_config": Mxfp4Config(dequantize=True)}
    if method == "mxfp4":
        cure = "give backbone.dtype=bf16"
    else:
        cure = "name the model that they were made from, and give backbone.dtype=nf4 or int8"
    raise UserError(f"backbone.name={name} holds weights that {method} has quantised before: {cure}.")


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
            # A buffer moves with the layer. What the library holds beside the weight would stay where it is.
            layer.register_buffer("scale", layer.weight.SCB / 127, persistent=False)
            layer.weight.CB = layer.weight.SCB = None
            layer.forward = MethodType(_forward, layer)


def _forward(layer: Any, x: Tensor) -> Tensor:
    """Of an int8 layer."""
    out = _Product.apply(x, layer.weight, layer.scale)
    return out if layer.bias is None else out + layer.bias


class _Product(torch.autograd.Function):
    """x W^T, W = scale * q: (..., inputs) to (..., outputs). W is made for a product, and anew for the backward one."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, q: Tensor, scale: Tensor) -> Tensor:
        ctx.q, ctx.scale = q, scale
        return nn.functional.linear(x, _weight(q, scale, x.dtype))

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None, None]:
        return slope @ _weight(ctx.q, ctx.scale, slope.dtype), None, None


def _weight(q: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    return q.to(dtype).mul_(scale[:, None])
