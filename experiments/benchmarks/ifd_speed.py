"""Speed of IFD scoring against a plain per-sample loop, all in one run.

    python experiments/benchmarks/ifd_speed.py alpaca_data.json [records]

The rival is written as the published scripts work: one record at a time, fp32, a forward pass with all logits and the
loss masked to the answer, once with and once without the instruction. Winnow runs the same records through its passes,
cold store, start of the trainer and writing of Parquet included, in fp32 and in bf16. Loading the weights is left out
on both sides. The share of the GEMM peak is (matrix-product FLOPs that the records need) / (seconds) / (FLOP/s of a
large linear layer of the backbone's own width, measured in the same run).
"""

from __future__ import annotations

import sys
import tempfile
import time

import torch
from common import TRAINER, parts, save, scored

from winnow.config import build
from winnow.scoring.runner import PassRunner
from winnow.store.artifacts import Store


@torch.no_grad()
def per_sample(backbone, template, records) -> list[tuple[float, float]]:
    """(conditioned loss, direct loss) of each record, the published way."""
    model, tokenizer, losses = backbone.model, backbone.tokenizer, []
    for record in records:
        pair = []
        for prompt in (template.render(record), template.direct):
            given = tokenizer(prompt + record.output, return_tensors="pt", truncation=True, max_length=512)
            ids = given["input_ids"].to(model.device)
            labels = ids.clone()
            labels[:, : len(tokenizer(prompt)["input_ids"])] = -100
            pair.append(model(ids, labels=labels).loss.item())
        losses.append(tuple(pair))
    return losses


def gemm_peak(width: int, dtype: torch.dtype, seconds: float = 3.0, device: str = "cpu") -> float:
    """FLOP/s of a (2048, width) x (width, 4 width) linear layer."""
    rows = torch.randn(2048, width, dtype=dtype, device=device)
    weight = torch.randn(4 * width, width, dtype=dtype, device=device)

    def product() -> None:
        torch.nn.functional.linear(rows, weight)
        if device == "cuda":
            torch.cuda.synchronize()

    for _ in range(3):
        product()
    start, done = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        product()
        done += 1
    return done * 2 * 2048 * width * 4 * width / (time.perf_counter() - start)


def flops_needed(model, template, records, tokenizer) -> float:
    """Matrix products with weights for both views: 2 x weights per token, the head for scored tokens only."""
    head = model.get_output_embeddings().weight
    embedding = model.get_input_embeddings().weight
    body = sum(p.numel() for p in model.parameters() if p.dim() == 2 and p is not head and p is not embedding)
    total = 0.0
    for view in ("clean", "direct"):
        for record in template.encode(records, tokenizer, view):
            scored = len(record.ids) - record.answer_start
            total += 2 * body * len(record.ids) + 2 * head.numel() * scored
    return total


def main() -> None:
    pool, count = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 200
    # A few records more, so that the count holds after those without an answer are left out.
    records = [r for r in build("data/file", source=pool, limit=count + 20).records if r.output][:count]
    numbers: dict = {"records": len(records), "threads": torch.get_num_threads()}
    for dtype in ("fp32", "bf16"):
        _, source, template = parts(f"backbone.dtype={dtype}")
        backbone = source.load()
        source.load = lambda loaded=backbone: loaded
        if dtype == "fp32":
            # The rival keeps transformers' default attention, as the published scripts do.
            _, stock, _ = parts("backbone.attn_implementation=sdpa")
            plain = stock.load()
            per_sample(plain, template, records[:5])  # warm-up
            start = time.perf_counter()
            per_sample(plain, template, records)
            rival = time.perf_counter() - start
            numbers["per_sample_fp32_seconds"] = round(rival, 2)
        with tempfile.TemporaryDirectory() as store:
            runner = PassRunner(source, Store(store), TRAINER)
            start = time.perf_counter()
            scored(build("method/ifd"), runner, records, template)
            own = time.perf_counter() - start
        peak = gemm_peak(backbone.model.config.hidden_size, next(backbone.model.parameters()).dtype)
        need = flops_needed(backbone.model, template, records, backbone.tokenizer)
        numbers[dtype] = {
            "seconds": round(own, 2),
            "records_per_second": round(len(records) / own, 2),
            "times_faster_than_per_sample_fp32": round(rival / own, 2),
            "gemm_peak_gflops": round(peak / 1e9),
            "share_of_gemm_peak": round(need / own / peak, 3),
        }
    save("ifd_speed", numbers)


if __name__ == "__main__":
    main()
