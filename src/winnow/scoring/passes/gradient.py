"""The gradient pass: each record's gradient with respect to the adapters of a model, as its norm and as a sketch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import pyarrow as pa
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from winnow import draws
from winnow.backbone.causal_model import CausalModel
from winnow.backbone.likelihood import token_nll
from winnow.backbone.loading import Backbone, OptimizerState
from winnow.data.templates import Encoded
from winnow.errors import UserError
from winnow.scoring.protocols import Pass, columns_of
from winnow.scoring.scores import NON_FINITE, NOTHING_TO_AVERAGE

BETAS, EPSILON = (0.9, 0.999), 1e-8  # of AdamW, here and in LESS [code]
FACTORS = (".lora_A.", ".lora_B.")


@dataclass(frozen=True)
class LoraGradient(Pass):
    """g, the gradient of a record's mean answer loss with respect to the factors A and B of every adapter.

        dL/dW = sum over positions t of s_t x_t^T     x_t: what goes into a factor W, s_t: the slope of what comes out

    Both are there after one forward and one backward pass of a batch, in which no weight asks for a gradient.

    adam: in place of g Adam's step with it, from the moments m, v of the model's tuning, as LESS has it:

        (0.9 m + 0.1 g) / sqrt(0.999 v + 0.001 g^2 + 1e-8)

    dimensions: of the sketch v = P g, None for none. P, one +-1 in each column, its row and sign drawn by (`seed`,
    name of the weight), is a Johnson-Lindenstrauss projection as dense ones are, at the price of an addition for each
    entry of g (Weinberger et al., ICML 2009, arXiv 0902.2206):

        E <P a, P b> = <a, b>     E (<P a, P b> - <a, b>)^2 <= 2 / dimensions |a|^2 |b|^2

    Columns per record: `norm`, |g|, whatever `adam` says; `vector`, v / |v| rounded to 16 bits; `rate`, the mean
    learning rate of the epoch after which the model was kept, None for a model that was not; `prompt_tokens`;
    `answer_tokens`, before any cut; `flag`.
    """

    dimensions: int | None = None
    seed: int = 0
    adam: bool = False
    checkpoint: int = 0
    needs_gradients: ClassVar[bool] = True
    version: ClassVar[int] = 1
    schema: ClassVar[pa.Schema] = columns_of(
        norm=pa.float32(),
        vector=pa.list_(pa.float16()),
        rate=pa.float64(),
        prompt_tokens=pa.int32(),
        answer_tokens=pa.int32(),
    )

    def __post_init__(self) -> None:
        if self.dimensions is not None and self.dimensions < 1:
            raise UserError(f"method.dimensions={self.dimensions} must be at least 1.")

    def module(self, backbone: Backbone) -> pl.LightningModule:
        return _GradientModule(backbone, self)

    def cost(self, encoded: Encoded, shared: int) -> int:
        """Its whole text: the gradient passes through what others have run too."""
        return len(encoded.ids)

    def flagged(self, encoded: Encoded) -> dict[str, Any]:
        return super().flagged(encoded) | {"answer_tokens": None}


class _GradientModule(pl.LightningModule):
    def __init__(self, backbone: Backbone, settings: LoraGradient) -> None:
        super().__init__()
        self.model, self.settings = backbone.model, settings
        self.causal = CausalModel(backbone.model)
        self.optimizer_state = backbone.optimizer
        self.factors = {
            name: module
            for name, module in backbone.model.named_modules()
            if any(part in f"{name}." for part in FACTORS) and isinstance(module, nn.Linear)
        }
        if not self.factors or (settings.adam and self.optimizer_state is None):
            raise ValueError("the gradient pass needs a model with adapters, and for `adam` its optimizer's state")
        self.places: dict[str, Tensor] = {}

    @torch.enable_grad()
    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, list]:
        records, ids = batch["columns"], batch["input_ids"]
        scored = torch.tensor([one["scored"] for one in records], device=ids.device)
        with self._watched(tuple(ids.shape)) as found:
            hidden = self.causal.hidden(input_ids=ids)
            nll = token_nll(hidden[batch["row"], batch["position"]], self.causal.logits, batch["target"])
            # A record's loss depends on no other record: one backward pass gives each its own slopes.
            (nll / scored[batch["row"]]).sum().backward()
        norms = found.squares.sqrt().tolist()
        flags = [
            NOTHING_TO_AVERAGE if n == 0 else None if norm < float("inf") else NON_FINITE
            for n, norm in zip(scored.tolist(), norms, strict=True)
        ]
        vectors = None if found.sketch is None else nn.functional.normalize(found.sketch).half().cpu().numpy()
        rate = None if self.optimizer_state is None else self.optimizer_state.rate
        columns: dict[str, list] = {
            name: [one[name] for one in records] for name in ("id", "prompt_tokens", "answer_tokens")
        }
        given = [flag is None for flag in flags]
        columns["norm"] = [norm if ok else None for norm, ok in zip(norms, given, strict=True)]
        columns["vector"] = [vectors[i] if ok and vectors is not None else None for i, ok in enumerate(given)]
        columns["rate"] = [rate] * len(records)
        columns["flag"] = flags
        return columns

    @contextmanager
    def _watched(self, size: tuple[int, ...]) -> Iterator[_Sums]:
        """Inside, gradients are computed with respect to what the embeddings put out, and the factors' are summed."""
        found = _Sums(self, *size)
        hooks = [self.causal.embed.register_forward_hook(lambda module, args, out: out.requires_grad_())]
        hooks += [one.register_forward_hook(partial(found.watch, name)) for name, one in self.factors.items()]
        try:
            yield found
        finally:
            for hook in hooks:
                hook.remove()

    def place(self, name: str, entries: int, device: torch.device) -> Tensor:
        """(entries,): twice the row of each entry's +-1, plus 1 for a minus."""
        if name not in self.places:
            source = draws.generator("sketch", self.settings.seed, name)
            limit = 2 * (self.settings.dimensions or 0)
            self.places[name] = torch.randint(limit, (entries,), generator=source, dtype=torch.int32).to(device)
        return self.places[name]


