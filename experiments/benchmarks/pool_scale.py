"""Time and memory of a large pool, without a model: reading, selecting, writing the subset, the report, the dashboard.

    python experiments/benchmarks/pool_scale.py                 # 10,000, 100,000 and 1,000,000 records
    python experiments/benchmarks/pool_scale.py --sizes 10000

Records are Alpaca's in shape: 5 to 40 words of instruction, an input in every third, 10 to 120 words of answer. Scores
are drawn at random; a tenth is selected. Each step runs in a process of its own on what the steps before it have left.
Memory is the most that is resident in the step, less what is before it: the records count in `read`, and are there
already in `select` and `report`. Seconds are those of the processor; from /proc, so Linux only.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from common import apart, reset_peak, resident_mib, save

from winnow.compare.dashboard import write_dashboard
from winnow.config import build
from winnow.data.writers import write_subset
from winnow.pages.report import write_report
from winnow.scoring.scores import Scores
from winnow.store.files import write_json

STEPS = ("read jsonl", "read parquet", "select", "subset", "report", "dashboard")
WORDS = np.array([f"word{i}" for i in range(5000)])


def write_pool(folder: Path, n: int) -> None:
    """`pool.jsonl` and `pool.parquet` with the same n records."""
    draw = np.random.default_rng(0)
    writer = None
    with (folder / "pool.jsonl").open("w", encoding="utf-8") as file:
        for start in range(0, n, 10_000):
            rows = []
            for i in range(start, min(start + 10_000, n)):
                asked, given, answer = draw.integers(5, 41), 20 if i % 3 == 0 else 0, draw.integers(10, 121)
                text = WORDS[draw.integers(0, len(WORDS), asked + given + answer)].tolist()
                parts = (text[:asked], text[asked : asked + given], text[asked + given :])
                rows.append(dict(zip(("instruction", "input", "output"), map(" ".join, parts), strict=True)))
            file.writelines(json.dumps(row) + "\n" for row in rows)
            table = pa.Table.from_pylist(rows)
            writer = writer or pyarrow.parquet.ParquetWriter(folder / "pool.parquet", table.schema)
            writer.write_table(table)
    writer.close()


def measure(folder: Path, step: str, n: int) -> dict:
    """One step, in this process."""
    run = folder / "run"
    format = step.removeprefix("read ") if step.startswith("read") else "jsonl"
    pool = build("data/file", path=str(folder / f"pool.{format}")) if step in ("select", "subset", "report") else None
    if step == "select":
        draw = np.random.default_rng(1)
        tokens = draw.integers(10, 120, n).astype(np.float64)
        scores = Scores(draw.random(n), [None] * n, {"answer_tokens": tokens}, True)
        table = scores.table(pool.records, {"method": "random"})
        run.mkdir()
        scores.write(table, run / "scores.parquet")
    reset_peak()
    before, begin = resident_mib("VmRSS"), time.process_time()
    if step.startswith("read"):
        pool = build("data/file", path=str(folder / f"pool.{format}"))
        assert len(pool.records) == n
    elif step == "select":
        chosen = build("selection/top", ratio=0.1).select(table, True)
        write_json(run / "selection.json", {"method": "random"} | chosen.manifest())
    elif step == "subset":
        write_subset(pool, list(range(0, n, 10)), run)
    elif step == "report":
        write_report(run, pool.records)
    else:
        write_json(run / "run_card.json", CARD)
        write_dashboard(folder)
    numbers = {"seconds": round(time.process_time() - begin, 2), "extra_mib": round(resident_mib("VmHWM") - before)}
    page = {"report": run / "report.html", "dashboard": folder / "dashboard.html"}.get(step)
    return numbers | ({} if page is None else {"page_mib": round(page.stat().st_size / 2**20, 2)})


# As much of a run card as the dashboard reads.
CARD = {
    "command": "python -m winnow",
    "started": "2026-01-01T12:00:00+00:00",
    "seconds": 1.0,
    "status": "finished",
    "error": None,
    "stages": {},
    "results": {},
    "git": None,
    "data": {"source": "pool.jsonl"},
    "config": {
        "method": {"name": "random"},
        "backbone": {"name": "none"},
        "selection": {"ratio": 0.1, "count": None},
        "seed": 0,
    },
}


def main() -> None:
    command = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    command.add_argument("--sizes", type=int, nargs="*", default=[10_000, 100_000, 1_000_000])
    command.add_argument("--one", nargs=3, help=argparse.SUPPRESS)  # folder, step and size, in a process of its own
    asked = command.parse_args()
    if asked.one:
        print(json.dumps(measure(Path(asked.one[0]), asked.one[1], int(asked.one[2]))))
        return
    numbers: dict = {}
    for n in asked.sizes:
        numbers[n] = {}
        with tempfile.TemporaryDirectory() as folder:
            write_pool(Path(folder), n)
            for step in STEPS:
                numbers[n][step] = apart("--one", folder, step, n)
                print(n, step, numbers[n][step], flush=True)
    save("pool_scale", {"sizes": numbers})


if __name__ == "__main__":
    main()
