"""The score stage: passes over the pool, the method's formula, and its scores for every record."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from winnow.data.records import Pool, Record
from winnow.data.templates import Template
from winnow.data.writers import write_quarantine
from winnow.distributed import is_leader
from winnow.errors import UserError
from winnow.pages.attack_page import write_attacks
from winnow.scoring.methods.column import cell
from winnow.scoring.protocols import Method, Pass, Preparation
from winnow.scoring.runner import PassRunner, PassTable
from winnow.store.describe import describe
from winnow.store.files import write_sum
from winnow.store.run_folder import drop_outputs_from
from winnow.tracking.run_card import StageRecord

REASONS_SHOWN = 5


def score(
    record: StageRecord,
    folder: Path,
    pool: Pool,
    method: Method,
    runner: PassRunner,
    template: Template,
    pre_experience: Preparation | None,
    target: Pool | None,
    identity: dict[str, Any],
) -> dict[str, Any]:
    """Write `scores.parquet`, and what the method shows besides. target: the pool of the method's target passes.
    identity: of the scores, kept in that file."""
    records, tables, runners = pool.records, {}, [runner]
    preparation = method.preparation or pre_experience
    if preparation is not None and method.passes:
        sources = preparation.prepare(runner, records, template)
        runners = [runner.over(source) for source in sources]
        runner = runners[0]
    prompts = runner.prompts(method.attacks, records, template) if method.attacks else {}

    def columns(pass_: Pass, own: Sequence[Record]) -> PassTable:
        for i, other in enumerate(runners):
            if i != pass_.checkpoint:  # the device need not hold the adapters and moments of several epochs
                other.forget(whole=True)
        return runners[pass_.checkpoint].compute(pass_, own, template)

    wanted = {}
    for name, pass_ in method.target_passes.items():  # first: it is small, and may be of no use
        assert target is not None  # `build_parts` refuses a method with target passes otherwise
        wanted[name] = columns(pass_, target.records)
        if None not in (flags := wanted[name].flags()):
            raise UserError(f"data@target: no record of {target.source} serves method={method.name}; {unscored(flags)}")
    for name, pass_ in method.passes.items():
        tables[name] = columns(pass_, method.records_for(name, tables, records))
    tables |= wanted
    record.status = "computed" if runner.computed or not runner.used else "reused"
    record.fingerprint = " ".join(runner.used) or None
    record.reused, record.resumed = runner.counts()
    if not is_leader():
        return {}
    scores = method.score(tables, records)
    if note := unscored(scores.flag):
        print(note, flush=True)
    if write_quarantine(pool, folder):
        print(f"{len(pool.quarantined)} rows are set aside; {folder / 'quarantine.jsonl'} has the reason of each")
    drop_outputs_from(folder, "score")
    about = {"method": method.name, "passes": runner.used, "made_with": identity}
    table = scores.table(records, about)
    scores.write(table, folder / "scores.parquet")
    write_sum(folder / "scores.parquet")
    if prompts:
        write_attacks(folder, prompts, records, table)
    method.write_outputs(tables, records, folder)
    return {"scored": sum(reason is None for reason in scores.flag), "records": len(scores.flag)}


def unscored(flags: Sequence[str | None]) -> str | None:
    """How many records have no score and why, the commonest reasons first; None if all have one."""
    reasons = Counter(flag for flag in flags if flag is not None)
    if not reasons:
        return None
    shown = [f"{reason} ({count})" for reason, count in reasons.most_common(REASONS_SHOWN)]
    more = len(reasons) - len(shown)
    shown += [f"and {more} more"] if more > 0 else []
    return f"{reasons.total()} of {len(flags)} records have no score: {'; '.join(shown)}."


def scores_identity(
    method: Method,
    pre_experience: Preparation | None,
    pool: Pool,
    target: Pool | None,
    runner: PassRunner,
    template: Template,
) -> dict[str, Any]:
    """All that the scores depend on besides the records' texts: nothing is computed for it."""
    passes = {**method.passes, **method.target_passes}
    more = {} if target is None else {"target": describe(target)}
    if method.reads is not None:
        held = [cell(one.raw, method.reads) for one in pool.records]
        more["column"] = hashlib.sha256(json.dumps(held, default=str).encode()).hexdigest()[:16]
    return more | {
        "method": describe(method),
        "pre_experience": describe(pre_experience) if method.passes else None,
        "passes": {name: runner.made_with(pass_, template) for name, pass_ in passes.items()},
    }
