"""A model of which each process keeps a part (torch's FSDP2), for passes without gradients. `winnow.sharding` is the
same for tuning.

The parts of a block are collected from all processes when the block is called, so all of them must call it equally
often, and they have unequal work:

    before a forward pass   a process says to the others that it has one
    without work            it joins in with a pass over one token, until no process says so any more

Embeddings, last norm and head stay whole on each process.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from itertools import count
from typing import Any
from weakref import WeakKeyDictionary

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard, share_comm_ctx

from winnow.backbone.causal_model import CausalModel
from winnow.sharding import Sharded
from winnow.trainer import interruptible, make_trainer

RESET_EVERY = 1000  # forward passes, after which FSDP's notes for a backward pass are thrown away (ours)
# Of each shared model: whether the next forward pass of this process has been announced already.
_ANNOUNCED: WeakKeyDictionary[nn.Module, list[bool]] = WeakKeyDictionary()


def share_model(trainer: pl.Trainer, model: nn.Module) -> None:
    """Leaves to each process its part of `model`'s blocks, where the Trainer's strategy is `fsdp`; for a Lightning
    module's `configure_model`. What is shared already stays so."""
    if not isinstance(trainer.strategy, Sharded) or is_shared(model):
        return
    gc.collect()  # an earlier shared model, which FSDP's hooks hold in cycles
    causal, announced, passes = CausalModel(model), [False], count(1)
    _ = causal.padding  # tried now: a trial that fails amid the blocks would leave the other processes waiting
    mesh = trainer.strategy.device_mesh["data_parallel"]
    blocks = [fully_shard(block, mesh=mesh, reshard_after_forward=True) for block in causal.blocks]
    share_comm_ctx(blocks)  # otherwise each block collects on streams of its own, whose memory no other takes

    def announce(block: nn.Module, given: tuple) -> None:
        if announced[0]:
            announced[0] = False
        else:
            _busy(1, next(block.parameters()).device)
        if next(passes) % RESET_EVERY == 0:
            for own in blocks:
                own.reset_iter_state()

    causal.blocks[0].register_forward_pre_hook(announce, prepend=True)  # before the parts are collected
    _ANNOUNCED[model] = announced


def is_shared(model: nn.Module) -> bool:
    return model in _ANNOUNCED


@torch.no_grad()
def join_in(model: nn.Module) -> None:
    """For a process that has no more work for `model`: takes part in the others' forward passes, until all are done.
    Nothing where the model is not shared."""
    if not is_shared(model):
        return
    causal = CausalModel(model)
    while _busy(0, causal.device):
        _ANNOUNCED[model][0] = True  # by another process
        causal.hidden(input_ids=torch.zeros(1, 1, dtype=torch.long, device=causal.device))


def on_all_devices(settings: Mapping[str, Any], model: nn.Module, work: Callable[[], None]) -> None:
    """Call `work` in each process of these settings, which Lightning starts where nobody has; `model` is on the device
    of the process meanwhile, or the processes share it."""
    gc.collect()  # models of earlier work, which Lightning holds in cycles on the device
    options = {"enable_progress_bar": False, "logger": False, "inference_mode": False, "limit_predict_batches": 1}
    trainer = make_trainer(settings, **options)
    with interruptible(trainer):
        trainer.predict(_Work(model, work), [0], return_predictions=False)
    trainer.strategy.barrier()


class _Work(pl.LightningModule):
    def __init__(self, model: nn.Module, work: Callable[[], None]) -> None:
        super().__init__()
        self.model, self.work = model, work

    def cpu(self) -> _Work:
        """Itself: at the end Lightning would move the weights to the CPU, for nobody."""
        return self

    def configure_model(self) -> None:
        share_model(self.trainer, self.model)

    def predict_step(self, batch: int, batch_idx: int) -> int:
        self.work()
        return batch  # Lightning warns of steps that return nothing


def _busy(own: int, device: torch.device) -> Tensor:
    """How many processes have a forward pass to run; all of them ask together."""
    total = torch.tensor(own, device=device)
    dist.all_reduce(total)
    return total
