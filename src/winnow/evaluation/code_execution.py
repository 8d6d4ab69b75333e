"""pass@1 on code that a model wrote, run in a process of its own with as little power as the machine can leave it.

`namespaces`, where Linux lets this user make them: the program sees Python, the system's libraries and a small folder
of its own, and nothing else. No file of the user, no other process and so no environment of one, no network; it can
write to its folder alone, and whatever it started ends with it.

`limits`, elsewhere: limits of memory, file size and number of processes, an empty environment, a folder to work in. It
can read files, a token in the user's home among them, write where the user may, and use the network.

Either way it has `timeout` seconds, on Linux no longer than this process lives; the limit of memory is one of each
process, of which it may start any number in namespaces. It can forge its own result: it runs in the interpreter that
reports that the end was reached. So the harness comes here only with `evaluation.allow_code_execution=true`.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

TIMEOUT = 10.0  # seconds a program may run; the reference HumanEval harness waits 3, which a busy machine exceeds
MEMORY = 4 * 2**30  # bytes of address space
_FILE_SIZE = 2**20  # bytes the program may write to one file
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE = 1, 4  # <sys/prctl.h>

# Before a command, on Linux: it is killed when this process dies, however that comes about.
_TIED = [
    *(sys.executable, "-I", "-S", "-c"),
    f"import ctypes, os, sys; ctypes.CDLL(None).prctl({_PR_SET_PDEATHSIG}, {signal.SIGKILL:d}, 0, 0, 0)\n"
    "os.execvp(sys.argv[1], sys.argv[1:])",
]

# The token is read only after the whole program, tests included, ran to its end: a program that calls exit(0) before
# the tests must not count as passing. Until then it is in a pipe: neither in argv nor in a variable.
_LAUNCHER = """
import os, resource, sys
def run(path, pipe, processes):
    with open(path, encoding="utf-8") as file:
        code = compile(file.read(), "program.py", "exec")
    os.chdir(os.path.dirname(path))
    for kind, most in (("AS", {memory}), ("CPU", {seconds}), ("FSIZE", {size}), ("CORE", 0), ("NPROC", processes)):
        if most >= 0:
            resource.setrlimit(getattr(resource, "RLIMIT_" + kind), (most, most))
    exec(code, {{"__name__": "__main__"}})
    print("\\n" + os.read(pipe, 64).decode(), flush=True)
run(sys.argv.pop(), int(sys.argv.pop()), int(sys.argv.pop()))
"""

# Run as the first process of new namespaces: a root file system of read-only parts, two devices and a small folder.
# There is no /proc. What Python starts with has no capability left with which it could undo this.
_JAIL = """
set -e
root=$1; program=$2; python=$3; launcher=$4; pipe=$5; shift 5
mount -t tmpfs -o mode=755 none "$root"
for place in "$@"; do
  if [ -L "$place" ]; then ln -s "$(readlink "$place")" "$root$place"; continue; fi
  if [ -d "$place" ]; then mkdir -p "$root$place"; else mkdir -p "$root${place%/*}"; : > "$root$place"; fi
  mount --bind "$place" "$root$place"
  case $place in /dev/*) continue;; esac
  mount -o remount,bind,ro "$root$place" 2>&- || mount -o remount,bind,ro,nosuid,nodev "$root$place"
done
mkdir "$root/winnow-code"
mount -t tmpfs -o size=64m,mode=777 none "$root/winnow-code"
cp "$program" "$root/winnow-code/program.py"
mount -o remount,ro "$root"
exec chroot "$root" setpriv --bounding-set=-all --inh-caps=-all --no-new-privs \\
  "$python" -I -c "$launcher" -1 "$pipe" /winnow-code/program.py
"""
_PARTS = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
_PARTS += ("/etc/ld.so.cache", "/dev/null", "/dev/urandom")


def passes(program: str, timeout: float = TIMEOUT) -> bool:
    """True if `program` (Python source that asserts its own tests) runs to its end within `timeout` seconds."""
    return _passes(program, timeout, confinement())


@cache
def confinement() -> str:
    """What keeps programs in on this machine: `namespaces` or `limits`."""
    return "namespaces" if sys.platform == "linux" and _passes("pass", TIMEOUT, "namespaces") else "limits"


def _passes(program: str, timeout: float, confined: str) -> bool:
    token = secrets.token_hex(16)
    with tempfile.TemporaryDirectory(prefix="winnow-code-") as folder, _pipe_with(token) as pipe:
        path = Path(folder) / "work" / "program.py"
        path.parent.mkdir()
        path.write_text(program, encoding="utf-8")
        launcher = _LAUNCHER.format(memory=MEMORY, size=_FILE_SIZE, seconds=int(timeout) + 1)
        if confined == "namespaces":
            command = _jailed(path, Path(folder), launcher, pipe)
        else:  # to root the number of processes is no limit
            command = [sys.executable, "-I", "-c", launcher, "0", str(pipe), str(path)]
        with (Path(folder) / "output").open("w+b") as output, _closed_to_others():
            process = subprocess.Popen(
                [*_TIED, *command] if sys.platform == "linux" else command,
                cwd=path.parent,
                env={"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/winnow-code"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.DEVNULL,
                pass_fds=(pipe,),
                start_new_session=True,  # its own group, so that children of the program can be ended as well
            )
            try:
                status = process.wait(timeout)
            except subprocess.TimeoutExpired:
                status = None
            finally:
                with contextlib.suppress(ProcessLookupError):  # the whole group may have ended by itself
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            output.seek(0)
            return status == 0 and output.read().rstrip().endswith(token.encode())


def _jailed(path: Path, folder: Path, launcher: str, pipe: int) -> list[str]:
    root = folder / "root"
    root.mkdir()
    python = Path(sys.executable)
    parts = dict.fromkeys([*_PARTS, sys.base_prefix, sys.prefix, str(python.resolve().parents[1])])
    there = [part for part in parts if Path(part).exists() and not any(part.startswith(f"{one}/") for one in parts)]
    spaces = ["--user", "--map-root-user", "--mount", "--pid", "--net", "--ipc", "--uts"]
    jail = ["sh", "-c", _JAIL, "jail", str(root), str(path), str(python), launcher, str(pipe), *there]
    return ["unshare", *spaces, "--fork", "--kill-child", *jail]


@contextlib.contextmanager
def _pipe_with(token: str) -> Iterator[int]:
    """The end of a pipe at which a token lies."""
    end, begin = os.pipe()
    try:
        os.write(begin, token.encode())
        os.close(begin)
        yield end
    finally:
        os.close(end)


@contextlib.contextmanager
def _closed_to_others() -> Iterator[None]:
    """Other processes of this user cannot read the environment of this one meanwhile (Linux; root always can)."""
    if sys.platform != "linux":
        yield
        return
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    try:
        yield
    finally:
        libc.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)


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
