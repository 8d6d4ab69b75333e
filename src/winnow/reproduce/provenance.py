"""How the numbers of a table were made: commands, commits, changes of the scale, replaced data."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from datetime import datetime

from winnow.reproduce.collect import Early, Job
from winnow.reproduce.settings import LEFT_OUT
from winnow.sweeps.scale import ABSENT, show_value

# Changes of a scale that follow from other changes in the list.
IMPLIED = re.compile(r"\._(target|convert)_$|^evaluation\.averages\.")


def commands(jobs: Sequence[Job], default: str) -> list[str]:
    """The commands of the jobs, oldest first, each with its number of jobs if there are several; `default` without a
    job."""
    counts = Counter(job.command for job in sorted(jobs, key=lambda job: job.started))
    if not counts:
        return [default]
    if len(counts) == 1:
        return list(counts)
    return [f"{command}  # {count} job{'s' if count > 1 else ''}" for command, count in counts.items()]


def changes(jobs: Sequence[Job]) -> list[str]:
    """`key=value` for each setting that the scale changed and that can change a number, with the number of jobs where
    that is not all of them."""
    counts: dict[str, Counter[str]] = {}
    for job in jobs:
        for key, (_, after) in job.changes.items():
            if after != ABSENT and key not in job.free and not (IMPLIED.search(key) or LEFT_OUT.search(key)):
                counts.setdefault(key, Counter())[show_value(after)] += 1
    return [
        f"`{key}={value}`" + (f" in {count} of {len(jobs)} jobs" if count < len(jobs) else "")
        for key, values in sorted(counts.items())
        for value, count in values.items()
    ]


def stand_ins(jobs: Sequence[Job]) -> list[str]:
    """Sentences about pools that are not the table's own: the jobs' `table.data`, and the embedded pool."""
    sentences = [f"Data: {words}." for words in dict.fromkeys(job.stand_in for job in jobs if job.stand_in)]
    pools = Counter(job.identity.get("pool", "") for job in jobs)
    replaced = Counter(
        job.identity.get("pool", "") for job in jobs if job.changes.get("data.source", [None, None])[1] == "embedded"
    )
    names = [pool + (f" ({n} of {pools[pool]} jobs)" if n < pools[pool] else "") for pool, n in replaced.items()]
    if names:
        sentences.append(f"The embedded pool stood in for: {', '.join(names)}.")
    return sentences


def unfinished(job: Job | Early) -> str:
    """The error or status of an unfinished job, and what to do about one that the last sweep did not have."""
    message = job.error or job.status
    if not job.earlier:
        return message
    when = datetime.fromtimestamp(job.started).strftime("%Y-%m-%d %H:%M")
    return (
        f"{message} (of an earlier sweep, {when}; the last one did not have it: run it again, or delete {job.folder})"
    )


def commits(jobs: Sequence[Job | Early]) -> str:
    """The commits of the finished jobs."""
    return " ".join(sorted({job.commit for job in jobs if job.status == "finished"}))
