"""The settings in which the configurations of jobs differ."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from hydra.utils import get_object

from winnow.store.describe import free
from winnow.store.differences import flatten
from winnow.sweeps.scale import ABSENT
from winnow.sweeps.summary import FREE
from winnow.tracking.names import text

if TYPE_CHECKING:
    from winnow.reproduce.collect import Run

# These keys belong to no component, so no class can declare that they change no number.
LEFT_OUT = re.compile(rf"^(seed|objective|row|table|scale|hydra|{'|'.join(FREE)})(\.|$)|^attack\.processes$")
SEED = re.compile(r"(^|[._])seed$")
LONGEST = 50  # characters of a value in a table


def settings_of(config: Mapping[str, Any]) -> dict[str, str]:
    """{dotted key: value as text} of a resolved configuration, without the keys that change no number and without null:
    a run of a version that lacks the key says the same. A folder of `paths` appears as its key, so a folder that moves
    is no change of a setting."""
    homes = {value: f"${{paths.{key}}}" for key, value in flatten(config.get("paths") or {}) if isinstance(value, str)}
    unused = free_keys(config)
    settings = {}
    for key, value in flatten(config):
        if value is not None and not LEFT_OUT.search(key) and key not in unused:
            if isinstance(value, str):
                home = max((one for one in homes if value == one or value.startswith(f"{one}/")), key=len, default="")
                value = homes[home] + value[len(home) :] if home else value
            settings[key] = text(value)
    return settings


def free_keys(config: Any, place: str = "") -> frozenset[str]:
    """Dotted keys that change no number, by declaration of the classes in `_target_`: see `store.describe`."""
    if not isinstance(config, Mapping):
        return frozenset()
    own = {f"{place}{key}" for key in (_free(str(config["_target_"])) if "_target_" in config else ())}
    return frozenset(own).union(*(free_keys(value, f"{place}{key}.") for key, value in config.items()))


@cache
def _free(target: str) -> frozenset[str]:
    try:
        return frozenset(free(get_object(target)))
    except (ImportError, ValueError):
        return frozenset()  # the class is gone, and its declaration with it


def differences(jobs: Sequence[Run]) -> list[dict[str, str]]:
    """For each job, {key: value} of the settings in which these jobs differ; empty where all are equal.

    A seed that equals the job's seed in every job is no difference. Where jobs chose different options of a group
    (template=vicuna), the option is the difference; a key of that group counts only if jobs with the same option differ
    in it.
    """
    keys = list(dict.fromkeys(key for job in jobs for key in job.settings))
    differing = [key for key in keys if _differs(key, jobs) and not _is_the_seeds(key, jobs)]
    values: dict[str, list[str]] = {}  # key -> its value in each job
    for key in differing:
        group = _group(key, jobs)
        if group is not None:
            options = [job.choices.get(group, ABSENT) for job in jobs]
            values[_place(group)] = options
            kin = {option: [job for job, own in zip(jobs, options, strict=True) if own == option] for option in options}
            if not any(_differs(key, some) for some in kin.values()):
                continue
        values[key] = [job.settings.get(key, text(None)) for job in jobs]
    return [{key: column[number] for key, column in values.items()} for number in range(len(jobs))]


def shorten(value: str) -> str:
    """A value on one line that fits a table. A long value is cut, and a hash makes it unique."""
    digest = hashlib.sha256(value.encode()).hexdigest()[:6]
    value = " ".join(value.split())
    return value if len(value) <= LONGEST else f"{value[:LONGEST]}... {digest}"


def is_set_by(overrides: Sequence[str], key: str) -> bool:
    """Whether one of the overrides' keys (`tuning.learning_rate`, `tuning`, `backbone@scorer`) sets `key`."""
    return any(key == place or key.startswith(f"{place}.") for place in map(_place, overrides))


def _differs(key: str, jobs: Sequence[Run]) -> bool:
    return len({job.settings.get(key) for job in jobs}) > 1


def _is_the_seeds(key: str, jobs: Sequence[Run]) -> bool:
    return bool(SEED.search(key)) and all(job.settings.get(key) in (None, str(job.seed)) for job in jobs)


def _group(key: str, jobs: Sequence[Run]) -> str | None:
    """The innermost group that holds `key` and in which the jobs chose different options."""
    groups = [group for group in dict.fromkeys(group for job in jobs for group in job.choices) if "/" not in group]
    around = [group for group in groups if is_set_by([group], key)]
    around = [group for group in around if len({job.choices.get(group) for job in jobs}) > 1]
    return max(around, key=lambda group: len(_place(group)), default=None)


def _place(group: str) -> str:
    """The place of a group in the configuration: `scorer` for `backbone@scorer`."""
    return group.rsplit("@", 1)[-1]
