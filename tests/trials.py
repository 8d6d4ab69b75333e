"""Processes that cost no imports: each is forked from one that has them."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
from collections.abc import Callable
from multiprocessing import forkserver, get_context
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from unittest import mock

CONTEXT = get_context("forkserver")
CONTEXT.set_forkserver_preload(["trial_imports"])


def context() -> ForkServerContext:
    """Multiprocessing of such processes."""
    with mock.patch.dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path)):  # the server looks there for its imports
        forkserver.ensure_running()
    return CONTEXT


def fork(function: Callable, *given, log: Path, **environment: str) -> BaseProcess:
    """A running `function(*given)`, a function of a module, whose output goes into `log`. Its exit code is that of the
    function, or minus the number of the signal that ended it."""
    process = context().Process(target=_run, args=(function, given, log, environment))
    process.start()
    return process


def start(arguments: list[str], log: Path) -> BaseProcess:
    """A running `winnow <arguments>`."""
    return fork(_main, arguments, log=log)


def call(arguments: list[str], log: Path, seconds: float = 300) -> tuple[int | None, str]:
    """(exit code, output) of `winnow <arguments>`; None if it took longer."""
    process = start(arguments, log)
    process.join(seconds)
    code = process.exitcode
    process.kill()
    return code, log.read_text(errors="replace")


def without_privileges(arguments: list[str], log: Path) -> tuple[int | None, str]:
    """(exit code, output) of `winnow <arguments>` for which a read-only folder is one, even if it is root's."""
    process = fork(_unprivileged, arguments, log=log)
    process.join(300)
    code = process.exitcode
    process.kill()
    return code, log.read_text(errors="replace")


def two(function: Callable, *given, log: Path, seconds: float = 300) -> tuple[list[int | None], str]:
    """(exit codes, output) of two processes of one group, as torchrun starts them, each with `function(*given)`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    group = {"TORCHELASTIC_RUN_ID": "two", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "GROUP_RANK": "0"}
    group |= {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    logs = [log.with_name(f"{log.name}.{rank}") for rank in range(2)]
    ranks = [{"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(2)]
    processes = [fork(function, *given, log=own, **group, **rank) for own, rank in zip(logs, ranks, strict=True)]
    for process in processes:
        process.join(seconds)
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
    return codes, "".join(own.read_text(errors="replace") for own in logs)


def _run(function: Callable, given: tuple, log: Path, environment: dict[str, str]) -> None:
    os.setpgid(0, 0)
    os.environ |= environment
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    function(*given)


def _unprivileged(arguments: list[str]) -> None:
    version, none = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    if ctypes.CDLL(None).capset(version, none):
        raise OSError("the capabilities cannot be given up")
    _main(arguments)


def _main(arguments: list[str]) -> None:
    from winnow import __main__

    sys.argv = ["winnow", *arguments]
    sys.modules["__main__"].__spec__ = __main__.__spec__  # Lightning starts a run's other processes by its name
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job begins with it ignored
    __main__.main()
