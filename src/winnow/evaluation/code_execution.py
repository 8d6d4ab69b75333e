"""pass@1 on code that a model wrote, run in a process of its own.

The separate process has a time limit, a memory limit, an empty temporary working folder and no inherited
environment. That stops accidents, not attackers: it can still read files and use the network, so the harness
comes here only with `evaluation.allow_code_execution=true`, best inside a container.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

TIMEOUT = 10.0  # seconds a program may run; the reference HumanEval harness waits 3, which a busy machine exceeds
MEMORY = 4 * 2**30  # bytes of address space
_FILE_SIZE = 2**20  # bytes the program may write to one file

# The token is printed only after the whole program, tests included, ran to its end: a program that calls
# exit(0) before the tests must not count as passing. It lives in the launcher's locals, not in argv.
_LAUNCHER = """
import resource, sys
def limits():
    resource.setrlimit(resource.RLIMIT_AS, ({memory}, {memory}))
    resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}))
def run():
    path, token = sys.argv.pop(), sys.argv.pop()
    with open(path, encoding="utf-8") as file:
        code = compile(file.read(), "program.py", "exec")
    limits()
    exec(code, {{"__name__": "__main__"}})
    print("\\n" + token, flush=True)
run()
"""


def passes(program: str, timeout: float = TIMEOUT) -> bool:
    """True if `program` (Python source that asserts its own tests) runs to its end within `timeout` seconds."""
    token = secrets.token_hex(16)
    launcher = _LAUNCHER.format(memory=MEMORY, size=_FILE_SIZE)
    with tempfile.TemporaryDirectory(prefix="winnow-code-") as folder:
        path = Path(folder) / "program.py"
        path.write_text(program, encoding="utf-8")
        with (Path(folder) / "output").open("w+b") as output:
            process = subprocess.Popen(
                [sys.executable, "-I", "-c", launcher, token, str(path)],
                cwd=folder,
                env={"PATH": os.defpath, "HOME": folder},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # its own group, so that children of the program can be ended as well
            )
            try:
                status = process.wait(timeout)
            except subprocess.TimeoutExpired:
                status = None
            finally:
                _end_group(process)
            output.seek(0)
            return status == 0 and output.read().rstrip().endswith(token.encode())


def _end_group(process: subprocess.Popen) -> None:
    with suppress(ProcessLookupError):  # the whole group has ended by itself
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def humaneval_results(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """pass@1 of one HumanEval problem: prompt + completion + tests + `check(entry_point)`."""
    program = f"{doc['prompt']}{results[0]}\n{doc['test']}\ncheck({doc['entry_point']})\n"
    return {"pass@1": float(passes(program))}


def mbpp_results(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """pass@1 of one MBPP problem: completion + set-up code + its asserts."""
    program = "\n".join([results[0], doc.get("test_setup_code") or "", *doc["test_list"]])
    return {"pass@1": float(passes(program))}


def mbpp_examples(docs):
    """The problems 2, 3 and 4 of MBPP's `prompt` split, which the standard prompt shows as examples."""
    return docs.filter(lambda doc: doc["task_id"] in (2, 3, 4))
