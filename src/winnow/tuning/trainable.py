"""Adapters beside a shared backbone, which they never alter, and what is checked of trained weights."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Sequence
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers.pytorch_utils import Conv1D

from winnow.backbone import quantized
from winnow.backbone.causal_model import body_of
from winnow.errors import UserError
from winnow.sharding import local


def shared_copy(model: nn.Module) -> nn.Module:
    """A second set of modules over the same weights: own layers, hooks and flags, no second copy in memory.

    Adapters can be put into the result, and its parameters frozen, without the original noticing. Weights
    must not be changed in place: they are shared. (Moving the result to another device copies them.)
    """
    memo: dict[int, object] = {id(p): nn.Parameter(p.detach(), requires_grad=False) for p in model.parameters()}
    memo |= {id(b): b.detach() for b in model.buffers()}
    for layer in quantized.layers(model):  # its weight is nothing without its scales, which lie beside it
        memo |= {id(one): one for one in (layer.weight, vars(layer).get("quant_state"))}
    return copy.deepcopy(model, memo)


ADAPTED = (nn.Linear, nn.Embedding, nn.Conv1d, Conv1D)  # kinds of modules that peft puts adapters on
# Architecture -> layers whose weights its kernels read past an adapter, which would never be trained.
FUSED = dict.fromkeys(("mamba", "falcon_mamba"), ("out_proj", "conv1d", "x_proj", "dt_proj")) | dict.fromkeys(
    ("mamba2", "falcon_h1", "nemotron_h", "granitemoehybrid", "bamba", "zamba2"), ("out_proj", "conv1d")
)
# Keys of a mixture of experts that draws among them by token while it is trained.
DRAWN = ("router_jitter_noise", "input_jitter_noise", "moe_jitter_eps")


def with_adapters(
    model: nn.Module, r: int, alpha: float, dropout: float, target_modules: str | list[str], seed: int
) -> PeftModel:
    """A shared copy of the model with fresh LoRA adapters: W x + alpha / r * B A dropout(x), B = 0 at first.

    Adapters are fp32 whatever the dtype of the backbone, and sit on nothing that text does not pass (see `_aside`). A
    depends on `seed` alone.
    Raises UserError if the model has none of the target modules.
    """
    torch.manual_seed(seed)
    check_targets(model, target_modules)
    left_out = _aside(model) + (_barred(model) if target_modules == "all-linear" else [])
    config = LoraConfig(
        r=r,
        lora_alpha=alpha,  # type: ignore[arg-type]  # peft declares int, and divides it by r
        lora_dropout=dropout,
        target_modules=target_modules,
        exclude_modules=left_out or None,
        bias="none",
        task_type="CAUSAL_LM",
    )
    try:
        return get_peft_model(shared_copy(model), config)
    except ValueError as error:
        raise UserError(
            f"lora_target_modules={target_modules} does not fit this backbone: {' '.join(str(error).split())}"
        ) from error


def target_names(given: str | Sequence[str] | None, setting: str = "tuning") -> str | list[str]:
    """`all-linear`, a regular expression, or a list of module names, sorted; a text of plain names is a list of them.

    setting: see `check_targets`. Raises UserError for nothing at all and for a text that is no expression.
    """
    if not given:
        raise UserError(
            f"{setting}.lora_target_modules={given} names no module; give all-linear or a list such as [q_proj,v_proj]."
        )
    if not isinstance(given, str):
        return sorted(given)
    if given == "all-linear" or not re.fullmatch(r"\w+(\s*,\s*\w+)*", given):
        try:
            re.compile(given)
        except re.error as error:
            raise UserError(
                f"{setting}.lora_target_modules={given} is no regular expression ({error}); give all-linear or a list "
                f"such as [q_proj,v_proj]."
            ) from None
        return given
    return sorted(name.strip() for name in given.split(","))


def _barred(model: Any) -> list[str]:
    """Names of modules that get no adapter in this architecture."""
    return list(FUSED.get(model.config.model_type, ()))


def _aside(model: Any) -> list[str]:
    """Whole names of the layers beside the body in what holds both, such as a tower for images. No text passes them, so
    an adapter there would have no gradient."""
    body = body_of(model)
    place = next(name for name, module in model.named_modules() if module is body)
    around = place.rpartition(".")[0]
    layers = [name for name, module in model.named_modules() if isinstance(module, ADAPTED)]
    beside = [name for name in layers if around and name.startswith(f"{around}.")]
    return [name for name in beside if not name.startswith(f"{place}.")]


def check_trainable(model: Any, name: str, checkpointing: bool) -> None:
    """Raises UserError if the backbone `name` draws its experts in training, or if `checkpointing` is wanted and it has
    none. The model may lie on the meta device."""
    config = model.config.get_text_config().to_dict()
    config |= config.get("ffn_config") or {}  # DBRX
    for key in (key for key in DRAWN if config.get(key)):
        raise UserError(
            f"backbone.name={name} has {key}={config[key]}: in training it draws its experts by micro-batch, so "
            f"tuning.micro_batch_size would change the model; name another backbone, or a copy with 0 in config.json."
        )
    if checkpointing and not model.supports_gradient_checkpointing:
        raise UserError(
            f"tuning.gradient_checkpointing=true: the architecture of backbone.name={name} "
            f"({model.config.model_type}) has none; set tuning.gradient_checkpointing=false."
        )


def check_targets(model: Any, targets: str | Sequence[str], setting: str = "tuning") -> None:
    """Raises UserError unless each target names modules that LoRA adapts, and no others. The model may lie on the meta
    device. setting: the group whose `lora_target_modules` they are."""
    if targets == "all-linear":
        return
    aside, barred = _aside(model), _barred(model)
    modules = {name: module for name, module in model.named_modules() if name not in aside}

    def adapts(target: str, pattern: str) -> bool:
        own = {name: module for name, module in modules.items() if re.fullmatch(pattern, name)}
        past = any(name.rpartition(".")[2] in barred for name in own)
        return bool(own) and not past and all(isinstance(module, ADAPTED) for module in own.values())

    if isinstance(targets, str):
        absent = [] if adapts(targets, targets) else [targets]
    else:
        absent = [t for t in targets if not adapts(t, rf"(.*\.)?{re.escape(t)}")]
    if absent:
        linear = {name.rpartition(".")[2] for name, m in modules.items() if isinstance(m, nn.Linear | Conv1D)}
        raise UserError(
            f"{setting}.lora_target_modules: the backbone has no module {', '.join(absent)} that LoRA adapts; its "
            f"linear layers are [{','.join(sorted(linear - {'lm_head', *barred}))}]."
        )


def check_finite(model: nn.Module, learning_rate: float, everywhere: Callable[[bool], bool]) -> None:
    """The last step's update is seen by no loss: look at the weights before they are saved. everywhere: whether it is
    true in all processes, each of which may have a part of the weights."""
    if not everywhere(all(bool(torch.isfinite(local(p)).all()) for p in model.parameters() if p.requires_grad)):
        raise UserError(
            f"The tuned weights are not finite after the last step: lower tuning.learning_rate "
            f"(now {learning_rate:g}), set tuning.gradient_clip=1, or use backbone.dtype=fp32 tuning.dtype=fp32."
        )
