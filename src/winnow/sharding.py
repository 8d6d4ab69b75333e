"""Tuning with a sharded model (torch's FSDP2): of every weight, of its gradient and of AdamW's moments each process
keeps a part, and of the model's blocks the one at work is collected from all processes.

    a block     collected for its forward pass, and once more for its backward pass, which adds up its gradients over
                the processes and leaves to each its part
    the rest    embeddings, last norm and head: collected for the whole micro-batch, because an adversary reads
                embeddings by themselves, and a loss calls the head as often as it has answers

All processes must run the same passes in the same order: each pass waits for the parts of the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from winnow.distributed import PATIENCE, is_leader


class Sharded(ModelParallelStrategy):
    """One model over all processes. Its checkpoints hold whole tensors, as those of other strategies do: a run goes on
    with another number of processes, or under another strategy."""

    def __init__(self) -> None:
        super().__init__(tensor_parallel_size=1, save_distributed_checkpoint=False, timeout=PATIENCE)

    def setup_environment(self) -> None:
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    @property
    def lightning_restore_optimizer(self) -> bool:
        return True

    def lightning_module_state_dict(self) -> dict[str, Any]:
        return _whole(self._trained())

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        for name, weight in self._trained().items():
            weight.detach().copy_(_part(checkpoint["state_dict"][name], weight))

    def optimizer_state(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        state = optimizer.state_dict()
        return {**state, "state": {number: _whole(own) for number, own in state["state"].items()}}

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            weights = [weight for group in optimizer.param_groups for weight in group["params"]]
            moments = {
                number: {key: one if one.ndim == 0 else _part(one, weights[number]) for key, one in own.items()}
                for number, own in state["state"].items()
            }
            optimizer.load_state_dict({**state, "state": moments})

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        # Mapped, not read: of each tensor a process wants its part.
        return torch.load(checkpoint_path, map_location="cpu", mmap=True, weights_only=weights_only)

    def _trained(self) -> dict[str, Any]:
        assert self.model is not None
        return {name: weight for name, weight in self.model.named_parameters() if weight.requires_grad}


def shard(module: pl.LightningModule, blocks: Iterable[nn.Module], mesh: DeviceMesh, bf16: bool) -> None:
    """Shards `module`, which must be called for each micro-batch, and the blocks of its model over the processes of
    `mesh`. bf16: blocks are collected in bf16, and their gradients added up in fp32; what is trained stays fp32."""
    # Autocast does not cast a block's weights again then, and would keep the copies until the backward pass.
    half = MixedPrecisionPolicy(torch.bfloat16, torch.float32, cast_forward_inputs=False)
    for block in blocks:
        sharded: Any = fully_shard(block, mesh=mesh, mp_policy=half if bf16 else MixedPrecisionPolicy())
        sharded.set_reduce_scatter_unused_params(True)  # experts that no token of this process has met
    root: Any = fully_shard(module, mesh=mesh)
    # The backward passes of an adversary leave the rest collected; the module parts it after the tuner's own.
    root.set_reshard_after_backward(False, recurse=False)


def local(weight: Tensor) -> Tensor:
    """The part of a weight that this process has; all of it where nothing is sharded."""
    return weight.to_local() if isinstance(weight, DTensor) else weight


def gather(model: nn.Module, dtype: torch.dtype) -> None:
    """Makes the trained weights of a sharded model ordinary ones of this dtype: whole, on the CPU of the first process,
    and empty on the others. All processes call it; what else is sharded stays so."""
    whole: dict[Tensor, nn.Parameter] = {}  # tied weights stay one
    for module in model.modules():
        for name, weight in list(module.named_parameters(recurse=False)):
            if isinstance(weight, DTensor) and weight.requires_grad:
                if weight not in whole:
                    whole[weight] = nn.Parameter(_whole({name: weight}).get(name, torch.empty(0)).to(dtype))
                setattr(module, name, whole[weight])


def _whole(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors in whole, on the CPU of the first process; nothing on the others, which must call it too."""
    gathered = {}
    for name, tensor in tensors.items():
        whole = tensor.full_tensor().detach() if isinstance(tensor, DTensor) else tensor
        if is_leader():
            gathered[name] = whole.cpu()
    return gathered


def _part(whole: Tensor, weight: DTensor) -> DTensor:
    """What this process has of a tensor that is sharded as `weight` is."""
    return distribute_tensor(whole.to(weight.device), weight.device_mesh, weight.placements, src_data_rank=None)
