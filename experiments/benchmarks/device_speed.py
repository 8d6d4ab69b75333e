"""Throughput of every pass, of sampling and of every adversary on this machine's device, for a model of a given shape.

    python experiments/benchmarks/device_speed.py POOL SHAPE [RECORDS] [ROUNDS]

Weights need not be learnt to be as fast: a Llama of SHAPE (`llama3_8b`, `llama3_1b`, `smollm2_135m`, `tiny`) has random
ones, in bf16, and the packaged tokenizer. All settings are defaults, `scoring.tokens_per_batch=auto` among them.

The rival of likelihood and noise reads one record at a time, as the published scripts do, with all logits, on the same
weights in the same dtype; it has a tenth of the records, and sampling a quarter. The weights are on the GPU from the
start. The share of the GEMM rate, for likelihood, is (matrix-product FLOPs that the records need)
/ (seconds) / (FLOP/s of a linear layer as wide as the model's own, measured in the same run). The step of an adversary
is that of `adversary_cost.py`. Likelihoods in fp32 and bf16 are compared over the rival's records. Memory is the
device's peak, on a GPU only. Random weights seldom end an answer, so that all sampled answers are as long as allowed.
"""

from __future__ import annotations

import copy
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import adversary_cost
import numpy as np
import torch
from common import parts, save
from ifd_speed import flops_needed, gemm_peak, per_sample
from noise_speed import per_sample as per_sample_noise
from transformers import LlamaConfig, LlamaForCausalLM

from winnow.backbone.loading import Backbone
from winnow.config import build
from winnow.scoring.runner import PassRunner
from winnow.store.artifacts import Store
from winnow.trainer import device_of

SHAPES = {
    "llama3_8b": (4096, 14336, 32, 32, 8, 128256),
    "llama3_1b": (2048, 8192, 16, 32, 8, 128256),
    "smollm2_135m": (576, 1536, 30, 9, 3, 49152),
    "tiny": (64, 128, 4, 4, 2, 49152),
}
METHODS = {"likelihood": "ifd", "noise": "consistency", "sampling": "adg", "gradient": "gradnorm", "embedding": "rds"}
ANSWER_TOKENS = 256  # of a sampled answer, at most


def random_llama(shape: str, dtype: torch.dtype, device: str) -> LlamaForCausalLM:
    width, inner, layers, heads, keys, words = SHAPES[shape]
    config = LlamaConfig(
        vocab_size=words,
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=keys,
        max_position_embeddings=8192,
        attn_implementation="sdpa",
        dtype=dtype,
    )
    torch.manual_seed(0)
    with torch.device(device):
        return LlamaForCausalLM(config).to(dtype).eval().requires_grad_(False)


def timed(work: Callable[[], Any], device: str) -> tuple[float, Any, float | None]:
    """(seconds, result, peak in GB of the GPU's memory)."""
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    result = work()
    if device == "cuda":
        torch.cuda.synchronize()
    peak = round(torch.cuda.max_memory_allocated() / 1e9, 2) if device == "cuda" else None
    return time.perf_counter() - start, result, peak


def passes(source, template, records: list, settings: dict) -> dict[str, dict]:
    """Of each kind of pass, with a store of its own."""
    device, found = device_of(settings), {}
    for kind, name in METHODS.items():
        own = records[: max(len(records) // 4, 2)] if kind == "sampling" else records
        method = build(f"method/{name}", **({"max_new_tokens": ANSWER_TOKENS} if kind == "sampling" else {}))
        with tempfile.TemporaryDirectory() as folder:
            runner = PassRunner(source, Store(f"{folder}/warm-up"), settings, tokens_per_batch="auto")
            if method.preparation is not None:
                runner = runner.over(method.preparation.prepare(runner, records, template)[0])
            runner.compute(next(iter(method.passes.values())), own[:8], template)
            runner.store = Store(f"{folder}/own")  # nothing of the warm-up is there

            def work(runner=runner, method=method, own=own) -> None:
                for pass_ in method.passes.values():
                    runner.compute(pass_, own, template)

            seconds, _, peak = timed(work, device)
        found[kind] = {
            "passes": len(method.passes),
            "seconds": round(seconds, 3),
            "records_per_second": round(len(own) / seconds, 2),
            "peak_gb": peak,
        }
    return found


def losses(model, source, template, records: list, settings: dict) -> np.ndarray:
    """Mean loss of each answer, in nats."""
    source.load = lambda: Backbone(model, source.tokenizer, source.identity, source.name)
    with tempfile.TemporaryDirectory() as folder:
        runner = PassRunner(source, Store(folder), settings, tokens_per_batch="auto")
        pass_ = next(iter(build("method/perplexity").passes.values()))
        values, offsets = runner.compute(pass_, records, template).ragged("nll")
    return np.array([own.mean() for own in np.split(values, offsets[1:-1])])


def main() -> None:
    pool, shape = sys.argv[1:3]
    count, rounds = (int(one) for one in [*sys.argv[3:], *("500", "3")[len(sys.argv) - 3 :]])
    settings = {"accelerator": "auto", "devices": 1, "enable_progress_bar": False}
    device = device_of(settings)
    _, source, template = parts("backbone.dtype=bf16")
    candidates = build("data/file", source=pool, limit=count + 30).records
    usable = [one.flag is None and bool(one.spans) for one in template.encode(candidates, source.tokenizer)]
    records = [record for record, ok in zip(candidates, usable, strict=True) if ok][:count]
    few = records[: max(len(records) // 10, 2)]
    model = random_llama(shape, torch.bfloat16, device)
    backbone = Backbone(model, source.tokenizer, source.identity, source.name)
    source.load = lambda: backbone
    rate = gemm_peak(SHAPES[shape][0], torch.bfloat16, seconds=1.0, device=device)
    found = passes(source, template, records, settings)
    rivals = {"likelihood": per_sample, "noise": per_sample_noise}
    for kind, rival in rivals.items():
        rival(backbone, template, few[:2])  # warm-up
        seconds, _, _ = timed(lambda rival=rival: rival(backbone, template, few), device)
        found[kind]["times_faster_than_per_sample"] = round(
            seconds / len(few) / (found[kind]["seconds"] / len(records)), 2
        )
    needed = flops_needed(model, template, records, source.tokenizer)
    found["likelihood"]["share_of_gemm_rate"] = round(needed / found["likelihood"]["seconds"] / rate, 3)
    half = losses(model, source, template, few, settings)
    exact = losses(copy.deepcopy(model).float(), source, template, few, settings)
    numbers = {
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "shape": shape,
        "records": len(records),
        "threads": torch.get_num_threads(),
        "gemm_tflops": round(rate / 1e12, 2),
        "passes": found,
        "adversaries": adversary_cost.times(pool, "bf16", rounds, model),
        "bf16_against_fp32": {"largest_relative_difference": float(np.max(np.abs(half / exact - 1)))},
    }
    save(f"device_speed_{shape}_{device}", numbers)


if __name__ == "__main__":
    main()
