"""Errors of Hydra, YAML and the system that a user can mend: one sentence with the argument or file, and the cure."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys

import pytest
import requests
import torch
import yaml
from composed import config
from huggingface_hub.errors import GatedRepoError
from hydra.core.override_parser.overrides_parser import OverridesParser
from safetensors import SafetensorError

from winnow.config import check
from winnow.errors import UserError, login
from winnow.messages import user_sentence
from winnow.pages.card import _cell
from winnow.reproduce.publish import inert
from winnow.tracking.run_card import mask_hydra


@pytest.mark.parametrize(
    "value",
    [
        "/x/epoch=3,lr=1e-4.jsonl",
        "/x/my pool (v1).jsonl",
        "/x/[a].jsonl",
        "[x].jsonl",
        "/x/{a}.jsonl",
        "/x/a#b&c%20.jsonl",
        "it's (mine).jsonl",
        "a;b!.jsonl",
        "a,b.jsonl",
    ],
)
def test_a_path_that_hydra_does_not_read_is_named_with_its_cure(value):
    """The sentence holds the argument; what it proposes is read by Hydra as the very path."""
    with pytest.raises(Exception) as caught:  # noqa: PT011  (the kind is Hydra's)
        config(f"data.path={value}")
    sentence = user_sentence(caught.value)
    assert sentence.startswith(f"data.path={value} cannot be read: put the value into quotes of its own")
    proposed = sentence[sentence.index('"') + 1 : sentence.rindex('"')]
    assert config(proposed).data.path == value
    assert OverridesParser.create().parse_override(proposed).key_or_group == "data.path"


def test_the_home_folder_has_its_own_cure():
    with pytest.raises(Exception) as caught:  # noqa: PT011  (the kind is Hydra's)
        config("paths.eval=~/eval")
    assert user_sentence(caught.value).endswith("the shell leaves ~ as it is there; write paths.eval=$HOME/eval.")


def test_a_word_that_is_no_argument():
    with pytest.raises(Exception) as caught:  # noqa: PT011  (the kind is Hydra's)
        config("ifd")
    assert user_sentence(caught.value) == "ifd is no argument: write key=value."


def test_a_value_with_a_comma_may_be_a_sweep():
    with pytest.raises(Exception) as caught:  # noqa: PT011  (the kind is Hydra's)
        config("seed=1,2")
    assert user_sentence(caught.value).endswith("\"seed='1,2'\"; for several values add --multirun.")


@pytest.mark.parametrize("key", ["data.columns", "data.path", "selection.embedding", "backbone.name"])
def test_none_is_written_null(key):
    with pytest.raises(UserError, match=f"{key}=None is a text; no value is written null."):
        check(config(f"++{key}=None"))


@pytest.mark.parametrize("text", ["a: !tag {b: 1}", "a: [1", "a: b: c", "\ta: 1", "a: 'b"])
def test_broken_yaml_names_file_and_line(tmp_path, text):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with path.open() as file, pytest.raises(yaml.YAMLError) as caught:
        yaml.safe_load(file)
    sentence = user_sentence(caught.value)
    assert sentence.startswith("Broken YAML: ") and f'in "{path}", line ' in sentence and "\n" not in sentence


def test_a_folder_where_a_file_should_be(tmp_path):
    with pytest.raises(OSError) as caught:  # noqa: PT011  (told by its number)
        tmp_path.open("w")
    assert user_sentence(caught.value).startswith(f"{tmp_path}: Is a directory; a file is expected there")


def test_a_name_that_is_too_long(tmp_path):
    """Linux takes names of 255 bytes."""
    with pytest.raises(OSError) as caught:  # noqa: PT011  (told by its number)
        (tmp_path / ("n" * 256)).mkdir()
    assert "File name too long; give shorter names" in user_sentence(caught.value)


@pytest.mark.fault(
    "a full disk, a limit on the size of files", promise="one sentence with the file and the cure", trials="2"
)
@pytest.mark.parametrize(
    ("limit", "device", "expected"), [(1000, "", "File too large"), (None, "/dev/full", "No space left on device")]
)
def test_a_disk_that_is_full(tmp_path, limit, device, expected):
    """A limit of 1,000 bytes on files, and the system's device that is always full; 5,000 bytes are written, to the
    device while a file of ours is made. Nothing is left of the file."""
    program = (
        "import sys\nfrom pathlib import Path\n"
        "from winnow.messages import user_sentence\nfrom winnow.store.files import replacing\n"
        "try:\n    with replacing(Path(sys.argv[1])) as partial, open(sys.argv[2] or partial, 'wb') as file:\n"
        "        file.write(b'x' * 5000)\n"
        "except Exception as error:\n    sys.exit(user_sentence(error))\n"
    )

    def limited() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    command = [sys.executable, "-B", "-c", program, str(tmp_path / "file"), device]
    ended = subprocess.run(command, capture_output=True, text=True, preexec_fn=limited)
    told = f"{tmp_path / 'file'} cannot be written: {expected}; choose a folder you may write to, or make room.\n"
    assert (ended.returncode, ended.stderr) == (1, told) and not list(tmp_path.iterdir())


def test_a_full_disk_that_a_library_in_rust_has_met():
    """safetensors and tokenizers have errors of their own, with the system's number in the text."""
    told = user_sentence(SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"))
    assert told.startswith("No space left on device; give another place")
    told = user_sentence(SafetensorError("Error while serializing: I/O error: File too large (os error 27)"))
    assert told.startswith("File too large; raise the limit on the size of files")
    assert user_sentence(Exception("Connection refused (os error 111)")) is None


@pytest.mark.fault(
    "no memory left, on a CPU or a GPU", promise="one sentence with the settings that take less", trials="3 errors"
)
@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
        torch.OutOfMemoryError("x"),
    ],
)
def test_out_of_memory(error):
    """Python's own error, torch's on a CPU and torch's on a GPU."""
    assert user_sentence(error).startswith("Out of memory; the store holds the finished results. Lower scoring.")


