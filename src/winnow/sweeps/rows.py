"""The jobs of an experiment: rows of overrides, crossed with swept parameters, changed by the command line."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.types import Override

from winnow.errors import UserError
from winnow.tracking.names import text
from winnow.tracking.run_card import masked


def expand(
    rows: Sequence[str],
    params: Mapping[str, str],
    arguments: Sequence[str],
    parse: Callable[[list[str]], list[Override]],
    only: Mapping[str, Any] | None = None,
) -> list[list[str]]:
    """One list of overrides for each job, without repetitions.

    rows: lines of overrides, such as `method=random,length selection.ratio=0.12`; a list of values is swept. params:
    key -> values, crossed with every row. arguments: the overrides of the command line. They replace those of rows and
    parameters with the same key; others are added to every job. parse: Hydra's parser. only: key -> value or list of
    values; a job stays if it has one of the values for every key, where 0.10 equals 0.1. Raises UserError if no job
    stays.

    Each job gets two more overrides: `row.job`, a name from the overrides that vary between jobs, so that the same job
    has the same folder in a later sweep; and `scale.keep`, the keys of the command line, which no scale changes.
    """
    command_line = {_key(one): one for one in parse(list(arguments))}
    swept = [key for key, one in command_line.items() if one.is_sweep_override()]
    keep = ",".join(f"'{key}'" for key in command_line)
    jobs: dict[tuple[str, ...], list[str]] = {}
    for row in rows or [""]:
        own = {_key(one): one for one in parse([*row.split(), *(f"{key}={value}" for key, value in params.items())])}
        merged = {key: command_line.get(key, one) for key, one in own.items()} | command_line
        varying = [key for key in merged if key in own or key in swept]
        for job in BasicSweeper.split_arguments(list(merged.values()), None)[0]:
            named = dict(zip(merged, job, strict=True))
            if not _matches(named, only or {}, parse):
                continue
            name = job_name([named[key] for key in varying])
            jobs.setdefault(tuple(sorted(job)), [*job, f"row.job='{name}'", f"scale.keep=[{keep}]"])
    if only and not jobs:
        filters = ", ".join(f"{key}={value}" for key, value in only.items())
        raise UserError(
            f"hydra.sweeper.only: no row of this experiment has {filters}; its rows are: {'; '.join(rows)}; and for "
            f"each: {' '.join(f'{key}={value}' for key, value in params.items())}."
        )
    return list(jobs.values())


def _matches(job: Mapping[str, str], only: Mapping[str, Any], parse: Callable[[list[str]], list[Override]]) -> bool:
    """Whether a job's overrides (key -> `key=value`) have one of the values of `only` for every key of it."""
    for key, values in only.items():
        allowed = values if isinstance(values, list) else [values]
        if key not in job or text(parse([job[key]])[0].value()) not in map(text, allowed):
            return False
    return True


def _key(override: Override) -> str:
    return override.get_key_element().lstrip("+~")


def job_name(overrides: Sequence[str]) -> str:
    """`ifd-0.05-llama2_7b-3f2a1c`: the values but secrets, and a hash of the overrides that does not depend on their
    order."""
    hidden = ("row.", "evaluation", "data.path", "backbone.name")
    shown = [word for word in masked(overrides) if not word.startswith(hidden)]
    words = [re.sub(r"[^A-Za-z0-9_.]+", "_", word.partition("=")[2]).strip("_.") for word in shown]
    digest = hashlib.sha256("\n".join(sorted(overrides)).encode()).hexdigest()[:6]
    return "-".join([*(word for word in words if word), digest])[-120:].lstrip("-.")
