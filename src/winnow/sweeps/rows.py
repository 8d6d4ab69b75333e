"""The jobs of an experiment: rows of overrides, crossed with swept parameters, changed by the command line."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.types import Override

from winnow.errors import UserError


def expand(
    rows: Sequence[str],
    params: Mapping[str, str],
    arguments: Sequence[str],
    parse: Callable[[list[str]], list[Override]],
    only: Mapping[str, Any] | None = None,
) -> list[list[str]]:
    """One list of overrides for each job, without repetitions.

    rows: each a line of overrides, `method=random,length selection.ratio=0.12`; a list of values is swept. params:
    key -> values, crossed with every row. arguments: the command line's overrides; they take the place of a row's or
    a parameter's own for the same key, and further ones are added to every job. parse: Hydra's parser. only: key -> a
    value or a list of them: jobs in which a row or a parameter says otherwise, or nothing, are left out; 0.10 is 0.1.
    Raises UserError where none is left.

    Each job gets two overrides more: `row.job`, a name made of what varies between jobs, so that the same job has the
    same folder in a later sweep; and `scale.keep`, the keys of the command line, which no scale changes.
    """
    given = {_key(one): one for one in parse(list(arguments))}
    swept = [key for key, one in given.items() if one.is_sweep_override()]
    kept = ",".join(f"'{key}'" for key in given)
    jobs: dict[tuple[str, ...], list[str]] = {}
    for row in rows or [""]:
        own = {_key(one): one for one in parse([*row.split(), *(f"{key}={value}" for key, value in params.items())])}
        merged = {key: given.get(key, one) for key, one in own.items()} | given
        varying = [key for key in merged if key in own or key in swept]
        for job in BasicSweeper.split_arguments(list(merged.values()), None)[0]:
            named = dict(zip(merged, job, strict=True))
            if not _wanted(named, only or {}, parse):
                continue
            name = _name([named[key] for key in varying])
            jobs.setdefault(tuple(sorted(job)), [*job, f"row.job='{name}'", f"scale.keep=[{kept}]"])
    if only and not jobs:
        asked = ", ".join(f"{key}={value}" for key, value in only.items())
        raise UserError(
            f"hydra.sweeper.only: no row of this experiment has {asked}; its rows are: {'; '.join(rows)}; and for "
            f"each: {' '.join(f'{key}={value}' for key, value in params.items())}."
        )
    return list(jobs.values())


def _wanted(job: Mapping[str, str], only: Mapping[str, Any], parse: Callable[[list[str]], list[Override]]) -> bool:
    """Whether a job's overrides (key -> `key=value`) have one of the wanted values for every key of `only`."""
    for key, values in only.items():
        if key not in job:
            return False
        found = _plain(parse([job[key]])[0].value())
        if found not in [_plain(value) for value in (values if isinstance(values, list) else [values])]:
            return False
    return True


def _plain(value: Any) -> Any:
    """A value for comparing: numbers are equal however they are written, true is no number."""
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, bool):
        return str(value).lower()
    try:
        return float(value)
    except (TypeError, ValueError):
        return value


def _key(override: Override) -> str:
    return override.get_key_element().lstrip("+~")


def _name(overrides: Sequence[str]) -> str:
    """`ifd-0.05-llama2_7b-3f2a1c`: the values in a row, and a hash of the overrides, whatever their order."""
    shown = [word for word in overrides if not word.startswith(("row.", "evaluation", "data.path", "backbone.name"))]
    words = [re.sub(r"[^A-Za-z0-9_.]+", "_", word.split("=", 1)[1]).strip("_.") for word in shown]
    digest = hashlib.sha256("\n".join(sorted(overrides)).encode()).hexdigest()[:6]
    return "-".join([*(word for word in words if word), digest])[-120:].lstrip("-.")
