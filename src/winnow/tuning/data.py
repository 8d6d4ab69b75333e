"""Which records make up which optimizer step: decided before training, the same whatever the hardware.

A step's *global batch* is a pure function of (seed, epoch). It is cut into *micro-batches*, the records that
are in memory at once, and these are dealt out over the processes. The loss of a step is the mean over all
answer tokens of its global batch, so 8 x 1, 4 x 2 and 1 x 8 (records x accumulation) and any number of
processes give the same gradient.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from winnow import draws
from winnow.errors import UserError
from winnow.tuning.examples import ExamplesOf, supervised_tokens

if TYPE_CHECKING:
    from winnow.data.templates import Encoded


class MicroBatch(NamedTuple):
    """Records that go through the model together. Right-padded: a causal model needs no attention mask.

    step: 0-based optimizer step. epoch: 0-based pass over the records. number: position among all
    micro-batches of the step, over all processes. step_tokens: answer tokens in the whole global batch.
    records: the record ids. ids: (batch, length) token ids. mask: (batch, length) bool, false at padding.
    regions: name -> (batch, length) bool, where an adversary may perturb; see `adversary.base.REGIONS`.
    rows: (answer tokens,) positions in the flattened (batch * length) hidden states that predict an answer
    token. targets: (answer tokens,) the tokens to be predicted.
    A step whose global batch is too small has empty micro-batches, with batch = 0, or spare ones. spare: a repetition
    that counts nothing, by which a process keeps step with the others.
    """

    step: int
    epoch: int
    number: int
    records: tuple[str, ...]
    ids: Tensor
    mask: Tensor
    regions: dict[str, Tensor]
    rows: Tensor
    targets: Tensor
    step_tokens: int
    spare: bool = False


class Step(NamedTuple):
    """One optimizer step: its epoch and the record indices of each of its micro-batches."""

    epoch: int
    micro_batches: list[list[int]]


def plan_steps(
    lengths: Sequence[int],
    batch_size: int,
    micro_batch_size: int,
    seed: int,
    epochs: int | None,
    max_steps: int | None = None,
) -> list[Step]:
    """All optimizer steps of a run: `epochs` passes over the records, or `max_steps` steps if given.

    lengths: tokens of each record. Each epoch is shuffled by (seed, epoch) and cut into global batches; the
    last one of an epoch may be smaller. Inside a global batch records are sorted by length, longest first,
    so that a micro-batch holds little padding.
    """
    if max_steps is None:
        assert epochs is not None  # one of the two is given
        max_steps = epochs * math.ceil(len(lengths) / batch_size)
    steps: list[Step] = []
    epoch = 0
    while len(steps) < max_steps:
        order = np.random.default_rng(draws.key("epoch", seed, epoch)).permutation(len(lengths)).tolist()
        for start in range(0, len(order), batch_size):
            records = sorted(order[start : start + batch_size], key=lambda i: (-lengths[i], i))
            cuts = range(0, len(records), micro_batch_size)
            steps.append(Step(epoch, [records[cut : cut + micro_batch_size] for cut in cuts]))
        epoch += 1
    return steps[:max_steps]


class MicroBatches:
    """The micro-batches of one process, in the order in which they are trained on.

    Micro-batch k of a step on process `rank` of `world` is micro-batch k * world + rank of the plan:
    neighbours in length run side by side. Every step has the same number of micro-batches on every process
    (`per_step`, the accumulation), empty ones included.

    examples: the records that the plan counts, or a function that gives them for an epoch. spare: the step's last
    micro-batch, its shortest, is repeated where another would be empty.

    Lightning keeps `state_dict()` in its checkpoints and hands it back before the first micro-batch is asked for. It
    counts optimizer steps, which are the same in micro-batches of any size: save it between two of them.
    """

    def __init__(
        self,
        examples: Sequence[Encoded] | ExamplesOf,
        steps: Sequence[Step],
        world: int = 1,
        rank: int = 0,
        spare: bool = False,
    ) -> None:
        self.examples_of = examples if callable(examples) else lambda _epoch: examples
        self.steps, self.world, self.rank, self.spare = steps, world, rank, spare
        self.per_step = math.ceil(max(len(step.micro_batches) for step in steps) / world)
        self._start = self._given = 0

    def __len__(self) -> int:
        return len(self.steps) * self.per_step

    def __getitem__(self, position: int) -> MicroBatch:
        step, turn = divmod(position, self.per_step)
        index = turn * self.world + self.rank
        epoch, micro_batches = self.steps[step]
        examples = self.examples_of(epoch)
        beyond = index >= len(micro_batches)
        own = micro_batches[index] if not beyond else micro_batches[-1] if self.spare else []
        chosen = [examples[i] for i in own]
        tokens = sum(supervised_tokens(examples[i]) for micro in micro_batches for i in micro)
        ids, mask, rows, targets = collate(chosen)
        names = tuple(example.id for example in chosen)
        where = regions(chosen, mask)
        return MicroBatch(step, epoch, index, names, ids, mask, where, rows, targets, tokens, beyond and self.spare)

    def __iter__(self) -> Iterator[MicroBatch]:
        self._given, self._start = self._start, 0
        while self._given < len(self):
            self._given += 1
            yield self[self._given - 1]

    def state_dict(self) -> dict[str, int]:
        return {"steps": self._given // self.per_step}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self._start = state["steps"] * self.per_step


def collate(examples: Sequence[Encoded]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(ids, mask, rows, targets) of a micro-batch; see MicroBatch for shapes.

    The prompt is masked: only answer tokens are targets, each predicted from the position before it. Padding is token
    0; any other would do, as a causal model sees nothing to the right of a token.
    """
    width = max((len(example.ids) for example in examples), default=0)
    ids = torch.zeros(len(examples), width, dtype=torch.long)
    mask = torch.zeros(len(examples), width, dtype=torch.bool)
    rows: list[int] = []
    targets: list[int] = []
    for row, example in enumerate(examples):
        size, first = len(example.ids), max(example.answer_start, 1)
        ids[row, :size] = torch.tensor(example.ids, dtype=torch.long)
        mask[row, :size] = True
        rows.extend(range(row * width + first - 1, row * width + size - 1))
        targets.extend(example.ids[first:])
    return ids, mask, torch.tensor(rows, dtype=torch.long), torch.tensor(targets, dtype=torch.long)


