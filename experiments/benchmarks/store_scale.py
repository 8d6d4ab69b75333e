"""Time and memory of a pass's columns in the store: writing them all, asking for a tenth of the records by id.

    python experiments/benchmarks/store_scale.py                    # 10,000, 100,000 and 1,000,000 records
    python experiments/benchmarks/store_scale.py --sizes 10000 --scored 20

A record has 20 to 100 losses, as an answer of so many tokens, and a vector of 576 half-precision numbers, as wide as
the packaged backbone's. Parts of 2,000 rows are written, as a pass on a GPU flushes them, and merged when the pass
ends. Each step runs in a process of its own. Extra memory is its peak resident memory, less what is resident before;
from /proc, so Linux only. `missing` and `read`, without the vectors, are what a pool does whose records are all there;
`vectors` is what a method does that asks for them. `checksums`: the share of it that goes into hashing. Seconds are
those of the processor.

At last IFD's two passes score `--scored` embedded records with the packaged backbone, from an empty store: what share
of the time goes into checksums, of the columns and of the unpacked backbone.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
from common import TRAINER, apart, parts, reset_peak, resident_mib, save
from hydra.utils import instantiate

from winnow.scoring.passes.likelihood import Likelihood
from winnow.scoring.runner import PassRunner
from winnow.store import columns as store_columns
from winnow.store import files
from winnow.store.artifacts import Store
from winnow.store.columns import Columns

PART, WIDTH = 2000, 576
OWN = {"id": pa.string(), "nll": pa.list_(pa.float32()), "flag": pa.string()}
SCHEMA = pa.schema(OWN | {"vector": pa.list_(pa.float16())})


def record_ids(n: int) -> list[str]:
    return [hashlib.sha256(str(i).encode()).hexdigest()[:16] for i in range(n)]


def append(columns: Columns, ids: list[str]) -> None:
    draw = np.random.default_rng(0)
    with columns.claim(ids) as missing:
        for start in range(0, len(missing), PART):
            some = missing[start : start + PART]
            ends = np.concatenate([[0], np.cumsum(draw.integers(20, 101, len(some)))]).astype(np.int32)
            losses = pa.ListArray.from_arrays(ends, draw.random(ends[-1], np.float32))
            ends = np.arange(0, len(some) * WIDTH + 1, WIDTH, np.int32)
            vectors = pa.ListArray.from_arrays(ends, draw.random(ends[-1], np.float32).astype(np.float16))
            columns.append(pa.table([some, losses, pa.nulls(len(some), pa.string()), vectors], schema=SCHEMA))
        columns.finish()


def timed(owner, name: str) -> list[float]:
    """Seconds of each later call of `owner.name`."""
    real, seconds = getattr(owner, name), []

    def call(*given):
        begin = time.process_time()
        try:
            return real(*given)
        finally:
            seconds.append(time.process_time() - begin)

    setattr(owner, name, call)
    return seconds


def measure(folder: str, step: str, n: int) -> dict:
    """One step, in this process."""
    columns, ids = Columns(Store(folder), "passes", {"records": n}, SCHEMA), record_ids(n)
    tenth = [ids[i] for i in np.random.default_rng(1).permutation(n)[: n // 10]]
    if step != "append":
        del ids
    hashing = timed(store_columns, "_name")
    reset_peak()
    before, begin = resident_mib("VmHWM"), time.process_time()
    if step == "append":
        append(columns, ids)
    elif step == "missing":
        assert columns.missing(tenth) == []
    else:
        assert len(columns.read(tenth, OWN if step == "read" else ["id", "vector"])) == n // 10
    numbers = {"seconds": round(time.process_time() - begin, 2), "extra_mib": round(resident_mib("VmHWM") - before)}
    if step == "append":
        found = list((columns.path / "parts").iterdir())
        return numbers | {"parts": len(found), "mib": round(sum(file.stat().st_size for file in found) / 2**20)}
    return numbers | {"checksums": round(sum(hashing) / numbers["seconds"], 2) if numbers["seconds"] else None}


def scoring(records: int) -> dict:
    """Seconds of two likelihood passes over embedded records, loading included, and of the checksums among them."""
    cfg, source, template = parts(f"data.limit={records}")
    pool = instantiate(cfg.data).records
    assert source.folder  # unpacked, so that unpacking is no part of it
    files._sound.clear()
    hashing = [timed(files, "_checksum"), timed(store_columns, "_name")]
    with tempfile.TemporaryDirectory() as folder:
        begin = time.process_time()
        files.damage(Path(source.folder))
        runner = PassRunner(source, Store(folder), TRAINER)
        for view in ("clean", "direct"):
            runner.compute(Likelihood(view), pool, template)
        seconds = time.process_time() - begin
    backbone, columns = (sum(calls) for calls in hashing)
    return {
        "records": len(pool),
        "seconds": round(seconds, 1),
        "backbone_checksums": round(backbone, 3),
        "columns_checksums": round(columns, 5),
        "share": round((backbone + columns) / seconds, 5),
    }


def main() -> None:
    command = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    command.add_argument("--sizes", type=int, nargs="*", default=[10_000, 100_000, 1_000_000])
    command.add_argument("--scored", type=int, default=100)
    command.add_argument("--one", nargs=3, help=argparse.SUPPRESS)  # folder, step and size, in a process of its own
    asked = command.parse_args()
    if asked.one:
        print(json.dumps(measure(asked.one[0], asked.one[1], int(asked.one[2]))))
        return
    numbers: dict = {}
    for n in asked.sizes:
        numbers[n] = {}
        with tempfile.TemporaryDirectory() as folder:
            for step in ("append", "missing", "read", "vectors"):
                numbers[n][step] = apart("--one", folder, step, n)
                print(n, step, numbers[n][step], flush=True)
    save("store_scale", {"sizes": numbers, "scoring": scoring(asked.scored)})


if __name__ == "__main__":
    main()