class _Sums:
    """What a batch's backward pass adds up. squares: (rows,), |g|^2. sketch: (rows, dimensions), P g."""

    def __init__(self, module: _GradientModule, rows: int, length: int) -> None:
        self.module, self.rows, self.length, self.names = module, rows, length, set[str]()
        device, dimensions = module.causal.device, module.settings.dimensions
        self.squares = torch.zeros(rows, device=device)
        self.sketch = None if dimensions is None else torch.zeros(rows, dimensions, device=device)

    def watch(self, name: str, module: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> None:
        given = args[0].detach()
        if given.shape[:-1] == (self.rows * self.length,) and "experts" not in name.split("."):
            given = given.view(self.rows, self.length, -1)  # OPT's list of all tokens
        if given.dim() != 3 or len(given) != self.rows or name in self.names:
            raise UserError(
                f"The adapter on {name.partition('.lora_')[0]} sees the tokens of several records in one list, or is "
                f"used twice, as in mixtures of experts, so that its gradient has no record: leave such layers out of "
                f"method.preparation.lora_target_modules (of `less`: method.preparation.tuner.lora_target_modules)."
            )
        self.names.add(name)
        out.register_hook(partial(self._add, name, given))

    @torch.no_grad()
    def _add(self, name: str, given: Tensor, slope: Tensor) -> None:
        slope = slope.float().view(*given.shape[:2], -1)
        gradient = torch.bmm(slope.transpose(1, 2), given.float()).flatten(1)
        self.squares += gradient.square().sum(1)
        if self.sketch is None:
            return
        if self.module.settings.adam:
            assert self.module.optimizer_state is not None
            gradient = adam_step(gradient, self.module.optimizer_state, f"{name}.weight")
        add_sketch(self.sketch, gradient, self.module.place(name, gradient.shape[1], gradient.device))


def adam_step(gradient: Tensor, state: OptimizerState, name: str) -> Tensor:
    """(rows, entries): Adam's step with each row's gradient, without learning rate and bias correction [LESS code]."""
    for part in (state.first, state.second):
        part[name] = part[name].to(gradient.device)  # moved once, not for each batch
    mean = torch.lerp(gradient, state.first[name].flatten(), BETAS[0])
    return mean / torch.lerp(gradient.square(), state.second[name].flatten(), BETAS[1]).add_(EPSILON).sqrt_()


def add_sketch(sketch: Tensor, gradient: Tensor, place: Tensor) -> None:
    """sketch (rows, dimensions) += gradient P^T. gradient: (rows, entries). place: see `_GradientModule.place`."""
    sketch.scatter_add_(1, (place >> 1).long().expand_as(gradient), gradient * (1 - 2 * (place & 1)))
