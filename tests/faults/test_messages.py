"""Errors of Hydra, YAML and the system that a user can mend: one sentence with the argument or file, and the cure."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys

import pytest
import yaml
from composed import config
from hydra.core.override_parser.overrides_parser import OverridesParser

from winnow.config import check
from winnow.errors import UserError
from winnow.messages import user_sentence


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


@pytest.mark.parametrize(
    ("limit", "place", "expected"),
    [(1000, "file", "File too large; raise the limit on the size of files"), (None, "/dev/full", "No space left on")],
)
def test_a_disk_that_is_full(tmp_path, limit, place, expected):
    """A limit of 1,000 bytes on files, and the system's device that is always full; 5,000 bytes are written."""
    program = (
        "import sys\nfrom winnow.messages import user_sentence\n"
        "try:\n    with open(sys.argv[1], 'wb') as file:\n        file.write(b'x' * 5000)\n"
        "except OSError as error:\n    sys.exit(user_sentence(error))\n"
    )

    def limited() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    path = tmp_path / "file" if place == "file" else place
    command = [sys.executable, "-B", "-c", program, str(path)]
    ended = subprocess.run(command, capture_output=True, text=True, preexec_fn=limited)
    assert ended.returncode == 1 and expected in ended.stderr and "Traceback" not in ended.stderr
