"""The one exception that a user is meant to read."""

import os
import re
from collections.abc import Collection


class UserError(Exception):
    """Bad input or configuration, told in one sentence: where, what was found, what was expected, what to do."""


def check_choice(key: str, value: str, known: Collection[str]) -> None:
    """Raises UserError where a setting is none of those known. key: the whole one, `data.turns`."""
    if value not in known:
        raise UserError(f"{key}={value} is unknown; choose one of {', '.join(known)}.")


def system_error(error: BaseException) -> OSError | None:
    """The error as one of the system; None if it is none. Libraries written in Rust (safetensors, tokenizers) have the
    number in their text only."""
    if isinstance(error, OSError):
        return error
    found = re.search(r"\(os error (\d+)\)", str(error))
    return OSError(int(found[1]), os.strerror(int(found[1]))) if found else None


# The class of torch's allocator, and what a CPU, CUDA and its libraries say when memory ends.
_NO_MEMORY = ("OutOfMemoryError", "DefaultCPUAllocator", "CUDA error: out of memory", "_STATUS_ALLOC_FAILED")
_NO_ACCESS = ("GatedRepoError", "RepositoryNotFoundError", "gated repo", "401 Client Error", "403 Client Error")


def out_of_memory(error: BaseException) -> bool:
    """Whether the error says that memory ended."""
    return isinstance(error, MemoryError) or any(words in repr(error) for words in _NO_MEMORY)


def login(error: BaseException) -> str:
    """What to do first about an error of the hub, where it lets nobody in; a clause or nothing."""
    if any(word in f"{type(error).__name__} {error}" for word in _NO_ACCESS):
        return "accept its terms on its page and run `hf auth login`, or "
    return ""