@pytest.mark.fault("the hub lets nobody in", promise="one sentence that names `hf auth login`", trials="1")
def test_a_gated_model_says_how_to_log_in():
    """The hub answers 401 or 403 for a model whose terms nobody of this account has accepted."""
    response = requests.Response()
    response.status_code = 403
    error = GatedRepoError("Access to model meta/x is restricted.", response=response)
    assert "run `hf auth login`" in user_sentence(error) and "\n" not in user_sentence(error)
    wrapped = OSError("You are trying to access a gated repo.")
    assert login(wrapped) == "accept its terms on its page and run `hf auth login`, or "
    assert login(OSError("no such file")) == ""


@pytest.mark.fault(
    "a secret on the command line", promise="masked in all that is written about the run", trials="3 files"
)
def test_secrets_are_masked_in_what_hydra_writes(tmp_path):
    """The three files of a job, as Hydra writes them; what else is in them stays, interpolations too. In a name
    that joins overrides all behind the secret goes, which may hold a comma."""
    written = tmp_path / ".hydra"
    written.mkdir()
    (written / "config.yaml").write_text("distortion:\n  api_key: s3cret\n  model: m\nseed: ${oc.env:X}\n")
    (written / "overrides.yaml").write_text("- distortion.api_key=s3cret\n- seed=1\n")
    (written / "hydra.yaml").write_text(
        "job:\n  override_dirname: distortion.api_key=s3cret,seed=1\noverrides:\n  task:\n  - +hf_token=s3cret\n"
    )
    mask_hydra(tmp_path)
    assert not any("s3cret" in path.read_text() for path in written.iterdir())
    kept = yaml.safe_load((written / "config.yaml").read_text())
    assert kept == {"distortion": {"api_key": "***", "model": "m"}, "seed": "${oc.env:X}"}
    assert yaml.safe_load((written / "overrides.yaml").read_text()) == ["distortion.api_key=***", "seed=1"]
    assert yaml.safe_load((written / "hydra.yaml").read_text())["job"]["override_dirname"] == "distortion.api_key=***"


@pytest.mark.fault("a file whose name is markup", promise="the run card shows the name", trials="1")
def test_names_are_escaped_in_the_card():
    """A file may be called like markup; in Markdown a backslash takes its meaning away."""
    assert _cell("<img src=x>|[a](b)`c`\n*d*") == r"\<img src=x\>\|\[a\](b)\`c\` \*d\*"


@pytest.mark.fault(
    "a formula in a cell of an exported table", promise="it is a text; subsets stay as the data is", trials="5 cells"
)
@pytest.mark.parametrize(
    ("cell", "written"), [("=1+1", "'=1+1"), ("@a", "'@a"), ("-0.5", "-0.5"), ("-x", "'-x"), (3, 3)]
)
def test_cells_of_tables_are_no_formulas(cell, written):
    """Spreadsheets run what begins with =, +, - or @; numbers below 0 stay numbers."""
    assert inert(cell) == written
