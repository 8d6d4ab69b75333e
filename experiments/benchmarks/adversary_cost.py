"""Time and peak memory of a training step with each adversary, against a plain step.

    python experiments/benchmarks/adversary_cost.py alpaca_data.json [rounds] [fp32,bf16]

A step is one optimizer step on one micro-batch of 4 records, cut to 128 tokens each, with LoRA on the packaged
backbone, everything that the tuner does to it included: embeddings, adversary, backward pass, clipping, AdamW, under
autocast where the dtype is bf16. The constants are those of conf/adversary, except that NRM's beta is 0.3. Time: in one
process, all adversaries take a step on the same micro-batch one after the other, in an order that is turned by one each
round; `ratio` is the median over the rounds of a step's time over that of the plain step of its round. Memory: each
adversary takes two steps in a process of its own, on the longest micro-batch of those timed; `work` is the peak above
what the process held before the first step.
"""

from __future__ import annotations

import json
import statistics
import sys
import time

import torch
from common import apart, parts, reset_peak, resident_mib, save
from lightning_fabric.utilities import move_data_to_device
from torch import nn

from winnow.config import build
from winnow.tuning.data import MicroBatches, plan_steps
from winnow.tuning.dropout import again
from winnow.tuning.examples import EpochRecords
from winnow.tuning.loss import MicroBatchLoss
from winnow.tuning.trainable import with_adapters

MICRO_BATCH, WARM_UP, WINDOW = 4, 1, 128
# name -> (file under conf/adversary, changed settings, gradient checkpointing)
ROWS = {
    "plain": ("none", {}, False),
    "neftune": ("neftune", {}, False),
    "fgm": ("fgm", {}, False),
    "nrm": ("nrm", {"distortion": 0.3}, False),
    "pgd_5": ("pgd", {}, False),
    "freelb_5": ("freelb", {}, False),
    "plain_checkpointing": ("none", {}, True),
    "nrm_checkpointing": ("nrm", {"distortion": 0.3}, True),
}


class Bench:
    """The backbone with adapters, an optimizer, and micro-batches of a pool. model: in place of the packaged one; its
    device is the one that is measured."""

    def __init__(self, pool: str, dtype: str, rounds: int, model: nn.Module | None = None) -> None:
        cfg, source, template = parts(f"backbone.dtype={dtype}", f"template.max_length={WINDOW}")
        records = build("data/file", source=pool, limit=MICRO_BATCH * (rounds + WARM_UP) * 2).records
        examples = EpochRecords(template.encode(records, source.tokenizer, eos=True)).first
        steps = plan_steps([len(e.ids) for e in examples], MICRO_BATCH, MICRO_BATCH, seed=0, epochs=1)
        model = source.load().model if model is None else model
        self.device = next(model.parameters()).device
        batches = MicroBatches(examples, steps[: rounds + WARM_UP])
        self.batches = [move_data_to_device(batches[k], self.device) for k in range(len(batches))]
        self.dtype, self.clip = dtype, cfg.tuning.gradient_clip
        lora = {key: cfg.tuning[f"lora_{key}"] for key in ("r", "alpha", "dropout", "target_modules")}
        self.model = with_adapters(model, **lora, seed=0).get_base_model().train()
        self.weights = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.weights, lr=cfg.tuning.learning_rate)

    def step(self, row: str, position: int) -> float:
        """Seconds of one optimizer step with the adversary of a row."""
        name, changed, checkpointing = ROWS[row]
        adversary = build(f"adversary/{name}", **changed)
        if checkpointing:
            self.model.gradient_checkpointing_enable({"use_reentrant": False, "context_fn": again})
        batch = self.batches[position]
        start = time.perf_counter()
        half = self.dtype == "bf16"
        with torch.autocast(self.device.type, torch.bfloat16, half, cache_enabled=False):  # as Lightning has it
            embeds = self.model.get_input_embeddings()(batch.ids)
            loss_of = MicroBatchLoss(self.model, batch)
            loss_of.same_dropout()
            loss = adversary.loss(loss_of, embeds, batch.mask)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.weights, self.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - start
        if checkpointing:
            self.model.gradient_checkpointing_disable()
        return seconds

    def longest(self) -> int:
        return max(range(len(self.batches)), key=lambda k: self.batches[k].ids.numel())


def one_memory(pool: str, dtype: str, rounds: int, row: str) -> dict:
    bench = Bench(pool, dtype, rounds)
    reset_peak()
    held = resident_mib("VmRSS")
    for _ in range(2):
        bench.step(row, bench.longest())
    peak = resident_mib("VmHWM")
    return {"peak_mb": round(peak), "work_mb": round(peak - held)}


def times(pool: str, dtype: str, rounds: int, model: nn.Module | None = None) -> dict[str, dict]:
    bench, rows = Bench(pool, dtype, rounds, model), list(ROWS)
    seconds: dict[str, list[float]] = {row: [] for row in rows}
    for turn in range(rounds + WARM_UP):
        for row in rows[turn % len(rows) :] + rows[: turn % len(rows)]:
            spent = bench.step(row, turn)
            if turn >= WARM_UP:
                seconds[row].append(spent)
        print(f"{dtype}: round {turn + 1} of {rounds + WARM_UP}, the first is not counted", file=sys.stderr, flush=True)
    found: dict[str, dict] = {}
    for row, spent in seconds.items():
        ratios = [own / plain for own, plain in zip(spent, seconds["plain"], strict=True)]
        found[row] = {
            "seconds": round(statistics.median(spent), 4),
            "ratio": round(statistics.median(ratios), 3),
            "ratio_lowest_highest": [round(min(ratios), 3), round(max(ratios), 3)],
        }
    return found


def main() -> None:
    pool, rounds = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 5
    dtypes = sys.argv[3].split(",") if len(sys.argv) > 3 else ["fp32", "bf16"]
    if len(sys.argv) > 4:
        print(json.dumps(one_memory(pool, dtypes[0], rounds, sys.argv[4])))
        return
    numbers: dict = {
        "rounds": rounds,
        "micro_batch": MICRO_BATCH,
        "max_length": WINDOW,
        "threads": torch.get_num_threads(),
    }
    for dtype in dtypes:
        found = times(pool, dtype, rounds)
        for row in ROWS:
            found[row] |= apart(pool, rounds, dtype, row)
        found["nrm_over_pgd_5"] = round(found["nrm"]["ratio"] / found["pgd_5"]["ratio"], 3)
        found["nrm_over_freelb_5"] = round(found["nrm"]["ratio"] / found["freelb_5"]["ratio"], 3)
        numbers[dtype] = found
    save("adversary_cost", numbers)


if __name__ == "__main__":
    main()
