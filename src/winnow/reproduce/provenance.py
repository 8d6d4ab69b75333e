"""What a table says of how its numbers were made: commands, commits, what a scale changed, what stood in for what."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from winnow.reproduce.collect import Job
from winnow.reproduce.settings import LEFT_OUT
from winnow.sweeps.scale import ABSENT

# Changes of a scale that another one says, besides those that no number hangs on.
UNTOLD = re.compile(r"\._(target|convert)_$|^evaluation\.averages\.")


def commands(jobs: Sequence[Job], default: str) -> list[str]:
    """The commands that ran the jobs, oldest first, with the number of jobs where there are several; `default` where
    nothing has been run."""
    counts: dict[str, int] = {}
    for job in sorted(jobs, key=lambda job: job.started):
        counts[job.command] = counts.get(job.command, 0) + 1
    if not counts:
        return [default]
    if len(counts) == 1:
        return list(counts)
    return [f"{command}  # {count} job{'s' if count > 1 else ''}" for command, count in counts.items()]


def changes(jobs: Sequence[Job]) -> list[str]:
    """`key=value` for each setting that the scale changed and that a number hangs on, with the number of jobs where it
    was not changed in all of them."""
    found: dict[str, dict[str, int]] = {}
    for job in jobs:
        for key, (_, after) in job.changes.items():
            if after != ABSENT and key not in job.free and not (UNTOLD.search(key) or LEFT_OUT.search(key)):
                values = found.setdefault(key, {})
                values[_value(after)] = values.get(_value(after), 0) + 1
    told = []
    for key, values in sorted(found.items()):
        for value, count in values.items():
            told.append(f"`{key}={value}`" + (f" in {count} of {len(jobs)} jobs" if count < len(jobs) else ""))
    return told


def stand_ins(jobs: Sequence[Job]) -> list[str]:
    """Sentences about pools that were not the table's own: what a job's `table.data` says, and the embedded pool."""
    told = [f"Data: {words}." for words in dict.fromkeys(job.stand_in for job in jobs if job.stand_in)]
    pools = dict.fromkeys(
        job.identity.get("pool", "") for job in jobs if job.changes.get("data.source", [None, None])[1] == "embedded"
    )
    if pools:
        told.append(f"The embedded pool stood in for: {', '.join(pools)}.")
    return told


def unfinished(job: Job) -> str:
    """What is known of a job that is not finished, and how to be rid of one that the last sweep did not have."""
    told = job.error or job.status
    if not job.earlier:
        return told
    when = datetime.fromtimestamp(job.started).strftime("%Y-%m-%d %H:%M")
    return f"{told} (of an earlier sweep, {when}; the last one did not have it: run it again, or delete {job.folder})"


def commits(jobs: Sequence[Job]) -> str:
    """The commits of the finished jobs."""
    return " ".join(sorted({job.commit for job in jobs if job.status == "finished"}))


def _value(value: Any) -> str:
    if isinstance(value, list) and value and isinstance(value[0], Mapping) and "task" in value[0]:
        return ", ".join(f"{task['task']} {task.get('num_fewshot', 0)}-shot" for task in value)
    return f"{value:g}" if isinstance(value, float) else str(value)
