"""The share of padding among the tokens that go through the model, in scoring and in tuning.

    python experiments/benchmarks/padding.py alpaca_data.json [records ...]

Only the tokenizer is needed: batches are made as the run makes them, and counted. Scoring: the batches of the
likelihood pass, sorted by length, under three budgets; tokens of a prefix that a batch shares run once for all records,
and are not counted. Tuning: the micro-batches of one epoch at seed 0; records are sorted by length inside a global
batch, so the share hangs on its size too. In `adg.yaml`, `ifd.yaml` and their kin a micro-batch holds one record.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from types import SimpleNamespace
from typing import Any, cast

from common import parts, save

from winnow.config import build
from winnow.scoring.pass_loop import Pending
from winnow.scoring.passes.likelihood import Likelihood
from winnow.tuning.data import plan_steps
from winnow.tuning.examples import EpochRecords

BUDGETS = (512, 4096, 32768)  # tokens; 512 is the default on a CPU
SIZES = (4, 8, 16)  # records in memory at once
GLOBAL = (8, 32, 128)  # records a step: tuning=lora, anit, ifd


def counts(batches: Iterable[Sequence[int]]) -> dict[str, float]:
    """Of batches of lengths in tokens."""
    batches = [batch for batch in batches if batch]
    real, computed = sum(map(sum, batches)), sum(len(batch) * max(batch) for batch in batches)
    return {"batches": len(batches), "tokens": real, "computed": computed, "padding": round(1 - real / computed, 4)}


def padding(pool: str, count: int) -> dict:
    """Of the first `count` records."""
    _, source, template = parts()
    records = build("data/file", source=pool, limit=count).records
    scoring = {}
    for view in ("clean", "direct"):
        pass_ = Likelihood(view)
        encoded = pass_.encode(records, template, source.tokenizer)
        for budget in BUDGETS:
            data = Pending(pass_, encoded, cast(Any, None), budget, 0)
            data.trainer = cast(Any, SimpleNamespace(global_rank=0, world_size=1))
            data.predict_dataloader()
            lengths = ([len(record.ids) - shared for record in batch] for batch, shared in data.batches)
            scoring[f"{view} {budget}"] = counts(lengths)
    examples = EpochRecords(template.encode(records, source.tokenizer, eos=True)).first
    lengths = [len(example.ids) for example in examples]
    tuning = {}
    for micro in SIZES:
        for size in sorted({micro, *GLOBAL}):
            if size >= micro:
                steps = plan_steps(lengths, size, micro, seed=0, epochs=1)
                tuning[f"batch_size={size} micro_batch_size={micro}"] = counts(
                    [lengths[i] for i in one] for step in steps for one in step.micro_batches
                )
    return {"trained_on": len(examples), "longest": max(lengths), "scoring": scoring, "tuning": tuning}


def main() -> None:
    pool, sizes = sys.argv[1], sys.argv[2:] or ["500"]
    numbers = {f"{size} records": padding(pool, int(size)) for size in sizes}
    save("padding", numbers)


if __name__ == "__main__":
    main()
