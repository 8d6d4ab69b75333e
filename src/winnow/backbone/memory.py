"""Memory, estimated before a model is loaded: what a model needs, what the device has, and the refusal where the first
is more than the second. Where a batch does not fit all the same, `Halves` runs it in parts.

For N weights of b bytes, a of them trained, and the numbers per token that a pass through all layers makes,

    E = sum over the linear layers of (their inputs + their outputs)

    scoring   N b  +  tokens of a batch * E / layers * b  +  tokens held by a cache * 2 * layers * width of keys * b;
              shared by P processes, with B weights in the blocks, (N - B + B / P + B / layers) b in place of N b
    tuning    4 (weights, fp32) + 4 (gradients) + 8 (AdamW's two moments) bytes for each of the a trained weights,
              2 more where bf16 arithmetic keeps a copy, 4 more where processes exchange gradients,
              N b for frozen weights beside adapters,
              tokens of a micro-batch * E * (2 in bf16, 4 in fp32), or with gradient checkpointing
              tokens * (width * layers + E / layers) * the same
    sharded   16 bytes for each of the a trained weights and N b, divided by the processes; tokens as above

Weights of linear layers in int8 have 1 byte and in nf4 0.5, all else with them is bf16.
E is less than what the backward pass keeps, in a Llama by a fifth at most (a test counts the tensors); the experts of a
mixture are left out, because a token meets few of them. So these are lower bounds: what is refused cannot fit.
"""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import psutil
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from winnow.backbone.quantized import count
from winnow.errors import UserError, out_of_memory
from winnow.trainer import device_of, processes_of

Item = TypeVar("Item")
Result = TypeVar("Result")

GB = 10**9
BYTES = {"fp32": 4, "bf16": 2, "int8": 2, "nf4": 2}  # of a number, and of a weight but for those in QUANTIZED
QUANTIZED = {"int8": 1.0, "nf4": 0.5}  # of a weight of a linear layer; scales are left out
LARGEST_BATCH, SMALLEST_BATCH = 65536, 512  # tokens; larger ones run no faster, and 512 keep a CPU busy (ours)
ANSWERS_ON_A_CPU, MOST_ANSWERS = 16384, 2**18  # tokens of prompts and sampled answers; about 50 answers (ours)


class Room(NamedTuple):
    """Bytes of a device for one process: in all, and free now. device: cpu or cuda."""

    total: int
    free: int
    device: str


class Shapes(NamedTuple):
    """What of a model decides its memory; see the module for E. matrices: weights of the linear layers but the head.
    outside: weights of embeddings and head. cache: keys and values of a token, all layers."""

    weights: int
    matrices: int
    outside: int
    linear: dict[str, int]  # name of a linear layer -> inputs + outputs
    layers: int
    width: int
    cache: int

    @property
    def per_token(self) -> int:
        return sum(size for name, size in self.linear.items() if ".experts." not in name)


