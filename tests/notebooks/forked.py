"""What a notebook's kernel takes for `subprocess` in test_notebooks.py: a fork of the kernel costs no imports."""

from __future__ import annotations

import sys
from multiprocessing import get_context
from pathlib import Path
from subprocess import CompletedProcess

import trials


def run(command: list[str], **_) -> CompletedProcess:
    """`python -m winnow <arguments>`, whose output goes into a file of the working folder first."""
    assert command[:3] == [sys.executable, "-m", "winnow"]
    log = Path("forked.log").resolve()
    process = get_context("fork").Process(target=_command, args=(command[3:], log))
    process.start()
    process.join()
    return CompletedProcess(command, process.exitcode, log.read_text(), "")


def _command(arguments: list[str], log: Path) -> None:
    sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__  # the kernel's own would write into the notebook
    trials._run(trials._main, (arguments,), log, {})
