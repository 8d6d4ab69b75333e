"""The gradient pass against a loop of autograd over single records, in one process.

    python experiments/benchmarks/gradient_speed.py alpaca_data.json [records] [rounds] [dimensions]

Both give norm and sketch of each record's gradient with respect to fresh adapters of rank 16 on all linear layers of
the packaged backbone, in fp32; the loop asks torch for one record's gradients at a time, unpadded. They take turns;
`ratio` is the median over the rounds. Forwards: operations that torch counts, over those of the likelihood pass on
single records; the sketch's additions are not among them, the seconds hold them.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time

import torch
from common import TRAINER, parts, save
from torch.utils.flop_counter import FlopCounterMode

from winnow.config import build
from winnow.data.batching import token_budget_batches
from winnow.scoring.passes.gradient import LoraGradient, add_sketch
from winnow.scoring.passes.likelihood import Likelihood
from winnow.scoring.runner import PassRunner
from winnow.store.artifacts import Store
from winnow.tuning.warm_up import Adapters


def main() -> None:
    pool = sys.argv[1]
    count, rounds, dimensions = (int(one) for one in [*sys.argv[2:], *("32", "3", "8192")[len(sys.argv) - 2 :]])
    _, source, template = parts("backbone.dtype=fp32")
    with tempfile.TemporaryDirectory() as folder:
        runner = PassRunner(source, Store(folder), TRAINER)
        own = Adapters(16, 0).prepare(runner, [], template, TRAINER)[0].load()
    records = build("data/file", source=pool, limit=count).records
    encoded = [one for one in template.encode(records, source.tokenizer) if one.flag is None]
    pass_ = LoraGradient(dimensions=dimensions)
    module, likelihood = pass_.module(own), Likelihood().module(runner.backbone)
    batches = [[encoded[i] for i in batch] for batch in token_budget_batches([len(e.ids) for e in encoded], 512)]
    weights = {name: weight for name, weight in own.model.named_parameters() if "lora_" in name}

    def by_pass() -> dict[str, float]:
        found: dict[str, float] = {}
        for batch in batches:
            columns = module.predict_step(pass_.collate(batch) | {"shared": 0}, 0)
            found |= dict(zip(columns["id"], columns["norm"], strict=True))
        return found

    def one_by_one() -> dict[str, float]:
        found = {}
        for weight in weights.values():
            weight.requires_grad_()
        for record in encoded:
            labels = torch.tensor([record.ids])
            given = labels.clone()
            labels[:, : record.answer_start] = -100
            loss = own.model(input_ids=given, labels=labels).loss
            sketch, squares = torch.zeros(dimensions, 1), 0.0
            for name, one in zip(weights, torch.autograd.grad(loss, list(weights.values())), strict=True):
                squares += float(one.square().sum())
                place = module.place(name.removesuffix(".weight"), one.numel(), one.device)
                add_sketch(sketch, one.reshape(1, -1), place)
            found[record.id] = squares**0.5
        for weight in weights.values():
            weight.requires_grad_(False)
        return found

    spent: dict[str, list[float]] = {"pass": [], "loop": []}
    norms = {}
    for turn in range(rounds + 1):  # the first is not counted
        for name, work in (("pass", by_pass), ("loop", one_by_one)):
            start = time.perf_counter()
            norms[name] = work()
            if turn:
                spent[name].append(time.perf_counter() - start)
    with FlopCounterMode(display=False) as whole:
        by_pass()
    with FlopCounterMode(display=False) as forward, torch.no_grad():
        for record in encoded:
            likelihood.predict_step(Likelihood().collate([record]) | {"shared": 0}, 0)
    ratios = [loop / own for own, loop in zip(spent["pass"], spent["loop"], strict=True)]
    numbers = {
        "records": len(encoded),
        "tokens": sum(len(one.ids) for one in encoded),
        "dimensions": dimensions,
        "rounds": rounds,
        "threads": torch.get_num_threads(),
        "seconds_pass": round(statistics.median(spent["pass"]), 2),
        "seconds_loop": round(statistics.median(spent["loop"]), 2),
        "ratio": round(statistics.median(ratios), 3),
        "ratio_lowest_highest": [round(min(ratios), 3), round(max(ratios), 3)],
        "forwards_per_record": round(whole.get_total_flops() / forward.get_total_flops(), 3),
        "norms_differ_by": max(abs(norms["pass"][name] / norms["loop"][name] - 1) for name in norms["loop"]),
    }
    save(
        "gradient_speed", f"python experiments/benchmarks/gradient_speed.py alpaca_data.json {count} {rounds}", numbers
    )


if __name__ == "__main__":
    main()
