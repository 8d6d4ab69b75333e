"""The one exception that a user is meant to read, and how errors of libraries are told."""

from __future__ import annotations

import errno
import re
from pathlib import Path

# What a user can mend about a file or folder, and how; anything else that the system reports is a defect of ours.
_ELSEWHERE = "give another place with paths.run=... or paths.store=..., or make room"
_CURES = dict.fromkeys(
    (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.ENOTDIR, errno.EDQUOT), _ELSEWHERE
) | {
    errno.EFBIG: "raise the limit on the size of files (ulimit -f), or give another place with paths.run=...",
    errno.ENAMETOOLONG: "give shorter names (a sweep: hydra.sweep.subdir=...)",
    errno.EISDIR: "a file is expected there: move the folder away, or give another name",
}
_MEMORY = ("OutOfMemoryError", "DefaultCPUAllocator")  # torch's class on a GPU, its word on a CPU
_NO_ACCESS = ("GatedRepoError", "RepositoryNotFoundError", "gated repo", "401 Client Error", "403 Client Error")
_QUOTE = "put the value into quotes of its own inside those of the shell"
_AMBIGUOUS = re.compile(r"Ambiguous value for argument '(.*)'")


class UserError(Exception):
    """Bad input or configuration, told in one sentence: where, what was found, what was expected, what to do."""


def user_sentence(error: BaseException) -> str | None:
    """The one sentence for an error that the user can mend, or None for an error of ours, which keeps its traceback."""
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
        if isinstance(cause, MemoryError) or any(word in repr(cause) for word in _MEMORY):
            return (
                "Out of memory; what was computed is in the store. Lower scoring.tokens_per_batch, "
                "evaluation.batch_size or tuning.micro_batch_size, which change no result, or give backbone.dtype=bf16."
            )
        if type(cause).__module__.startswith("huggingface_hub"):
            told = " ".join(str(cause).split())[:300].rstrip(".")
            return f"The Hugging Face hub refuses ({told}); {login(cause)}check the name and the network."
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


def login(error: BaseException) -> str:
    """What to do first about an error of the hub, where it lets nobody in; a clause or nothing."""
    if any(word in f"{type(error).__name__} {error}" for word in _NO_ACCESS):
        return "accept its terms on its page and run `hf auth login`, or "
    return ""


def _unreadable(override: str) -> str:
    """The sentence for an argument that Hydra's grammar does not read: `=`, brackets, blanks before them in a path."""
    key, equals, value = override.partition("=")
    if not equals:
        return f"{override} is no argument: write key=value."
    quoted = value.replace("'", "\\'")
    return f"{override} cannot be read: {_QUOTE}, \"{key}='{quoted}'\"."
