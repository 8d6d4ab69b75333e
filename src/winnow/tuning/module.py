"""The Lightning module that tunes a causal language model on instruction records."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from transformers import get_scheduler

from winnow.backbone.causal_model import CausalModel
from winnow.distributed import read_by_leader
from winnow.errors import UserError
from winnow.sharding import Sharded, local, shard
from winnow.tuning.adversary.base import Adversary
from winnow.tuning.data import MicroBatch
from winnow.tuning.loss import MicroBatchLoss

SCHEDULES = {"cosine": "cosine", "linear": "linear", "constant": "constant_with_warmup"}


class InstructionTuner(pl.LightningModule):
    """Minimises the mean negative log-likelihood of the answer tokens of each global batch, in nats:

        L(step) = 1 / T * sum over answer tokens of -log p(a_i | Q, a_<i),    T = answer tokens of the batch

    or what the adversary makes of it. The prompt is masked; logits exist for answer positions only.

    model: a causal language model (a `transformers` model, with or without adapters in its layers); only its
    parameters that ask for a gradient are trained and checkpointed.
    total_steps: length of the learning-rate schedule; warmup_ratio: share of it with a rising rate.
    run: what the run depends on, JSON-able; a checkpoint of another run is refused.
    distortion: epoch -> beta, the distortion of that epoch's noised instructions, which the first process measures and
    the adversary is given when the epoch begins; None where it asks for none. `distortions` holds those of the epochs
    that were begun.
    padding_free: micro-batches run without padding; see `MicroBatchLoss`.

    Dropout and an adversary's noise are functions of (seed, step, record): micro-batches, processes, an interruption
    and a resume change nothing but rounding.
    Raises UserError at a loss that is not finite or below 0, before the weights are touched by it.
    """

    model: Any  # torch knows its methods as tensors or modules

    def __init__(
        self,
        model: nn.Module,
        adversary: Adversary,
        learning_rate: float,
        total_steps: int,
        warmup_ratio: float = 0.0,
        weight_decay: float = 0.0,
        schedule: str = "cosine",
        seed: int = 0,
        run: dict[str, Any] | None = None,
        distortion: Callable[[int], float] | None = None,
        padding_free: bool = False,
    ) -> None:
        super().__init__()
        self.model = model
        self.adversary = adversary
        self.learning_rate, self.warmup_ratio, self.weight_decay = learning_rate, warmup_ratio, weight_decay
        self.total_steps, self.schedule, self.seed = total_steps, schedule, seed
        self.run = run or {}
        self.distortion, self.padding_free = distortion, padding_free
        self.distortions: dict[int, float] = {}
        self._prepared: int | None = None  # the epoch that the adversary knows of
        self.fallbacks: dict[int, int] = {}  # of the examples, which fill it; a resume adds those of earlier epochs
        self.began = time.monotonic()  # earlier by the time that went into the checkpoint of a resumed run
        self.history: list[dict[str, float]] = []
        self.strict_loading = False  # a checkpoint holds the trained parameters only; see on_load_checkpoint
        self._step_loss = torch.zeros(())
        self._batches: list[MicroBatch] = []  # of the step

    def training_step(self, batch: MicroBatch, batch_idx: int) -> Tensor:
        if batch.step != self.global_step:
            raise RuntimeError(f"data of step {batch.step} arrived at optimizer step {self.global_step}")
        if self.distortion is not None and batch.epoch != self._prepared:
            if batch.epoch not in self.distortions:  # a resumed epoch has it from its checkpoint
                self.distortions[batch.epoch] = read_by_leader(partial(self.distortion, batch.epoch))
            self.adversary.prepare(self.distortions[batch.epoch])
            self._prepared = batch.epoch
        share = self(batch)
        self._step_loss = self._step_loss + share.detach()
        # Lightning divides by the accumulation and averages gradients over processes; the shares are to be
        # summed.
        return share * (self.trainer.accumulate_grad_batches * self.trainer.world_size)

    def forward(self, batch: MicroBatch) -> Tensor:
        """The micro-batch's share of the step's loss."""
        if batch.ids.numel() == 0:
            return self._zero()
        self._batches.append(batch)
        share = 0.0 if batch.spare else len(batch.targets) / batch.step_tokens
        embeds = self.model.get_input_embeddings()(batch.ids)
        scale = share * self.trainer.world_size if self.sharded else None
        loss_of = MicroBatchLoss(self.model, batch, self.seed, scale, self.padding_free)
        loss_of.same_dropout()
        own = self.adversary.loss(loss_of, embeds, batch.regions[self.adversary.region]) * share
        return own if self.sharded or self.trainer.world_size == 1 else own + self._zero()

    def _zero(self) -> Tensor:
        """0, whose backward pass adds zeros to all gradients: several processes wait for that of every weight, and an
        expert may meet no token."""
        return torch.stack([parameter.reshape(-1)[0] for _, parameter in self.trained()]).sum() * 0.0

    @property
    def sharded(self) -> bool:
        return isinstance(self, FSDPModule)

    def cpu(self) -> InstructionTuner:
        """Itself, with adapters: at the end Lightning would copy the frozen weights to the CPU's memory, for nobody."""
        return super().cpu() if all(weight.requires_grad for weight in self.parameters()) else self

    def configure_model(self) -> None:
        if isinstance(self.trainer.strategy, Sharded) and not self.sharded:
            mesh = self.device_mesh
            assert mesh is not None  # the strategy has made it by now
            bf16 = self.trainer.precision == "bf16-mixed"
            shard(self, CausalModel(self.model).blocks, mesh["data_parallel"], bf16)

    def on_after_backward(self) -> None:
        if isinstance(self, FSDPModule):
            self.reshard()

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: Any) -> None:
        """Nothing: Lightning calls it after the loss, whose adversary may have added to gradients already."""

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        optimizer.zero_grad()

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        loss = float(self.trainer.strategy.reduce(self._step_loss, reduce_op="sum"))
        self._step_loss = torch.zeros(())
        step, rate = self.global_step + 1, optimizer.param_groups[0]["lr"]
        if not math.isfinite(loss) or loss < 0:
            raise UserError(f"The tuning loss became {loss} at step {step} of {self.total_steps}: {self._cause(loss)}")
        self._batches = []
        for _, weight in self.trained():  # of one process; AdamW takes its step as with several
            weight.grad = torch.zeros_like(weight) if weight.grad is None else weight.grad
        self.history.append({"step": step, "loss": loss, "lr": rate})
        self.log("train/loss", loss, prog_bar=True, on_step=True, on_epoch=False, batch_size=1)
        self.log("train/lr", rate, on_step=True, on_epoch=False, batch_size=1)

    def _cause(self, loss: float) -> str:
        """Why the loss of the step is no number, or below 0, and what to do; looked for only then."""
        if loss < 0:
            return (
                f"a mean of -log p is never below 0, so the code of the adversary ({type(self.adversary).__name__}) or "
                f"of the backbone is wrong."
            )
        trained = {name for name, _ in self.trained()}
        damaged = [name for name, p in self.named_parameters() if not bool(torch.isfinite(local(p)).all())]
        if damaged and (not self.history or damaged[0] not in trained):
            return f"the backbone's weights are not finite ({damaged[0]}); fetch or save it again."
        lower = (
            f"lower tuning.learning_rate (now {self.learning_rate:g}), set tuning.gradient_clip=1, or use "
            f"backbone.dtype=fp32 tuning.dtype=fp32."
        )
        if self.sharded:
            return lower  # the processes would have to look at each record together
        with self.trainer.precision_plugin.forward_context():  # without it the weights of full tuning compute in fp32
            losses = {name: value for batch in self._batches for name, value in self._by_record(batch).items()}
        bad = [name for name, value in losses.items() if not math.isfinite(value)]
        if damaged or not bad or len(bad) == len(losses) > 1:
            return lower
        some = ", ".join(bad[:5])
        return f"{len(bad)} of its {len(losses)} records have no finite loss ({some}); leave them out, or {lower}"

    @torch.no_grad()
    def _by_record(self, batch: MicroBatch) -> dict[str, float]:
        """The loss of each record of a micro-batch, without dropout and perturbation."""
        self.model.eval()
        length = batch.ids.shape[1]
        losses = {}
        for row, name in enumerate(batch.records):
            own = batch.rows // length == row
            alone = batch._replace(
                records=(name,),
                ids=batch.ids[row : row + 1],
                rows=batch.rows[own] - row * length,
                targets=batch.targets[own],
            )
            losses[name] = float(MicroBatchLoss(self.model, alone)(self.model.get_input_embeddings()(alone.ids)))
        self.model.train()
        return losses

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW (no decay on biases and norms) and a per-step schedule with linear warm-up."""
        matrices = [p for _, p in self.trained() if p.ndim >= 2]
        vectors = [p for _, p in self.trained() if p.ndim < 2]
        groups = [{"params": matrices, "weight_decay": self.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
        # On a GPU torch's other ways keep up to 4 more bytes for each weight while they take a step.
        fused = all(p.is_cuda for _, p in self.trained())
        optimizer = torch.optim.AdamW([g for g in groups if g["params"]], lr=self.learning_rate, fused=fused or None)
        # Lightning clips no gradients for an optimizer that undoes their scaling; none are scaled here.
        optimizer._step_supports_amp_scaling = False
        scheduler = get_scheduler(
            SCHEDULES[self.schedule],
            optimizer,
            # The first step of a warm-up has the rate 0: an only step would change nothing.
            num_warmup_steps=min(math.ceil(self.warmup_ratio * self.total_steps), self.total_steps - 1),
            num_training_steps=self.total_steps,
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_train_end(self) -> None:
        for optimizer in self.trainer.optimizers:  # Lightning would move Adam's moments to the CPU's memory, for nobody
            optimizer.state.clear()

    def trained(self) -> list[tuple[str, nn.Parameter]]:
        """Names and tensors of the parameters that are trained."""
        return [(name, p) for name, p in self.named_parameters() if p.requires_grad]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        names = {name for name, _ in self.trained()}
        checkpoint["state_dict"] = {k: v for k, v in checkpoint["state_dict"].items() if k in names}
        checkpoint["winnow"] = {
            "history": self.history,
            "distortions": self.distortions,
            "fallbacks": self.fallbacks,
            "run": self.run,
            "seconds": time.monotonic() - self.began,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        stored = checkpoint["winnow"]
        differing = sorted(k for k in self.run | stored["run"] if self.run.get(k) != stored["run"].get(k))
        if differing:
            changes = ", ".join(f"{k}: {stored['run'].get(k)} then, {self.run.get(k)} now" for k in differing)
            raise UserError(
                f"The checkpoints in this folder were made by another run ({changes}): tune into another "
                f"folder, or delete its `checkpoints`."
            )
        missing = {name for name, _ in self.trained()} - set(checkpoint["state_dict"])
        if missing:
            raise RuntimeError(f"checkpoint lacks trained parameters: {sorted(missing)[:3]}")
        self.history, self.distortions = list(stored["history"]), dict(stored.get("distortions", {}))
        self.fallbacks |= stored.get("fallbacks", {})
        self.began -= stored.get("seconds", 0.0)
        # Lightning counts micro-batches; a resume may have others, and other processes.
        done = checkpoint["global_step"] * self.trainer.accumulate_grad_batches
        progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
        for count in (progress["current"], progress["total"]):
            count.update(ready=done, started=done, processed=done, completed=done - 1)
