"""What tells two jobs of one row apart: the settings in which their configurations differ."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Protocol

from hydra.utils import get_object

from winnow.store.describe import free
from winnow.store.differences import flatten
from winnow.sweeps.scale import ABSENT
from winnow.tracking.names import text

# No components, so that no class says of their keys that no number hangs on them.
LEFT_OUT = re.compile(
    r"^(seed|stages|objective)$|^(row|table|scale|paths|tracking|scoring|trainer|callbacks|hydra)\.|^attack\.processes$"
)
SEED = re.compile(r"(^|[._])seed$")
LONGEST = 50  # characters of a value that are shown


class Configured(Protocol):
    """A job: its seed, `settings_of` its configuration, and the options that were chosen (group -> option)."""

    seed: int
    settings: Mapping[str, str]
    choices: Mapping[str, str]


def settings_of(config: Mapping[str, Any]) -> dict[str, str]:
    """{dotted key: value as text} of a resolved configuration, without what no number hangs on. Folders of `paths` are
    called by their keys, so that a folder that has moved is no other setting."""
    homes = {value: f"${{paths.{key}}}" for key, value in flatten(config.get("paths") or {}) if isinstance(value, str)}
    unasked = free_keys(config)
    found = {}
    for key, value in flatten(config):
        if not LEFT_OUT.search(key) and key not in unasked:
            if isinstance(value, str):
                home = max((one for one in homes if value == one or value.startswith(f"{one}/")), key=len, default="")
                value = homes[home] + value[len(home) :] if home else value
            found[key] = _text(value)
    return found


def free_keys(config: Any, place: str = "") -> frozenset[str]:
    """Dotted keys that no number hangs on, as the classes that `_target_` names declare: see `store.describe`."""
    if not isinstance(config, Mapping):
        return frozenset()
    own = {f"{place}{key}" for key in (_free(str(config["_target_"])) if "_target_" in config else ())}
    return frozenset(own).union(*(free_keys(value, f"{place}{key}.") for key, value in config.items()))


@cache
def _free(target: str) -> frozenset[str]:
    try:
        return frozenset(free(get_object(target)))
    except (ImportError, ValueError):
        return frozenset()  # a class that is no longer there says nothing


def differences(jobs: Sequence[Configured]) -> list[dict[str, str]]:
    """For each job {key: value} of the settings in which these jobs differ; empty ones where they are all alike.

    A seed that is the job's own seed in all of them is no difference. Where another option of a group was chosen
    (template=vicuna), that is told, and of the group's own keys only those in which jobs with the same option differ.
    """
    keys = list(dict.fromkeys(key for job in jobs for key in job.settings))
    differing = [key for key in keys if _differs(key, jobs) and not _is_the_seeds(key, jobs)]
    told: dict[str, list[str]] = {}  # name -> the value in each job
    for key in differing:
        group = _group(key, jobs)
        if group is not None:
            options = [job.choices.get(group, ABSENT) for job in jobs]
            told[_place(group)] = options
            kin = {option: [job for job, own in zip(jobs, options, strict=True) if own == option] for option in options}
            if not any(_differs(key, some) for some in kin.values()):
                continue
        told[key] = [job.settings.get(key, ABSENT) for job in jobs]
    return [{key: values[number] for key, values in told.items()} for number in range(len(jobs))]


def shown(value: str) -> str:
    """A value on one line that fits a table; of a long one the beginning, and a hash that tells it from others."""
    digest = hashlib.sha256(value.encode()).hexdigest()[:6]
    value = " ".join(value.split())
    return value if len(value) <= LONGEST else f"{value[:LONGEST]}... {digest}"


def is_named(key: str, given: Sequence[str]) -> bool:
    """Whether one of the overrides' keys (`tuning.learning_rate`, `tuning`, `backbone@scorer`) sets `key`."""
    return any(key == place or key.startswith(f"{place}.") for place in map(_place, given))


def _differs(key: str, jobs: Sequence[Configured]) -> bool:
    return len({job.settings.get(key) for job in jobs}) > 1


def _is_the_seeds(key: str, jobs: Sequence[Configured]) -> bool:
    return bool(SEED.search(key)) and all(job.settings.get(key) in (None, str(job.seed)) for job in jobs)


def _group(key: str, jobs: Sequence[Configured]) -> str | None:
    """The innermost group that holds `key` and of which the jobs chose different options."""
    groups = [group for group in dict.fromkeys(group for job in jobs for group in job.choices) if "/" not in group]
    around = [group for group in groups if is_named(key, [group])]
    around = [group for group in around if len({job.choices.get(group) for job in jobs}) > 1]
    return max(around, key=lambda group: len(_place(group)), default=None)


def _place(group: str) -> str:
    """Where a group lies in the configuration: `backbone@scorer` is `scorer`."""
    return group.rsplit("@", 1)[-1]


def _text(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return text(value)
