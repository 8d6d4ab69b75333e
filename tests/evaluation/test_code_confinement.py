"""What a program that a model wrote cannot do, in namespaces and where there are only limits."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from winnow.evaluation import code_execution
from winnow.evaluation.code_execution import confinement

pytestmark = pytest.mark.skipif(confinement() != "namespaces", reason="this machine makes no namespaces for this user")


def passes(program: str, timeout: float = 10.0) -> bool:
    """In namespaces. Each program below asserts that it cannot do what it tries."""
    return code_execution._passes(program, timeout, "namespaces")


def fails(attempt: str) -> str:
    """A program that ends early, and so does not pass, unless the attempt raises an error."""
    errors = "(OSError, subprocess.CalledProcessError)"
    return f"import subprocess\ntry:\n    {attempt}\nexcept {errors}:\n    pass\nelse:\n    raise SystemExit"


@pytest.mark.fault(
    "code of a model looks for secrets",
    promise="it finds no environment, in itself or in /proc, no file of the user's home and no token",
    trials="4 programs",
)
@pytest.mark.parametrize(
    "program",
    [
        "import os\nassert 'WINNOW_SECRET' not in os.environ",
        "import glob\nassert not any(b'WINNOW_SECRET' in open(p, 'rb').read() for p in glob.glob('/proc/*/environ'))",
        "import os\nassert not any(map(os.path.lexists, HOME))",
        "import sys\nf = sys._getframe(1)\nassert not any(len(str(v)) == 32 for v in f.f_locals.values())",
    ],
    ids=["environment", "proc", "home", "frames"],
)
def test_secrets_are_out_of_reach(tmp_path, monkeypatch, program):
    """A variable and a file that belong to this process. The files are a token in a folder of the test and all that the
    user's home has, apart from what leads to Python where Python lies there."""
    (tmp_path / "token").write_text("hf_" + "k" * 32)
    monkeypatch.setenv("WINNOW_SECRET", "x" * 32)
    pythons = [Path(sys.prefix), Path(sys.base_prefix), Path(sys.executable).resolve()]
    home = [file for file in Path.home().iterdir() if not any(one.is_relative_to(file) for one in pythons)]
    assert passes(program.replace("HOME", repr([str(file) for file in (tmp_path / "token", *home)])))


@pytest.mark.fault(
    "code of a model writes files",
    promise="nothing outside its own small folder, which goes with it",
    trials="4 places",
)
@pytest.mark.parametrize("place", ["/tmp/left", "/usr/left", "/left", "MINE/left"])
def test_nothing_is_written_elsewhere(tmp_path, place):
    """The same name can be written to its own folder."""
    place = place.replace("MINE", str(tmp_path))
    assert passes("open('mine', 'w').write('x')\n" + fails(f"open({place!r}, 'w').close()"))
    assert not Path(place).exists()


def test_its_own_folder_is_small():
    """65 MiB cannot be written, of the 64 that there are."""
    many = "for i in range(65):\n    open(str(i), 'wb').write(bytes(2 ** 20 - 1))"
    assert not passes(f"{many}\nopen('last', 'wb').write(bytes(2 ** 20 - 1))")


@pytest.mark.fault("code of a model starts a daemon", promise="it ends with the program", trials="2")
@pytest.mark.parametrize("ending", ["pass", "while True: pass"])
def test_no_daemon_stays(ending):
    """A child in a session of its own that sleeps, under a name that this test can find; the program ends or runs into
    its limit of time."""
    name = f"winnow-daemon-{os.getpid()}-{len(ending)}"
    program = (
        "import os, subprocess, sys\n"
        f"subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)', {name!r}], start_new_session=True)\n"
        f"os.setsid() if os.getpid() != os.getpgid(0) else None\n{ending}"
    )
    assert passes(program, 3.0) is (ending == "pass")
    assert within(5, lambda: not running(name))


@pytest.mark.fault("SIGKILL of a run that runs code of a model", promise="the code ends with it", trials="2 ways")
@pytest.mark.parametrize("confined", ["namespaces", "limits"])
def test_code_ends_with_the_run(confined, tmp_path):
    """An endless program under a name that this test can find. Its time on a core has a limit besides."""
    name = f"winnow-orphan-{os.getpid()}-{confined}"
    program = (
        "import os, resource, sys\nassert resource.getrlimit(resource.RLIMIT_CPU) == (31, 31)\n"
        f"os.execv(sys.executable, [sys.executable, '-c', 'while True: pass', {name!r}])"
    )
    run = f"from winnow.evaluation import code_execution\ncode_execution._passes({program!r}, 30.0, {confined!r})"
    leader = subprocess.Popen([sys.executable, "-c", run], env=os.environ | {"TMPDIR": str(tmp_path)})
    assert within(20, lambda: running(name))
    leader.kill()
    leader.wait()
    assert within(3, lambda: not running(name))


def within(seconds: float, condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.1)
    return condition()


def running(name: str) -> bool:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(name.encode() in path.read_bytes().split(b"\0"))
        except OSError:
            continue
    return any(found)


@pytest.mark.fault("code of a model uses the network", promise="there is none, not even of this machine", trials="1")
def test_no_network():
    """A server of this process is not there."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert passes("import socket\n" + fails(f"socket.create_connection(('127.0.0.1', {port}), 2)"))


@pytest.mark.fault("code of a model undoes its confinement", promise="it has no capability to do so", trials="3")
@pytest.mark.parametrize(
    "attempt",
    [
        "subprocess.run(['mount', '-o', 'remount,rw', '/'], check=True)",
        "os.chroot('.')",
        "subprocess.run(['unshare', '--user', '--map-root-user', 'true'], check=True)",
    ],
)
def test_it_stays_confined(attempt):
    """To remount what is read-only, to leave the root, or to get the capabilities of a new namespace."""
    assert passes("import os\n" + fails(attempt))


@pytest.mark.parametrize("confined", ["namespaces", "limits"])
def test_limits_of_memory_and_files(confined):
    """4 GiB of addresses; a file of 2^20 bytes can be written, and not one more byte."""
    program = (
        "import resource\nassert resource.getrlimit(resource.RLIMIT_AS) == (4 * 2**30,) * 2\n"
        "assert resource.getrlimit(resource.RLIMIT_FSIZE) == (2**20,) * 2\n"
        "with open('whole', 'wb', 0) as file:\n    assert file.write(bytes(2**20)) == 2**20\n"
    )
    assert code_execution._passes(program + fails("file = open('whole', 'ab', 0); file.write(b'x')"), 10.0, confined)


def test_limits_are_there_where_namespaces_are_not():
    """Right and wrong programs are told apart, the environment is empty, and an endless one is stopped."""
    run = code_execution._passes
    assert run("import os\nassert 'PYTHONPATH' not in os.environ and len(os.environ) < 5", 10.0, "limits")
    assert not run("assert False", 10.0, "limits") and not run("while True: pass", 1.0, "limits")
