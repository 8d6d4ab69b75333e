"""The refusal of a training that memory cannot hold, with the settings that would fit; see `winnow.backbone.memory`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from winnow.backbone.memory import QUANTIZED, SMALLER, Shapes, billion, gb, place, room, tuning_bytes
from winnow.errors import UserError
from winnow.trainer import processes_of

if TYPE_CHECKING:
    from winnow.tuning.tuner import Tuner


def check_tuning(
    name: str, size: Shapes, tuner: Tuner, dtype: str, trainer: Mapping[str, Any], tokens: int = 0
) -> None:
    """Raises UserError if tuning the backbone `name` cannot fit, and names the settings that would. dtype: of the
    backbone. tokens: of the largest micro-batch, 0 where the records are not known yet. Likewise if
    quantised weights are to be trained."""
    strategy = str(trainer.get("strategy", "auto"))
    by_lora = "tuning=lora" if tuner.setting == "tuning" else f"{tuner.setting}.mode=lora"
    if tuner.mode == "full" and dtype in QUANTIZED:
        raise UserError(
            f"{tuner.setting}.mode=full cannot train the weights of backbone.dtype={dtype}, which are whole numbers: "
            f"give {by_lora}, or backbone.dtype=bf16."
        )
    space, arithmetic = room(trainer), dtype if tuner.dtype == "auto" else tuner.dtype
    lora: Mapping[str, Any] = tuner.lora if tuner.mode == "lora" else {"r": 16, "target_modules": "all-linear"}
    adapters = sum(lora["r"] * one for one in _adapted(size, lora["target_modules"]))
    one = max(tokens // tuner.at_once(processes_of(trainer)), 1)
    now: dict[str, Any] = {
        "dtype": dtype,
        "arithmetic": arithmetic,
        "trained": adapters if tuner.mode == "lora" else None,
        "tokens": max(tokens, 1),
        "checkpointing": tuner.gradient_checkpointing,
        "processes": {"auto": 1, "fsdp": processes_of(trainer)}.get(strategy, 2),
        "sharded": strategy == "fsdp",
    }
    needed = tuning_bytes(size, **now)
    if needed <= space.total:
        return
    changes: dict[str, dict[str, Any]] = {
        f"{tuner.setting}.gradient_checkpointing=true": {"checkpointing": True},
        f"{tuner.setting}.micro_batch_size=1": {"tokens": one},
        "backbone.dtype=bf16": {"dtype": "bf16", "arithmetic": "bf16" if tuner.dtype == "auto" else arithmetic},
        by_lora: {"trained": adapters},
    }
    alone = list(changes)
    quantized = "backbone.dtype=nf4" if tuner.mode == "lora" else f"{by_lora} backbone.dtype=nf4"
    if space.device == "cuda" and dtype not in QUANTIZED:  # more processes on a CPU have no more memory
        states = tuning_bytes(size, **now | {"tokens": 0, "processes": 1, "sharded": True})
        count = 2 ** math.ceil(math.log2(max(states * 2 / space.total, 2)))  # half of a GPU is left for activations
        changes[f"trainer=fsdp on {count} GPUs"] = {"processes": count, "sharded": True}

    def fitting(*several: str) -> list[str]:
        need = tuning_bytes(size, **now | {key: value for way in several for key, value in changes[way].items()})
        return [f"{' '.join(several)} ({gb(need)})"] if need < needed and need <= space.total else []

    several = list(changes)
    changes[quantized] = changes["backbone.dtype=bf16"] | {"dtype": "nf4", "trained": adapters}
    ways = [way for one_change in alone for way in fitting(one_change)] or fitting(quantized)
    ways += [way for one_change in several[len(alone) :] for way in fitting(one_change)]
    for count in range(2, len(several) + 1):
        ways = ways or fitting(*several[:count])
    ways = ways or fitting(*several[:2], quantized)
    states = tuning_bytes(size, **{**now, "tokens": 0})
    raise UserError(
        f"{tuner.setting}.mode={tuner.mode} of backbone.name={name} needs at least {gb(needed)}, {gb(states)} of it "
        f"for {billion(size.weights)} weights and what trains them, but {place(space)}: "
        f"{'give ' + ', or '.join(ways) if ways else SMALLER}."
    )


def _adapted(size: Shapes, targets: str | Sequence[str]) -> list[int]:
    """Inputs + outputs of the adapted layers; of all, where an expression says which."""
    names = [] if isinstance(targets, str) else targets
    return [one for name, one in size.linear.items() if not names or name.rpartition(".")[2] in names]
