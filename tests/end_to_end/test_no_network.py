"""No stage asks the internet for anything: a hook of Python's own refuses, and writes down, whatever is asked for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import import_module
from importlib.metadata import version

import matplotlib
import pytest
from offline_runs import exit_code_of, parse

from winnow.network import CONSTANTS, is_internet

# Loopback alone is let through: wandb's service and the data sets library's locks live there.
GUARDED = """
import sys
def hook(event, arguments):
    if event in ("socket.connect", "socket.sendto", "socket.getaddrinfo"):
        place = arguments[0] if event == "socket.getaddrinfo" else arguments[1]
        host = place[0] if isinstance(place, tuple) else place if event == "socket.getaddrinfo" else None
        if host and not str(host).startswith("127.") and host not in ("localhost", "::1"):
            print("ASKED FOR", event, host, flush=True)
            raise PermissionError(f"no network: {host}")
sys.addaudithook(hook)
import json
from winnow.__main__ import main
ends = []
for words in json.loads(sys.argv[1]):
    sys.argv = ["winnow", *words]
    try:
        ends.append(main())
    except SystemExit as ended:
        ends.append(ended.code)
print(json.dumps(ends))
"""


ELSEWHERE = ("cwd", "tmp")


@pytest.fixture(scope="module")
def guarded(tiny_folder, tmp_path_factory):
    """(folder, [what ended each command], output) of three commands in one process, under the hook, with a closed stdin
    and a home that holds no caches (the list of fonts lies elsewhere): five stages, the same with `offline=true`, and
    one whose evaluation asks for data of the hub."""
    folder = tmp_path_factory.mktemp("guarded")
    for name in ELSEWHERE:
        (folder / name).mkdir()
    settings = ["backbone=hub", f"backbone.name={tiny_folder}", "template.max_length=1500", "trainer=cpu"]
    settings += ["data.limit=12", "selection.ratio=0.5", "tuning.max_steps=1", "tuning.batch_size=4"]
    settings += ["evaluation.limit=2"]
    commands = [
        [*settings, f"paths.run={folder / name / 'run'}", f"paths.store={folder / name / 'store'}", *words]
        for name, words in (
            ("false", ["offline=false"]),
            ("true", ["offline=true"]),
            ("missed", ["offline=true", "evaluation=hellaswag_arc_easy"]),
        )
    ]
    inherited = {key: os.environ[key] for key in ("PATH", "PYTHONPATH") if key in os.environ}
    own = {"HOME": str(folder / "home"), "MPLCONFIGDIR": matplotlib.get_cachedir(), "OMP_NUM_THREADS": "1"}
    own |= {"TMPDIR": str(folder / "tmp")}
    python = [sys.executable, "-c", GUARDED, json.dumps(commands)]
    place = {"cwd": folder / "cwd", "env": inherited | own, "stdin": subprocess.DEVNULL}
    done = subprocess.run(python, capture_output=True, text=True, timeout=300, **place)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder, json.loads(done.stdout.splitlines()[-1]), done.stdout + done.stderr


@pytest.mark.fault(
    "no network",
    promise="without a W&B key, five stages on the embedded defaults open no internet socket",
    trials="with and without `offline=true`",
)
@pytest.mark.slow
def test_five_stages_open_no_internet_socket(guarded):
    """The embedded defaults, W&B without a key among them, ask for nothing, whether `offline` is said or not. Nor do
    they write into the user's home, the working folder or the temporary one, and W&B's files lie in the run folders,
    complete the moment the process has ended."""
    folder, ends, output = guarded
    assert ends[:2] == [None, None] and "ASKED FOR" not in output, output[-2000:]
    assert not (folder / "home").exists()
    assert [path for name in ELSEWHERE for path in (folder / name).rglob("*") if path.is_file()] == []
    for name in ("false", "true"):
        stages = json.loads((folder / name / "run" / "run_card.json").read_text())["stages"]
        assert [stage["status"] for stage in stages.values()] == ["computed"] * 5
        (file,) = (folder / name / "run").glob("wandb/offline-run-*/*.wandb")
        assert exit_code_of(parse(file.read_bytes())) == 0


@pytest.mark.fault("data of the evaluation cannot be had", promise="one sentence before the first stage", trials="1")
@pytest.mark.slow
def test_data_of_a_later_stage_is_missed_before_the_first(guarded):
    """HellaSwag is neither in the empty cache nor to be had offline: one sentence with the way out, and no pass has
    begun."""
    folder, ends, output = guarded
    assert ends[2].startswith("error: The data of hellaswag cannot be fetched from the Hugging Face hub")
    assert "evaluation.mirror=<folder>" in ends[2] and "\n" not in ends[2] and "Traceback" not in output
    assert not list((folder / "missed").rglob("*.parquet"))


@pytest.mark.parametrize(
    ("host", "outside"),
    [
        ("huggingface.co", True),
        (b"s3.amazonaws.com", True),
        ("8.8.8.8", True),
        ("2001:4860:4860::8888", True),
        ("localhost", False),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("fe80::1%eth0", False),
        ("", False),
        (None, False),
        (16, False),
    ],
)
def test_what_counts_as_the_internet(host, outside):
    """Loopback and private addresses do not, so that processes of one run find each other."""
    assert is_internet(host) is outside


def test_the_libraries_have_the_constants_that_offline_sets():
    """A name that is gone would be set in vain. Version 5 of transformers asks the hub's client."""
    for module, names in CONSTANTS.items():
        if module != "transformers.utils.hub" or version("transformers").startswith("4."):
            assert [name for name in names if not hasattr(import_module(module), name)] == []


def test_offline_is_enforced():
    """Whatever asks for the internet is refused in one sentence, naming the host; this machine is not."""
    program = (
        "import socket, pytest\nfrom winnow.errors import UserError\nfrom winnow.network import set_offline\n"
        "set_offline(True)\n"
        "name, number = lambda: socket.getaddrinfo('example.org', 1), lambda: socket.socket().connect(('8.8.8.8', 1))\n"
        "for ask in (name, number):\n"
        "    with pytest.raises(UserError, match='offline=true, but (example.org|8.8.8.8) was asked for'):\n"
        "        ask()\n"
        "server = socket.create_server(('127.0.0.1', 0))\n"
        "socket.create_connection(server.getsockname()).close()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