def regions(examples: Sequence[Encoded], sample: Tensor) -> dict[str, Tensor]:
    """The regions of a micro-batch, each (batch, length) bool: `sample` as given; `instruction`, the tokens of each
    record's instruction, if it has one; `input`, these and the tokens of its input."""
    instruction, both = torch.zeros_like(sample), torch.zeros_like(sample)
    for row, example in enumerate(examples):
        for role, (start, stop) in example.spans.items():
            both[row, start:stop] = True
            if role == "instruction":
                instruction[row, start:stop] = True
    return {"sample": sample, "instruction": instruction, "input": both}


def check_sizes(batch_size: int, micro_batch_size: int) -> None:
    """Raises UserError unless a global batch consists of whole micro-batches."""
    if batch_size < 1 or micro_batch_size < 1:
        raise UserError(
            f"tuning.batch_size={batch_size} and tuning.micro_batch_size={micro_batch_size} must both be 1 or more."
        )
    if batch_size % micro_batch_size:
        raise UserError(
            f"tuning.batch_size={batch_size} is not divisible by tuning.micro_batch_size={micro_batch_size}: choose "
            f"sizes that divide."
        )


def digest(records: Sequence[Encoded]) -> str:
    """Hash of what the records train on: ids, tokens and where the answers begin."""
    content = json.dumps([[r.id, r.ids, r.answer_start] for r in records]).encode()
    return hashlib.sha256(content).hexdigest()[:16]
