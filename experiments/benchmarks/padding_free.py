"""A training step with `tuning.packing=padding_free` against the padded step on the same records.

    OMP_NUM_THREADS=1 python experiments/benchmarks/padding_free.py alpaca_data.json MICRO_BATCH [rounds]

A step is one global batch of 8 records under LoRA on the packaged backbone in bf16, without an adversary: forward and
backward passes, in micro-batches of that size. The optimizer is left out, since it does the same in both. Each round
has other records, on which the two ways take turns, in an order that changes each round; the first round is not
counted. Seconds are those of the processor. `ratio`: padding-free over padded, over all rounds, and of the round with
the lowest and the highest. `loss_apart`, `gradient_apart`: the largest relative difference of any round; in bf16, so of
its rounding.
"""

from __future__ import annotations

import sys
import time

import torch
from common import parts, save

from winnow.config import build
from winnow.tuning.data import MicroBatches, plan_steps
from winnow.tuning.examples import EpochRecords
from winnow.tuning.loss import MicroBatchLoss
from winnow.tuning.trainable import with_adapters

GLOBAL = 8  # records a step


def main() -> None:
    pool, micro, rounds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 2
    cfg, source, template = parts("backbone.dtype=bf16")
    records = build("data/file", source=pool, limit=GLOBAL * (rounds + 1)).records
    examples = EpochRecords(template.encode(records, source.tokenizer, eos=True)).first
    lora = {key: cfg.tuning[f"lora_{key}"] for key in ("r", "alpha", "dropout", "target_modules")}
    model = with_adapters(source.load().model, **lora, seed=0).get_base_model().train()
    weights = [p for p in model.parameters() if p.requires_grad]
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(0, 0.01)  # at 0, as it begins, no gradient would reach A

    def step(micro_batches, padding_free: bool):
        """(seconds, loss, gradient) of an optimizer step."""
        loss, start = 0.0, time.process_time()
        for batch in micro_batches:
            with torch.autocast("cpu", torch.bfloat16):
                loss_of = MicroBatchLoss(model, batch, padding_free=padding_free)
                loss_of.same_dropout()
                own = loss_of(model.get_input_embeddings()(batch.ids)) * (len(batch.targets) / batch.step_tokens)
            own.backward()
            loss += float(own)
        seconds = time.process_time() - start
        gradient = torch.cat([weight.grad.flatten() for weight in weights])
        model.zero_grad()
        return seconds, loss, gradient

    steps = plan_steps([len(e.ids) for e in examples], GLOBAL, micro, seed=0, epochs=1)[: rounds + 1]
    batches = MicroBatches(examples, steps)
    spent, apart = [], []
    for turn in range(rounds + 1):
        own = [batches[turn * batches.per_step + k] for k in range(batches.per_step)]
        found = {way: step(own, way) for way in ((False, True) if turn % 2 else (True, False))}
        (seconds, loss, gradient), (own_seconds, own_loss, own_gradient) = found[False], found[True]
        spent.append((own_seconds, seconds))
        apart.append((abs(own_loss / loss - 1), float((own_gradient - gradient).norm() / gradient.norm())))
        print(micro, turn, spent[-1], apart[-1], file=sys.stderr, flush=True)
    free, padded = (sum(times) for times in zip(*spent[1:], strict=True))
    ratios = [one / other for one, other in spent[1:]]
    counted = [batches[k] for k in range(batches.per_step, len(batches))]
    numbers = {
        "rounds": rounds,
        "threads": torch.get_num_threads(),
        "padding": round(1 - sum(int(b.mask.sum()) for b in counted) / sum(b.ids.numel() for b in counted), 3),
        "seconds_padded": round(padded / rounds, 2),
        "ratio": [round(one, 3) for one in (free / padded, min(ratios), max(ratios))],
        "loss_apart": max(one for one, _ in apart),
        "gradient_apart": max(one for _, one in apart),
    }
    save(f"padding_free_{micro}", numbers)


if __name__ == "__main__":
    main()
