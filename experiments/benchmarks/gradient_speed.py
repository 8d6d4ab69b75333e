"""The gradient pass against a loop of autograd over single records, in one process.

    python experiments/benchmarks/gradient_speed.py alpaca_data.json [records] [dimensions]

Both give norm and sketch of each record's gradient with respect to fresh adapters of rank 16 on all linear layers of
the packaged backbone, in fp32; the loop asks torch for one record's gradients at a time, unpadded. They take turns
batch by batch, in an order that changes each time, so that other work on the machine meets both; the first batch is run
before and not counted. Forwards: operations that torch counts in that batch, over those of the likelihood pass on its
records one by one; the sketch's additions are not among them, the seconds hold them.
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
    pool, count, dimensions = sys.argv[1], *(int(one) for one in [*sys.argv[2:], *("32", "8192")[len(sys.argv) - 2 :]])
    _, source, template = parts("backbone.dtype=fp32")
    with tempfile.TemporaryDirectory() as folder:
        runner = PassRunner(source, Store(folder), TRAINER)
        own = Adapters(16, 0, "all-linear").prepare(runner, [], template)[0].load()
    records = build("data/file", source=pool, limit=count).records
    encoded = [one for one in template.encode(records, source.tokenizer) if one.flag is None]
    pass_ = LoraGradient(dimensions=dimensions)
    module, likelihood = pass_.module(own), Likelihood().module(runner.backbone)
    batches = [[encoded[i] for i in batch] for batch in token_budget_batches([len(e.ids) for e in encoded], 512)]
    weights = {name: weight for name, weight in own.model.named_parameters() if "lora_" in name}

    def by_pass(batch) -> list[float]:
        return module.predict_step(pass_.collate(batch) | {"shared": 0}, 0)["norm"]

    def one_by_one(batch) -> list[float]:
        found = []
        for weight in weights.values():
            weight.requires_grad_()
        for record in batch:
            ids = torch.tensor([record.ids])
            labels = ids.clone()
            labels[:, : record.answer_start] = -100
            loss = own.model(input_ids=ids, labels=labels).loss
            sketch, squares = torch.zeros(1, dimensions), 0.0
            for name, one in zip(weights, torch.autograd.grad(loss, list(weights.values())), strict=True):
                squares += float(one.square().sum())
                place = module.place(name.removesuffix(".weight"), one.numel(), one.device)
                add_sketch(sketch, one.reshape(1, -1), place)
            found.append(squares**0.5)
        for weight in weights.values():
            weight.requires_grad_(False)
        return found

    with FlopCounterMode(display=False) as whole:
        by_pass(batches[0])
    with FlopCounterMode(display=False) as forward, torch.no_grad():
        for record in batches[0]:
            likelihood.predict_step(Likelihood().collate([record]) | {"shared": 0}, 0)
    one_by_one(batches[0])
    ways = {"pass": by_pass, "loop": one_by_one}
    spent: dict[str, list[float]] = {name: [] for name in ways}
    apart = []
    for turn, batch in enumerate(batches):
        norms = {}
        for name in sorted(ways, reverse=bool(turn % 2)):
            start = time.perf_counter()
            norms[name] = ways[name](batch)
            spent[name].append(time.perf_counter() - start)
        apart += [abs(one / other - 1) for one, other in zip(norms["pass"], norms["loop"], strict=True)]
    ratios = [loop / own for own, loop in zip(spent["pass"], spent["loop"], strict=True)]
    numbers = {
        "records": len(encoded),
        "tokens": sum(len(one.ids) for one in encoded),
        "batches": len(batches),
        "dimensions": dimensions,
        "threads": torch.get_num_threads(),
        "seconds_pass": round(sum(spent["pass"]), 2),
        "seconds_loop": round(sum(spent["loop"]), 2),
        "ratio": round(sum(spent["loop"]) / sum(spent["pass"]), 3),
        "ratio_of_batches": [round(one, 3) for one in (min(ratios), statistics.median(ratios), max(ratios))],
        "forwards_per_record": round(whole.get_total_flops() / forward.get_total_flops(), 3),
        "norms_differ_by": max(apart),
    }
    save("gradient_speed", numbers)


if __name__ == "__main__":
    main()
