"""Speed and memory of sampling answers with their vectors against the plain way, and bf16.

    python experiments/benchmarks/adg_speed.py alpaca_data.json [records] [max_new_tokens]

The rival takes one record at a time: `model.generate` with `num_return_sequences=5` at temperature 1.4 and top-p 0.9
(the library's default of top-k 50 turned off, so that both sides draw from one distribution), then one forward pass per
answer over prompt and answer with all hidden states, from which the same vector is made. Winnow runs the pass with a
cold store, start of the trainer and writing of Parquet included. Loading the weights is left out of the time on both
sides. The draws differ, and with them the lengths of the answers: compare tokens per second as well as answers per
second. Each side runs in a process of its own, one after the other; `work` is the peak of memory above the highest that
loading the weights had reached.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time

import torch
from common import TRAINER, apart, parts, resident_mib, save

from winnow.backbone.causal_model import CausalModel
from winnow.backbone.generation import LAST_FOUR
from winnow.config import build
from winnow.scoring.runner import PassRunner
from winnow.store.artifacts import Store

SIDES = ("plain_fp32", "winnow_fp32", "winnow_bf16")
ANSWERS, TEMPERATURE, TOP_P = 5, 1.4, 0.9


class Counter:
    """Calls of the transformer body, rows of single tokens (decoding) and other tokens (prompts, encodes)."""

    def __init__(self, model) -> None:
        self.calls = self.decoded = self.read = 0
        CausalModel(model).body.register_forward_pre_hook(self._count, with_kwargs=True)

    def _count(self, module, args, given) -> None:
        rows, length = given["input_ids"].shape
        self.calls += 1
        if length == 1:
            self.decoded += rows
        else:
            self.read += rows * length


@torch.no_grad()
def plain(backbone, template, records, limit: int) -> list[int]:
    """Tokens of each answer, one record at a time."""
    model, counts = backbone.model, []
    torch.manual_seed(0)
    for encoded in template.encode(records, backbone.tokenizer):
        prompt = encoded.ids[: encoded.answer_start]
        ids = torch.tensor([prompt])
        made = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=True,
            temperature=TEMPERATURE,
            top_p=TOP_P,
            top_k=0,
            num_return_sequences=ANSWERS,
            max_new_tokens=limit,
            pad_token_id=backbone.tokenizer.pad_token_id,
        )
        for row in made[:, len(prompt) :].tolist():
            end = backbone.tokenizer.eos_token_id
            answer = row[: row.index(end)] if end in row else row
            counts.append(len(answer))
            if answer:
                states = model(input_ids=torch.tensor([prompt + answer]), output_hidden_states=True).hidden_states
                torch.stack([states[layer][0, len(prompt) :] for layer in LAST_FOUR]).mean((0, 1))
    return counts


def winnow(source, template, records, limit: int) -> list[int]:
    """The same through the pass."""
    with tempfile.TemporaryDirectory() as store:
        pass_ = build(
            "method/adg", answers=ANSWERS, temperature=TEMPERATURE, top_p=TOP_P, max_new_tokens=limit
        ).sampling
        table = PassRunner(source, Store(store), TRAINER).compute(pass_, records, template)
        return [count for counts in table.column("tokens").to_pylist() for count in counts]


def one_side(side: str, pool: str, count: int, limit: int) -> dict:
    """Time and memory of one side, in this process."""
    _, source, template = parts(f"backbone.dtype={side[-4:]}")
    # A few records more, so that the count holds after those that cannot be asked are left out.
    candidates = build("data/file", source=pool, limit=count + 30).records
    asked = build("method/adg").sampling.encode(candidates, template, source.tokenizer)
    records = [record for record, one in zip(candidates, asked, strict=True) if one.flag is None][:count]
    backbone = source.load()
    source.load = lambda: backbone
    counter, loaded, start = Counter(backbone.model), resident_mib("VmHWM"), time.perf_counter()
    if side == "plain_fp32":
        tokens = plain(backbone, template, records, limit)
    else:
        tokens = winnow(source, template, records, limit)
    seconds = time.perf_counter() - start
    return {
        "answers": len(tokens),
        "answer_tokens": sum(tokens),
        "seconds": round(seconds, 2),
        "answers_per_second": round(len(tokens) / seconds, 3),
        "tokens_per_second": round(sum(tokens) / seconds, 1),
        "forward_calls": counter.calls,
        "rows_decoded": counter.decoded,
        "tokens_read": counter.read,
        "peak_mb": round(resident_mib("VmHWM")),
        "loaded_mb": round(loaded),
        "work_mb": round(resident_mib("VmHWM") - loaded),
        "threads": torch.get_num_threads(),
    }


def main() -> None:
    pool, count, limit = sys.argv[1], *(int(value) for value in (sys.argv[2:4] + ["40", "128"][len(sys.argv[2:4]) :]))
    if len(sys.argv) > 4:
        print(json.dumps(one_side(sys.argv[4], pool, count, limit)))
        return
    found = {side: apart(pool, count, limit, side) for side in SIDES}
    rival, own, half = (found[side] for side in SIDES)
    numbers = {"records": rival["answers"] // ANSWERS, "max_new_tokens": limit} | found
    for name, side in (("fp32", own), ("bf16", half)):
        numbers[f"times_more_answers_per_second_{name}"] = round(
            side["answers_per_second"] / rival["answers_per_second"], 2
        )
        numbers[f"times_more_tokens_per_second_{name}"] = round(
            side["tokens_per_second"] / rival["tokens_per_second"], 2
        )
    numbers["forward_calls_saved"] = round(1 - own["forward_calls"] / rival["forward_calls"], 4)
    numbers["tokens_read_saved"] = round(1 - own["tokens_read"] / rival["tokens_read"], 4)
    save("adg_speed", numbers)


if __name__ == "__main__":
    main()
