"""torch's fused cross-entropy and `torch.compile` against the code as it is, in one process on one thread.

    OMP_NUM_THREADS=1 python experiments/benchmarks/torch_speed.py alpaca_data.json cross_entropy|compile [rounds]

Seconds are those of the processor, of child processes too, so that other work on the machine counts little; the ways
take turns in an order that changes each round. cross_entropy: `winnow.backbone.likelihood.token_nll` (256 rows of
logits at once, computed again in the backward pass), `torch.nn.functional.linear_cross_entropy` with the same chunks,
and all logits at once, each on 512 rows of hidden states of the packaged backbone: losses of single tokens without
gradients, as scoring has them, and the mean with the gradient of the hidden states, as tuning adapters has it. Memory
is the peak of a forked process above what it held before. compile: the decoder in bf16 on the likelihood pass's
batches of 20 records (512 tokens), its blocks compiled; they share one code, and shapes differ from batch to batch, so
`dynamic=True`. The first round, which compiles, is told apart.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable

import torch
from common import parts, reset_peak, resident_mib, save
from torch import Tensor
from torch.nn.functional import cross_entropy, linear_cross_entropy

from winnow.backbone.causal_model import CausalModel
from winnow.backbone.likelihood import CHUNK_ROWS, token_nll
from winnow.config import build
from winnow.data.batching import pad_right, token_budget_batches

ROWS = 512
WAYS = ("ours", "fused", "whole")
OPTIONS = torch.nn.LinearCrossEntropyOptions(chunking_method=None, batch_chunk_size=CHUNK_ROWS)


def processor() -> float:
    return sum(os.times()[:4])


def setup(dtype: str) -> tuple[CausalModel, Tensor, Tensor]:
    """(the backbone, rows of hidden states, their targets)."""
    causal = CausalModel(parts(f"backbone.dtype={dtype}")[1].load().model.eval().requires_grad_(False))
    ids = torch.randint(0, causal.config.vocab_size, (8, ROWS // 8), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return causal, causal.hidden(input_ids=ids).flatten(0, 1), ids.flatten()


def losses(causal: CausalModel, way: str, rows: Tensor, targets: Tensor, reduction: str) -> Tensor:
    if way == "ours":
        found = token_nll(rows, causal.logits, targets)
        return found.mean() if reduction == "mean" else found
    if way == "whole":
        return cross_entropy(causal.logits(rows).float(), targets, reduction=reduction)
    return linear_cross_entropy(rows, causal.head.weight, targets, reduction=reduction, options=OPTIONS)


def work(causal: CausalModel, way: str, rows: Tensor, targets: Tensor, task: str) -> Tensor:
    if task == "score":
        with torch.no_grad():
            return losses(causal, way, rows, targets, "none")
    rows = rows.clone().requires_grad_()
    losses(causal, way, rows, targets, "mean").backward()
    assert rows.grad is not None
    return rows.grad


def heads(rounds: int) -> dict:
    found: dict = {}
    for dtype in ("fp32", "bf16"):
        given = setup(dtype)
        for task in ("score", "train"):
            spent: dict[str, list[float]] = {way: [] for way in WAYS}
            results = {}
            for turn in range(rounds + 1):
                for way in WAYS[turn % 3 :] + WAYS[: turn % 3]:
                    start = processor()
                    results[way] = work(given[0], way, *given[1:], task).float()
                    spent[way].append(processor() - start)
            row: dict = {}
            for way in WAYS:
                ratios = [own / ours for own, ours in zip(spent[way][1:], spent["ours"][1:], strict=True)]
                row[way] = {
                    "seconds": round(statistics.median(spent[way][1:]), 3),
                    "ratio": [round(one, 3) for one in (statistics.median(ratios), min(ratios), max(ratios))],
                    "memory_mb": forked(memory, given, task, way),
                    "apart": float((results[way] - results["whole"]).norm() / results["whole"].norm()),
                }
            found[f"{dtype} {task}"] = row
    return found


def memory(given: tuple, task: str, way: str) -> int:
    """Peak in MB above what is held before."""
    reset_peak()
    held = resident_mib("VmRSS")
    work(given[0], way, *given[1:], task)
    return round(resident_mib("VmHWM") - held)


def forked(measure: Callable[..., int], *given) -> int:
    """Its number, from a process that has what this one has."""
    ours, theirs = multiprocessing.Pipe(duplex=False)
    child = multiprocessing.get_context("fork").Process(target=lambda: theirs.send(measure(*given)))
    child.start()
    found = ours.recv()
    child.join()
    return found


@torch.no_grad()
def compiled(pool: str, rounds: int) -> dict:
    causal, _, _ = setup("bf16")
    _, source, template = parts()
    rows = [e.ids for e in template.encode(build("data/file", source=pool, limit=20).records, source.tokenizer)]
    batches = [
        torch.tensor(pad_right([rows[i] for i in batch], 0))
        for batch in token_budget_batches([len(row) for row in rows], 512)
    ]
    for block in causal.blocks:
        block.compile(dynamic=True)
    ways = {"eager": "force_eager", "compiled": "default"}
    start, wall = processor(), time.perf_counter()
    for batch in batches:
        causal.body(input_ids=batch, use_cache=False)
    first = processor() - start, time.perf_counter() - wall
    print("compiled", first, file=sys.stderr, flush=True)
    spent: dict[str, list[float]] = {name: [] for name in ways}
    apart = 0.0
    for turn in range(rounds):
        sums = dict.fromkeys(ways, 0.0)
        for number, batch in enumerate(batches):
            states = {}
            for name in sorted(ways, reverse=bool((turn + number) % 2)):
                start = processor()
                with torch.compiler.set_stance(ways[name]):
                    states[name] = causal.body(input_ids=batch, use_cache=False)[0].float()
                sums[name] += processor() - start
            apart = max(apart, float((states["eager"] - states["compiled"]).norm() / states["eager"].norm()))
        for name, seconds in sums.items():
            spent[name].append(seconds)
    ratios = [own / eager for own, eager in zip(spent["compiled"], spent["eager"], strict=True)]
    means = {name: statistics.mean(seconds) for name, seconds in spent.items()}
    extra, gain = first[0] - means["compiled"], means["eager"] - means["compiled"]
    return {
        "batches": len(batches),
        "records": len(rows),
        "tokens_computed": sum(batch.numel() for batch in batches),
        "seconds_eager": round(means["eager"], 2),
        "seconds_compiled": round(means["compiled"], 2),
        "ratio": [round(one, 3) for one in (statistics.median(ratios), min(ratios), max(ratios))],
        "seconds_compiling": round(extra, 1),
        "seconds_first_round_by_the_clock": round(first[1], 1),
        "records_until_it_pays": round(extra / gain * len(rows)) if gain > 0 else None,
        "states_apart": apart,
    }


def main() -> None:
    pool, part, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 2
    numbers: dict = {"rounds": rounds, "threads": torch.get_num_threads()}
    numbers |= heads(rounds) if part == "cross_entropy" else compiled(pool, rounds)
    save(f"torch_speed_{part}", numbers)


if __name__ == "__main__":
    main()
