"""Attacked prompts per second, per attack, with search=random, from one process and from two.

    python experiments/benchmarks/attack_speed.py alpaca_data.json [records]

Cold store; writing Parquet and measuring similarity and edit distance are in the time. So that the rate is that of a
long run, importing TextAttack and loading the models, once per process, are not: every process first attacks a few
other records. Beside the rate: the audit, and how many prompts differ between the two runs.
"""

from __future__ import annotations

import sys
import tempfile
import time

from common import parts, save
from hydra.utils import instantiate

from winnow.config import build
from winnow.perturb.attacks.audit import audit
from winnow.perturb.attacks.prompts import CHUNK, attacked_prompts, worker_pool
from winnow.store.artifacts import Store

PROCESSES = (1, 2)


def main() -> None:
    pool_file, count = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 500
    cfg, _, _ = parts()
    attacks = instantiate(cfg.attack.use)
    warm = 8 * CHUNK  # enough chunks for each process to get some
    records = build("data/file", source=pool_file, limit=count + warm).records
    warm_up, records = records[:warm], records[warm:]
    found: dict = {"records": len(records), "prompts_per_second": {}}
    tables: dict = {}
    for processes in PROCESSES:
        rates, tables[processes] = {}, {}
        with worker_pool(processes) as pool, tempfile.TemporaryDirectory() as folder:
            for name, attack in attacks.items():
                attacked_prompts(attack, warm_up, Store(folder), progress=False, pool=pool)
                start = time.perf_counter()
                tables[processes][name] = attacked_prompts(attack, records, Store(folder), progress=False, pool=pool)
                rates[name] = round(len(records) / (time.perf_counter() - start), 2)
                print(processes, name, rates[name], flush=True)
        found["prompts_per_second"][str(processes)] = rates
    one, two = (tables[processes] for processes in PROCESSES)
    found["prompts_that_differ_between_processes"] = sum(
        a != b for name in attacks for a, b in zip(one[name].prompts(), two[name].prompts(), strict=True)
    )
    found |= audit(one)
    save("attack_speed", found)


if __name__ == "__main__":
    main()
