"""Speed and memory of noise-injection consistency against a plain per-sample loop, and bf16 against fp32.

    python experiments/benchmarks/noise_speed.py alpaca_data.json [records]

The rival follows eq. 3 word by word: one record at a time, fp32, for each of the three draws a clean and a noisy
forward pass with all logits. It uses the same noise, so the scores of both sides can be compared. Winnow runs the pass
with a cold store, start of the trainer and writing of Parquet included. Loading the weights is left out of the time on
both sides. Each side runs in a process of its own, one after the other, so that its peak memory is its own; `work` is
the peak above the highest that loading the weights had reached.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time

import numpy as np
import torch
from common import TRAINER, apart, correlation, parts, resident_mib, save, scored

from winnow.config import build
from winnow.perturb.embedding_noise import add_noise, embedding_noise
from winnow.scoring.price import Meter
from winnow.scoring.runner import PassRunner
from winnow.store.artifacts import Store

SIDES = ("per_sample_fp32", "winnow_fp32", "winnow_bf16")
DRAWS, BETA = 3, 10.0


@torch.no_grad()
def per_sample(backbone, template, records) -> list[float]:
    """The mean KL of each record over the draws, six forward passes with all logits."""
    model, scores = backbone.model, []
    for record, encoded in zip(records, template.encode(records, backbone.tokenizer), strict=True):
        ids = torch.tensor([encoded.ids], device=model.device)
        words = [k for span in sorted(encoded.spans.values()) for k in range(*span)]
        values = []
        for draw in range(DRAWS):
            embeds = model.get_input_embeddings()(ids)
            embeds[0, words] = add_noise(embeds[0, words], embedding_noise(embeds[0, words], record.id, draw), BETA)
            log_p = model(input_ids=ids).logits[0, :-1].log_softmax(-1)
            log_q = model(inputs_embeds=embeds).logits[0, :-1].log_softmax(-1)
            values.append((log_p.exp() * (log_p - log_q)).sum(-1).mean().item())
        scores.append(float(np.mean(values)))
    return scores


def winnow(source, template, records) -> list[float]:
    """The same scores through the pass."""
    method = build("method/consistency", beta=BETA, draws=DRAWS)
    with tempfile.TemporaryDirectory() as store:
        runner = PassRunner(source, Store(store), TRAINER)
        return scored(method, runner, records, template).score.tolist()


def one_side(side: str, pool: str, count: int) -> dict:
    """Time, memory and scores of one side, in this process."""
    _, source, template = parts(f"backbone.dtype={side[-4:]}")
    # A few records more, so that the count holds after those that cannot be scored are left out.
    candidates = build("data/file", source=pool, limit=count + 30).records
    usable = [not (encoded.flag or not encoded.spans) for encoded in template.encode(candidates, source.tokenizer)]
    records = [record for record, ok in zip(candidates, usable, strict=True) if ok][:count]
    backbone = source.load()
    source.load = lambda: backbone
    meter, loaded = Meter(backbone.model, encoder=False), resident_mib("VmHWM")
    meter.open()
    start = time.perf_counter()
    plain = side == "per_sample_fp32"
    scores = per_sample(backbone, template, records) if plain else winnow(source, template, records)
    seconds = time.perf_counter() - start
    return {
        "records": len(records),
        "seconds": round(seconds, 2),
        "records_per_second": round(len(records) / seconds, 3),
        "forwards_per_record": round(meter.counts["forwards"] / len(records), 3),
        "tokens_run_per_record": round(meter.counts["tokens"] / len(records), 1),
        "peak_mb": round(resident_mib("VmHWM")),
        "loaded_mb": round(loaded),
        "work_mb": round(resident_mib("VmHWM") - loaded),
        "threads": torch.get_num_threads(),
        "scores": scores,
    }


def main() -> None:
    pool, count = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 300
    if len(sys.argv) > 3:
        print(json.dumps(one_side(sys.argv[3], pool, count)))
        return
    found = {side: apart(pool, count, side) for side in SIDES}
    scores = {side: np.array(found[side].pop("scores")) for side in SIDES}
    rival, own, half = (scores[side] for side in SIDES)
    best = [set(np.argsort(values)[: len(values) // 10].tolist()) for values in (own, half)]
    numbers = found | {
        "times_faster_fp32": round(found[SIDES[0]]["seconds"] / found[SIDES[1]]["seconds"], 2),
        "times_faster_bf16": round(found[SIDES[0]]["seconds"] / found[SIDES[2]]["seconds"], 2),
        "largest_difference_to_per_sample": float(np.abs(rival - own).max()),
        "bf16_spearman": correlation(own, half, 5),
        "bf16_best_10_percent_in_common": round(len(best[0] & best[1]) / max(len(best[0]), 1), 3),
    }
    save("noise_speed", numbers)


if __name__ == "__main__":
    main()
