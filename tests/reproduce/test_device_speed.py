"""The benchmark for a device runs on a CPU too, with a tiny model; its figures there say nothing."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import pytest

from winnow.config import build

BENCHMARKS = Path(__file__).parents[2] / "experiments" / "benchmarks"


@pytest.mark.slow
def test_every_pass_and_adversary_has_its_figures(tmp_path, monkeypatch):
    """All figures are there and above 0. Losses in fp32 and bf16 differ by less than 1%: with random weights an answer
    token costs about ln 49152 = 10.8 nats, of which bf16 keeps 8 bits."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    import device_speed

    pool = tmp_path / "pool.json"
    records = build("data/embedded").records
    rows = [{"instruction": one.instruction, "input": one.input, "output": one.output} for one in records]
    pool.write_text(json.dumps(sorted(rows, key=lambda row: len("".join(row.values())))[:20]), encoding="utf-8")
    for name, small in (("WINDOW", 100), ("MICRO_BATCH", 2)):
        monkeypatch.setattr(device_speed.adversary_cost, name, small)
    monkeypatch.setattr(device_speed, "ANSWER_TOKENS", 2)
    peak = device_speed.gemm_peak
    monkeypatch.setattr(device_speed, "gemm_peak", lambda *given, **named: peak(*given, **named | {"seconds": 0.05}))
    saved = {}
    monkeypatch.setattr(device_speed, "save", lambda name, numbers: saved.update({name: numbers}))
    monkeypatch.setattr(sys, "argv", ["device_speed.py", str(pool), "tiny", "4", "1"])
    device_speed.main()
    (numbers,) = saved.values()
    assert set(numbers["passes"]) == set(device_speed.METHODS)
    assert all(one["records_per_second"] > 0 for one in numbers["passes"].values())
    likelihood = numbers["passes"]["likelihood"]
    assert likelihood["times_faster_than_per_sample"] > 0 and 0 < likelihood["share_of_gemm_rate"] < 1
    assert set(numbers["adversaries"]) == set(device_speed.adversary_cost.ROWS)
    assert all(one["ratio"] > 0 and math.isfinite(one["seconds"]) for one in numbers["adversaries"].values())
    assert 0 < numbers["bf16_against_fp32"]["largest_relative_difference"] < 0.01