def shapes(model: Any) -> Shapes:
    """Of a transformers model, which may lie on the meta device."""
    config, head = model.config.get_text_config(), model.get_output_embeddings()
    linear, matrices = {}, 0
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | Conv1D) and module is not head:
            sizes = (module.in_features, module.out_features) if isinstance(module, nn.Linear) else module.weight.shape
            linear[name], matrices = sum(sizes), matrices + math.prod(sizes)
    heads = getattr(config, "num_attention_heads", None) or 0  # a recurrent model has none
    own = getattr(config, "head_dim", None) or (config.hidden_size // heads if heads else 0)
    keys = (getattr(config, "num_key_value_heads", None) or heads) * own
    layers = config.num_hidden_layers
    weights = sum(count(weight) for weight in model.parameters())
    ends = {weight for one in (model.get_input_embeddings(), head) if one is not None for weight in one.parameters()}
    outside = sum(count(weight) for weight in ends)  # once, where they are tied
    return Shapes(weights, matrices, outside, linear, layers, config.hidden_size, 2 * layers * keys)


def room(trainer: Mapping[str, Any]) -> Room:
    """The memory that these settings of Lightning's Trainer give one process: of its GPU, or its share of the
    machine's, as far as the process may use it (a container's or a job's limit)."""
    if device_of(trainer) == "cuda":
        torch.cuda.empty_cache()  # what torch keeps of freed tensors counts as taken otherwise
        # Each process asks its own GPU: to ask another one would take memory there.
        free, total = torch.cuda.mem_get_info(own_gpu())
        return Room(total, free, "cuda")
    memory, devices = psutil.virtual_memory(), trainer.get("devices", 1)
    share = devices if isinstance(devices, int) and devices > 1 else 1
    limit = min([memory.total, *_limits()])
    return Room(limit // share, min(limit, memory.available) // share, "cpu")


def own_gpu() -> int | None:
    """Number of the GPU of this process, None where there is none."""
    if not torch.cuda.is_available():
        return None
    rank = os.environ.get("LOCAL_RANK")
    return torch.cuda.current_device() if rank is None else int(rank)


def on_device(model: nn.Module, trainer: Mapping[str, Any]) -> nn.Module:
    """The model, moved to where these settings compute, for passes that are run without Lightning."""
    device = torch.device("cuda", own_gpu() or 0) if device_of(trainer) == "cuda" else torch.device("cpu")
    # As a module: transformers refuses to move int8 weights, which can be moved.
    return nn.Module.to(model, device)


def _limits() -> Iterable[int]:
    """Limits of the control groups that this process is in (Linux), in bytes."""
    groups = Path("/proc/self/cgroup")
    for line in groups.read_text(encoding="utf-8").splitlines() if groups.is_file() else ():
        _, kinds, own = line.split(":", 2)
        root, name = Path("/sys/fs/cgroup"), "memory.max"
        if kinds:
            root, name = root / "memory", "memory.limit_in_bytes"
        if kinds and "memory" not in kinds.split(","):
            continue
        folder = root / own.lstrip("/")
        for file in (one / name for one in (folder, *folder.parents) if one.is_relative_to(root)):
            text = file.read_text(encoding="utf-8").strip() if file.is_file() else ""
            if text.isdigit():  # "max": none
                yield int(text)


def weight_bytes(size: Shapes, dtype: str) -> int:
    """Of a model's weights."""
    rest = BYTES[dtype] * (size.weights - size.matrices)
    return rest + int(QUANTIZED.get(dtype, BYTES[dtype]) * size.matrices)


def scoring_bytes(size: Shapes, dtype: str, tokens: int, cached: int = 0, processes: int = 1) -> int:
    """Of a model that reads batches of `tokens` and holds keys and values of `cached` tokens. processes: that share its
    blocks, of which each collects the one at work."""
    numbers = tokens * size.per_token // size.layers + cached * size.cache
    weights = weight_bytes(size, dtype) if processes == 1 else BYTES[dtype] * shared_weights(size, processes)
    return weights + BYTES[dtype] * numbers


def shared_weights(size: Shapes, processes: int) -> int:
    """How many weights each of the processes holds: what is outside the blocks, its part of them, and the block at
    work."""
    blocks = size.weights - size.outside
    return size.weights if processes == 1 else size.outside + blocks // processes + blocks // size.layers


def tuning_bytes(
    size: Shapes,
    dtype: str,
    arithmetic: str,
    trained: int | None = None,
    tokens: int = 1,
    checkpointing: bool = False,
    processes: int = 1,
    sharded: bool = False,
) -> int:
    """Of a training step. dtype: of frozen weights. trained: weights of the adapters; None: all of the model's.
    tokens: of a micro-batch. sharded: over the processes."""
    states = 16
    if not sharded:
        states += (2 if arithmetic == "bf16" and trained is None else 0) + (4 if processes > 1 else 0)
    kept = size.width * size.layers + size.per_token // size.layers if checkpointing else size.per_token
    frozen = 0 if trained is None else weight_bytes(size, dtype)
    parts = frozen + states * (size.weights if trained is None else trained)
    return parts // (processes if sharded else 1) + tokens * kept * BYTES[arithmetic]


def check_scoring(
    name: str,
    size: Shapes,
    dtype: str,
    space: Room,
    tokens: int,
    cached: int = 0,
    processes: int = 1,
    sharable: bool = True,
) -> None:
    """Raises UserError if scoring with the backbone `name` cannot fit. tokens: of the longest text, below which no
    batch can be. cached: of answers that are sampled at once. processes: that share the model. sharable: whether the
    passes can run a shared one."""
    needed = scoring_bytes(size, dtype, tokens, cached, processes)
    if needed <= space.total:
        return
    dtypes = [one for one in BYTES if processes == 1 or one not in QUANTIZED]
    fitting = [one for one in dtypes if scoring_bytes(size, one, tokens, cached, processes) <= space.total]
    cures = [f"give backbone.dtype={fitting[0]}"] if fitting else []
    counts = (2, 4, 8, 16, 32, 64) if sharable and space.device == "cuda" and dtype not in QUANTIZED else ()
    enough = [one for one in counts if scoring_bytes(size, dtype, tokens, cached, one) <= space.total]
    cures += [f"give trainer=fsdp on {enough[0]} GPUs"] if enough else []
    spare = space.total - scoring_bytes(size, dtype, tokens, processes=processes)
    if cached and spare > size.cache * BYTES[dtype]:
        cures.append(f"lower method.tokens_per_batch to {spare // (size.cache * BYTES[dtype])}")
    raise UserError(
        f"backbone.name={name} needs at least {gb(needed)} to read a text of {tokens} tokens in {dtype} "
        f"({billion(size.weights)} weights), but {place(space)}: {', or '.join([*cures, SMALLER])}."
    )


def check_sharing(dtype: str) -> None:
    """Raises UserError for a `backbone.dtype` whose weights processes cannot share."""
    if dtype in QUANTIZED:
        raise UserError(
            f"trainer.strategy=fsdp does not shard the weights of backbone.dtype={dtype}: give trainer=ddp, or "
            f"backbone.dtype=bf16."
        )


SMALLER = "take a smaller backbone, or a machine with more memory"


def place(space: Room) -> str:
    """What has how much, for a sentence."""
    return f"{'the GPU' if space.device == 'cuda' else 'one process here'} has {gb(space.total)}"


def gb(size: int) -> str:
    return f"{size / GB:.3g} GB"


def billion(count: int) -> str:
    return f"{count / 1e9:.3g} billion"


def fitting_tokens(model: Any, trainer: Mapping[str, Any], backward: bool = False) -> int:
    """Tokens of a batch for `model`, which is loaded: on a CPU 512, on a GPU the power of two with which a pass takes
    at most half of what is free beside the weights: what a layer computed, and keys and values of all layers for a text
    and for as long a prefix (ours). backward: what all layers computed, without a prefix."""
    size = shapes(model)
    kept = size.per_token if backward else size.per_token // size.layers + 2 * size.cache
    return _fitting(model, trainer, kept, SMALLEST_BATCH, LARGEST_BATCH)


def fitting_answers(model: Any, trainer: Mapping[str, Any]) -> int:
    """Prompt and answer tokens of a batch for `model`, which is loaded: on a CPU 16384, on a GPU the power of two whose
    keys and values take at most half of what is free beside the weights."""
    return _fitting(model, trainer, shapes(model).cache, ANSWERS_ON_A_CPU, MOST_ANSWERS)


def _fitting(model: Any, trainer: Mapping[str, Any], numbers: int, on_a_cpu: int, most: int) -> int:
    """numbers: kept for each token."""
    space, size = room(trainer), shapes(model)
    if space.device == "cpu":
        return on_a_cpu
    width, processes = model.dtype.itemsize, processes_of(trainer) if trainer.get("strategy") == "fsdp" else 1
    weights = width * shared_weights(size, processes)
    here = 0 if next(model.parameters()).is_cuda else weights  # Lightning moves it there later
    tokens = max((space.free - here) // 2 // (width * max(numbers, 1)), SMALLEST_BATCH)
    return min(1 << (tokens.bit_length() - 1), most)


class Halves:
    """Runs work on a batch, and where memory ends on its halves, one after the other. Nothing is lost: what a record
    gets does not depend on its batch beyond rounding. A size that was too large is not tried again.

    told: where a halving is told: gets the items of the batch and its size.
    """

    def __init__(self, told: Callable[[int, int], None]) -> None:
        self.told, self.too_large = told, float("inf")

    def __call__(
        self, items: Sequence[Item], size: Callable[[Sequence[Item]], int], work: Callable[[Sequence[Item]], Result]
    ) -> list[Result]:
        """The results of all parts, in order. size: of a batch, the more the larger. Raises the error of a lack of
        memory where a single item is too large."""
        waiting, results = deque([items]), []
        while waiting:
            part = waiting.popleft()
            if len(part) == 1 or size(part) < self.too_large:
                try:
                    results.append(work(part))
                    continue
                except (MemoryError, RuntimeError) as error:
                    if len(part) == 1 or not out_of_memory(error):
                        raise
                # Outside of the handler: until there the error holds the tensors of the failed batch.
                self.too_large = size(part)
                self.told(len(part), self.too_large)
                if torch.cuda.is_available():
                    torch.cuda.empty_cache()
            waiting.extendleft([part[len(part) // 2 :], part[: len(part) // 2]])
        return results
