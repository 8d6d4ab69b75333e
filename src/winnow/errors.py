"""The one exception for users, and the sentences for errors of libraries."""

from __future__ import annotations

import errno
import re
from pathlib import Path

# Errors of the system that a user can correct, with the remedy; any other one is a defect of ours.
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


class UserError(Exception):
    """Bad input or configuration, in one sentence: place, found value, expected value, remedy."""


def user_sentence(error: BaseException) -> str | None:
    """The sentence for an error that the user can correct; None for a defect of ours, which keeps its traceback."""
    import yaml
    from hydra.errors import HydraException, InstantiationException, OverrideParseException
    from omegaconf.errors import OmegaConfBaseException

    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, UserError):
            return str(cause)
        if isinstance(cause, OSError) and cause.errno == errno.EEXIST and Path(str(cause.filename)).is_file():
            return (
                f"{cause.filename} is a file; a folder is expected: give another one with paths.run=... "
                f"(a sweep: hydra.sweep.dir=...)."
            )
        if isinstance(cause, OSError) and cause.errno in _CURES:
            place = f"{cause.filename}: " if cause.filename else ""
            return f"{place}{cause.strerror}; {_CURES[cause.errno]}."
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
        from winnow.config import composition_sentence

        return composition_sentence(error)
    return None


def _unreadable(override: str) -> str:
    """The sentence for an argument that Hydra's grammar does not read: `=`, brackets, blanks before them in a path."""
    key, equals, value = override.partition("=")
    if not equals:
        return f"{override} is no argument: write key=value."
    quoted = value.replace("'", "\\'")
    return f"{override} cannot be read: {_QUOTE}, \"{key}='{quoted}'\"."
