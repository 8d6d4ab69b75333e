"""Held-out answers of pools: records that are not in the pool of the run, measured as the embedded suite's are.

`<pool>_answers/bits_per_byte` = -(sum of log2 p(answer | prompt)) / (sum of the answers' UTF-8 bytes). Low is good.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from winnow import draws
from winnow.data.records import Pool, Record
from winnow.errors import UserError
from winnow.evaluation.suite import Suite
from winnow.store.describe import Free


def heldout_suite(
    name: str,
    pools: Mapping[str, Pool],
    kinds: Mapping[str, str],
    besides: Pool,
    start: Pool | None,
    target: Pool | None,
    own: int,
    others: int,
    sample_seed: int,
    tasks: Sequence[Mapping[str, Any]],
    headline: Free[Sequence[str]],
    averages: Mapping[str, Sequence[str]],
    limit: int | None,
    batch_size: Free[int],
    mirror: Free[str | None],
    allow_code_execution: bool,
    chat_template: bool,
    seed: int,
    bootstrap_iters: int,
) -> Suite:
    """A suite of a task `<pool>_answers` for each pool, and `tasks` of the harness besides.

    pools: name -> records to draw from. kinds: pool -> a column of its rows: the pool becomes one for each of the
    column's values, `<pool>_<value>`, without the rows that have none. besides: the pool of the run; start: that of its
    start; target: that of its method. None of their records is drawn. own, others: records of the pool that has its
    source, of each other one. sample_seed: of the draw, together with the record. headline: of the further tasks,
    behind the bits per byte of the run's own kind and the others. Other arguments: see `Suite`.

    Raises UserError where a pool is unknown or has too few records.
    """
    for key, column in kinds.items():
        if key not in pools:
            raise UserError(f"evaluation.kinds names {key!r}, which is no pool: choose from {', '.join(pools)}.")
        pools = {name: pool for name, pool in pools.items() if name != key} | by_kind(key, pools[key], column)
    taken = {record.id for pool in (besides, start, target) if pool is not None for record in pool.records}
    of_its_kind = sorted(pools, key=lambda key: pools[key].source != besides.source)
    records = {
        f"{key}_answers": heldout(
            pools[key], own if pools[key].source == besides.source else others, sample_seed, taken
        )
        for key in of_its_kind
    }
    measured = [{"task": task, "metrics": ["bits_per_byte"], "num_fewshot": 0} for task in records]
    shown = [f"{task}/bits_per_byte" for task in records]
    return Suite(
        name=name,
        tasks=[*measured, *tasks],
        headline=[*shown, *headline],
        averages=averages,
        limit=limit,
        batch_size=batch_size,
        mirror=mirror,
        allow_code_execution=allow_code_execution,
        chat_template=chat_template,
        seed=seed,
        bootstrap_iters=bootstrap_iters,
        pools=records,
    )


def by_kind(name: str, pool: Pool, column: str) -> dict[str, Pool]:
    """{`<name>_<value>`: the records whose row has this value in the column}. Raises UserError where no row has one,
    and where two values give one name."""
    found: dict[str, list[Record]] = {}
    values: dict[str, str] = {}
    for record in pool.records:
        value = record.raw.get(column)
        if value is None or value == "":
            continue
        key = f"{name}_{re.sub(r'[^a-z0-9]+', '_', str(value).lower()).strip('_')}"
        if values.setdefault(key, str(value)) != str(value):
            raise UserError(
                f"evaluation.kinds.{name}={column}: the values {values[key]!r} and {str(value)!r} give one name, "
                f"{key}; write them in words that differ in Latin letters or digits."
            )
        found.setdefault(key, []).append(record)
    if not found:
        raise UserError(f"evaluation.kinds.{name}={column}: no row of {pool.source} has a value in this column.")
    return {key: replace(pool, records=found[key]) for key in sorted(found)}


def heldout(pool: Pool, count: int, seed: int, taken: Collection[str]) -> list[Record]:
    """`count` different records with an answer, none of those taken, drawn by (seed, record id), in the draw's order;
    fewer are the first of more."""
    left = {record.id: record for record in pool.records if record.output.strip() and record.id not in taken}
    if len(left) < count:
        raise UserError(
            f"{pool.source} has {len(left)} records with an answer that are not in the run's pool, start or target, "
            f"but the suite wants {count}: lower evaluation.own or evaluation.others, or tune on a smaller pool with "
            f"data.sample=N."
        )
    return sorted(left.values(), key=lambda record: draws.key("heldout", seed, record.id))[:count]
