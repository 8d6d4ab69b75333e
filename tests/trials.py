"""Calls of `winnow` as processes of their own that cost no imports: each is forked from one that has them."""

from __future__ import annotations

import os
import sys
from multiprocessing import forkserver, get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from unittest import mock

CONTEXT = get_context("forkserver")
CONTEXT.set_forkserver_preload(["trial_imports"])


def start(arguments: list[str], log: Path) -> BaseProcess:
    """A running `winnow <arguments>` whose output goes into `log`. Its exit code is that of the command, or minus the
    number of the signal that ended it."""
    with mock.patch.dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path)):  # the server looks there for its imports
        forkserver.ensure_running()
    process = CONTEXT.Process(target=_main, args=(arguments, log))
    process.start()
    return process


def call(arguments: list[str], log: Path, seconds: float = 300) -> tuple[int | None, str]:
    """(exit code, output) of `winnow <arguments>`; None if it took longer."""
    process = start(arguments, log)
    process.join(seconds)
    code = process.exitcode
    process.kill()
    return code, log.read_text(errors="replace")


def _main(arguments: list[str], log: Path) -> None:
    os.setpgid(0, 0)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.argv = ["winnow", *arguments]
    from winnow.__main__ import main

    main()
