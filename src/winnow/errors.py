"""The one exception that a user is meant to read, and how errors of libraries are told."""

from __future__ import annotations

import errno
from pathlib import Path

# What a user can mend about a file or folder; anything else that the system reports is a defect of ours.
_MENDABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.ENOTDIR, errno.EDQUOT)


class UserError(Exception):
    """Bad input or configuration, told in one sentence: where, what was found, what was expected, what to do."""


def user_sentence(error: BaseException) -> str | None:
    """The one sentence for an error that the user can mend, or None for an error of ours, which keeps its traceback."""
    from hydra.errors import HydraException, InstantiationException
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
        if isinstance(cause, OSError) and cause.errno in _MENDABLE:
            place = f"{cause.filename}: " if cause.filename else ""
            return f"{place}{cause.strerror}; give another place with paths.run=... or paths.store=..., or make room."
        cause = cause.__cause__ or cause.__context__
    composition = isinstance(error, (HydraException, OmegaConfBaseException))
    unknown_option = isinstance(error, InstantiationException) and isinstance(error.__cause__, TypeError)
    if unknown_option or (composition and not isinstance(error, InstantiationException)):
        from winnow.config import composition_sentence

        return composition_sentence(error)
    return None
