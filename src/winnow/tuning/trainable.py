"""What is trained: adapters beside a shared backbone, or a copy. The backbone itself is never altered."""

from __future__ import annotations

import copy

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn

from winnow.errors import UserError


def shared_copy(model: nn.Module) -> nn.Module:
    """A second set of modules over the same weights: own layers, hooks and flags, no second copy in memory.

    Adapters can be put into the result, and its parameters frozen, without the original noticing. Weights
    must not be changed in place: they are shared. (Moving the result to another device copies them.)
    """
    memo: dict[int, object] = {id(p): nn.Parameter(p.detach(), requires_grad=False) for p in model.parameters()}
    memo |= {id(b): b.detach() for b in model.buffers()}
    return copy.deepcopy(model, memo)


def with_adapters(
    model: nn.Module, r: int, alpha: float, dropout: float, target_modules: str | list[str], seed: int
) -> PeftModel:
    """A shared copy of the model with fresh LoRA adapters: W x + alpha / r * B A dropout(x), B = 0 at first.

    Adapters are fp32 whatever the dtype of the backbone. A depends on `seed` alone.
    Raises UserError if the model has none of the target modules.
    """
    torch.manual_seed(seed)
    targets = target_modules if isinstance(target_modules, str) else list(target_modules)
    config = LoraConfig(
        r=r,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=targets,
        bias="none",
        task_type="CAUSAL_LM",
    )
    try:
        return get_peft_model(shared_copy(model), config)
    except ValueError as error:
        raise UserError(f"tuning.lora_target_modules={targets} does not fit this backbone: {error}") from error


def full_copy(model: nn.Module) -> nn.Module:
    """A copy of the whole model with fp32 weights, all trained: bf16 is too coarse for small updates."""
    copied = copy.deepcopy(model).float()
    return copied.requires_grad_(True)


def check_finite(model: nn.Module, learning_rate: float) -> None:
    """The last step's update is seen by no loss: look at the weights before they are saved."""
    if not all(bool(torch.isfinite(p).all()) for p in model.parameters() if p.requires_grad):
        raise UserError(
            f"The tuned weights are not finite after the last step: lower tuning.learning_rate "
            f"(now {learning_rate:g}), set tuning.gradient_clip=1, or use tuning.dtype=fp32."
        )
