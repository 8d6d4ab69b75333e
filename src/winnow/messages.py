"""What a user is told of an error: one sentence, where it is one that the user can mend."""

from __future__ import annotations

import errno
import re
import sys
from difflib import get_close_matches
from pathlib import Path

import yaml
from hydra.errors import HydraException, InstantiationException, MissingConfigException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException

from winnow.config import COMMANDS, CONF, choices, instead
from winnow.errors import UserError, login, out_of_memory, system_error

# What a user can mend about a file or folder, and how; anything else that the system reports is a defect of ours.
_ELSEWHERE = "give another place with paths.run=... or paths.store=..., or make room"
_CURES = dict.fromkeys(
    (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.ENOTDIR, errno.EDQUOT), _ELSEWHERE
) | {
    errno.EFBIG: "raise the limit on the size of files (ulimit -f), or give another place with paths.run=...",
    errno.ENAMETOOLONG: "give shorter names (a sweep: hydra.sweep.subdir=...)",
    errno.EISDIR: "a file is expected there: move the folder away, or give another name",
}
_QUOTE = "put the value into quotes of its own inside those of the shell"
_AMBIGUOUS = re.compile(r"Ambiguous value for argument '(.*)'")


def user_sentence(error: BaseException) -> str | None:
    """The one sentence for an error that the user can mend, or None for an error of ours, which keeps its traceback."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, UserError):
            return str(cause)
        system = system_error(cause)
        if system and system.errno == errno.EEXIST and Path(str(system.filename)).is_file():
            return (
                f"{system.filename} is a file; a folder is expected: give another one with paths.run=... "
                f"(a sweep: hydra.sweep.dir=...)."
            )
        if system and system.errno in _CURES:
            place = f"{system.filename}: " if system.filename else ""
            return f"{place}{system.strerror}; {_CURES[system.errno]}."
        if out_of_memory(cause):
            return (
                "Out of memory; the store holds the finished results. Lower scoring.tokens_per_batch, "
                "evaluation.batch_size or tuning.micro_batch_size, which change no result, or give backbone.dtype=bf16."
            )
        if type(cause).__module__.startswith("huggingface_hub"):
            text = " ".join(str(cause).split())[:300].rstrip(".")
            return f"The Hugging Face hub refuses ({text}); {login(cause)}check the name and the network."
        if isinstance(cause, OverrideParseException):
            return _unreadable(cause.override)
        if isinstance(cause, yaml.YAMLError):
            return f"Broken YAML: {' '.join(str(cause).split())}; mend the file."
        cause = cause.__cause__ or cause.__context__
    ambiguous = _AMBIGUOUS.match(str(error)) if isinstance(error, HydraException) else None
    if ambiguous:
        return f"{_unreadable(ambiguous[1])[:-1]}; for several values add --multirun."
    composition = isinstance(error, (HydraException, OmegaConfBaseException))
    unknown_option = isinstance(error, InstantiationException) and isinstance(error.__cause__, TypeError)
    if unknown_option or (composition and not isinstance(error, InstantiationException)):
        return _composition(error)
    return None


def _composition(error: Exception) -> str:
    """What Hydra says of an override that it cannot use, in one sentence and with what was perhaps meant."""
    text = " ".join((str(error) or str(error.__cause__)).split())  # Hydra at times puts the message into the cause only
    if isinstance(error, MissingConfigException) and error.missing_cfg_file is not None:
        file = error.missing_cfg_file  # data/x, experiment/x/y, hydra/launcher/x
        group, _, choice = file.rpartition("/") if file.startswith("hydra/") else file.partition("/")
        given = (word.lstrip("+").partition("=")[::2] for word in sys.argv[1:])
        key = next((key for key, value in given if key.split("@")[0] == group and choice in value.split(",")), group)
        return f"{key}={choice} is no option{instead(choice, error.options or choices(group), key, '=')}"
    key = re.match(r"Could not override '(.+?)'", text)
    if key and (needs := _owners(key[1])):
        return f"{key[1]} is a part of another option: give {' or '.join(needs)} with it."
    if key and isinstance(error.__cause__, OmegaConfBaseException):
        cause = error.__cause__
        parent, _, _ = str(cause.full_key).rpartition(".")
        return f"{key[1]} is no key{instead(str(cause.key), map(str, cause.parent_node), parent)}"
    key = re.match(
        r"(?:Could not append to config\. An item is already at '|Multiple values for |(?=\S+ appears more than once)|"
        r"force-add of config groups is not supported: '\+\+)([\w@/]+(?:\.\w+)*)",
        text,
    )
    if key:
        return f"{key[1]} is a key already: write {key[1]}=... without the plus."
    return re.sub(r"\s*To append to your default list use \S+", "", text)  # which ends in a TypeError


def _owners(key: str) -> list[str]:
    """The choices that have a part of their own: `start=pool` for data@start.pool."""
    group, _, place = key.partition("@")
    owner, _, part = place.partition(".")
    files = {f"{owner}={one}": CONF / owner / f"{one}.yaml" for one in choices(owner)} if part else {}
    return [one for one, file in files.items() if f"{group}@{part}:" in file.read_text(encoding="utf-8")]


def _unreadable(override: str) -> str:
    """The sentence for an argument that Hydra's grammar does not read: `=`, brackets, blanks before them in a path."""
    key, equals, value = override.partition("=")
    if not equals:
        close = get_close_matches(override, COMMANDS, 1)
        meant = f"; did you mean the command `winnow {close[0]}`, which stands first?" if close else "."
        return f"{override} is no argument: write key=value{meant}"
    if value.startswith("~/"):
        return f"{override} cannot be read: the shell leaves ~ as it is there; write {key}=$HOME{value[1:]}."
    quoted = value.replace("'", "\\'")
    return f"{override} cannot be read: {_QUOTE}, \"{key}='{quoted}'\"."
