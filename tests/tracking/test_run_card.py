"""The run card: what it holds, that it holds no secret, and that it is there when a run fails."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

from winnow.errors import UserError
from winnow.pages.card import show_measure, show_number, show_seconds
from winnow.store.artifacts import Store
from winnow.store.files import write_atomically
from winnow.tracking.run_card import RunCard, command_line, git_state, masked

ARGV = ["/opt/env/lib/winnow/__main__.py", "method=ifd", "selection.ratio=0.05"]


def read(folder: Path) -> dict:
    return json.loads((folder / "run_card.json").read_text(encoding="utf-8"))


def test_card_has_the_agreed_content(tmp_path: Path) -> None:
    """The keys that other programs read, a stage timed by the clock (slept 0.05 s), and the same facts on the
    Markdown page."""
    with RunCard({"method": {"name": "ifd"}}, argv=ARGV).recording(tmp_path) as card:
        assert read(tmp_path)["status"] == "running"
        with card.stage("score") as stage:
            time.sleep(0.05)
            stage.status, stage.fingerprint = "reused", "0123456789abcdef"
            stage.results = {"arc_easy/acc": np.float64(0.61)}
        assert read(tmp_path)["stages"]["score"]["status"] == "reused"  # on disk before the run ends
        card.skip("tune")
        card.data = {"source": "pool.jsonl", "n_records": 300}
    content = read(tmp_path)
    assert list(content) == [
        "command",
        "started",
        "seconds",
        "status",
        "error",
        "stages",
        "data",
        "results",
        "git",
        "packages",
        "hardware",
        "config",
        "hydra",
        "price",
    ]
    assert content["command"] == "python -m winnow method=ifd selection.ratio=0.05"
    assert (content["status"], content["error"]) == ("finished", None)
    assert content["stages"]["score"]["fingerprint"] == "0123456789abcdef"
    assert 0.05 <= content["stages"]["score"]["seconds"] <= content["seconds"]
    assert content["stages"]["tune"] == {
        "seconds": 0.0,
        "status": "skipped",
        "fingerprint": None,
        "reused": None,
        "resumed": None,
        "results": {},
    }
    assert content["results"] == {"arc_easy/acc": 0.61}
    assert content["packages"]["python"].startswith("3.") and content["packages"]["torch"]
    assert content["hardware"]["cores"] >= 1 and content["hardware"]["memory_gib"] > 0
    page = (tmp_path / "run_card.md").read_text()
    for expected in (content["command"], "| score | reused |", "| arc_easy/acc | 0.61 |", "pool.jsonl", "name: ifd"):
        assert expected in page
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run_card.json", "run_card.md"]


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (UserError("pool.jsonl: empty file"), "pool.jsonl: empty file"),
        (ValueError("bad"), "ValueError: bad"),
        (KeyboardInterrupt(), "Interrupted in the stage score; finished: no stage."),
    ],
)
def test_card_of_a_failed_run(tmp_path: Path, error: BaseException, sentence: str) -> None:
    """The exception reaches the caller; the card says which stage failed and why."""
    with pytest.raises(type(error)), RunCard({}, argv=ARGV).recording(tmp_path) as card, card.stage("score"):
        raise error
    content = read(tmp_path)
    status = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
    assert (content["status"], content["error"]) == (status, sentence)
    assert content["stages"]["score"]["status"] == status
    assert f"**Error.** {sentence}" in (tmp_path / "run_card.md").read_text()


def test_secrets_are_masked_and_settings_are_not() -> None:
    """Keys that name a secret lose their value, at any depth and in OmegaConf nodes (interpolations
    resolved); settings whose names merely contain `token` or `key` keep theirs, and an unset secret stays
    visibly unset."""
    config = OmegaConf.create(
        {
            "tracking": {"api_key": "s3cret", "token": None, "nested": [{"hf_token": "s3cret", "password": "s3cret"}]},
            "secret": "s3cret",
            "template": {"first_token": "skip", "max_new_tokens": 5, "tokenizer": "gpt2", "token_budget": 4096},
            "copy": "${template.max_new_tokens}",
            "key": "row",
        }
    )
    plain = masked(config)
    assert "s3cret" not in json.dumps(plain)
    assert plain["tracking"] == {"api_key": "***", "token": None, "nested": [{"hf_token": "***", "password": "***"}]}
    assert plain["template"] == config.template
    assert (plain["copy"], plain["key"]) == (5, "row")


def test_numbers_that_json_lacks() -> None:
    """NaN and infinity become words, so that run_card.json is read by every JSON parser."""
    assert masked({"a": float("nan"), "b": float("inf"), "c": np.int64(3)}) == {"a": "nan", "b": "inf", "c": 3}


def test_command_line() -> None:
    """No interpreter path; words with blanks quoted; values of secret keys gone, `+key` and `++key` overrides and
    dictionaries included."""
    assert command_line(["/x/bin/winnow", "a=1 2"]) == "winnow 'a=1 2'"
    assert command_line(["scripts/try.py", "-v"]) == "python scripts/try.py -v"
    line = command_line([*ARGV, "++tracking.api_key=abc", "template.first_token=skip", "--api-key=abc"])
    assert "abc" not in line and "first_token=skip" in line
    words = ["+tracking={api_key:abc}", "x={a:1,b:{api_key: abc},c:[2]}", '+env={"HF_TOKEN":"abc d",first_token:skip}']
    assert [masked(word) for word in words] == [
        "+tracking={api_key:***}",
        "x={a:1,b:{api_key: ***},c:[2]}",
        '+env={"HF_TOKEN":***,first_token:skip}',
    ]
    assert line.startswith("python -m winnow method=ifd")


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    return subprocess.run(
        ["git", "-C", folder, *identity, *arguments], check=True, capture_output=True, text=True
    ).stdout.strip()


def test_git_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outside git: nulls. Tracked and unchanged: clean; changed: dirty. A folder that merely lies inside a
    repository without being tracked there (an installed package in somebody's checkout) is outside. GIT_DIR,
    as hooks set it, leads nowhere."""
    unknown = {"commit": None, "dirty": None}
    package = tmp_path / "package"
    package.mkdir()
    (package / "file.py").write_text("1")
    assert git_state(package) == unknown
    git(tmp_path, "init", "-q")
    assert git_state(package) == unknown
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "first")
    commit = git(tmp_path, "rev-parse", "HEAD")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "nowhere"))
    assert git_state(package) == {"commit": commit, "dirty": False}
    (package / "file.py").write_text("2")
    assert git_state(package) == {"commit": commit, "dirty": True}
    installed = tmp_path / "env"
    installed.mkdir()
    (installed / "other.py").write_text("1")
    assert git_state(installed) == unknown
    monkeypatch.setenv("PATH", "")
    assert git_state(package) == unknown


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    """Also after another error, which stays the one that is raised and carries the second as a note."""
    (tmp_path / "file").write_text("kept")
    with pytest.raises(UserError, match="cannot be written"):
        RunCard({}, argv=ARGV).write(tmp_path / "file")
    recording = RunCard({}, argv=ARGV).recording(tmp_path / "run")
    with pytest.raises(ValueError, match="first") as caught, recording as card:  # noqa: PT012  (both belong inside)
        card._folder = tmp_path / "file"
        raise ValueError("first")
    assert "cannot be written" in caught.value.__notes__[0]
    assert (tmp_path / "file").read_text() == "kept"


def test_write_atomic_keeps_half_a_surrogate_readable(tmp_path: Path) -> None:
    """Records from JSON may hold \\ud83d alone, which UTF-8 cannot encode; the file's JSON reads back to
    it."""
    write_atomically(tmp_path / "a.json", json.dumps({"text": "\ud83d"}, ensure_ascii=False))
    assert json.loads((tmp_path / "a.json").read_text()) == {"text": "\ud83d"}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_how_values_are_shown() -> None:
    """Durations in the largest two units; counts with separators; measures to four digits with their zeros; a
    true minus sign."""
    assert [show_seconds(s) for s in (0.04, 9.96, 59.6, 125, 11520)] == [
        "0.0 s",
        "10 s",
        "1 min 00 s",
        "2 min 05 s",
        "3 h 12 min",
    ]
    assert [show_number(v) for v in (None, 12345, 0.123456, -0.5, True)] == ["–", "12,345", "0.1235", "−0.5", "True"]
    measures = [show_measure(value) for value in (0.55, -1.5, 0, None, 2e-5)]
    assert measures == ["0.5500", "−1.500", "0", "–", "2e-05"]


def test_a_refused_request_leaves_the_card_of_the_finished_run(tmp_path: Path) -> None:
    """Its settings have no results here. Once an output is another, the card is that of the request."""
    with RunCard({"method": "ifd"}, argv=ARGV).recording(tmp_path) as card, card.stage("score") as stage:
        (tmp_path / "scores.parquet").write_text("0")
        stage.results = {"scored": 3}
    finished = read(tmp_path)
    with pytest.raises(UserError):
        _request(tmp_path, lambda: None)
    assert read(tmp_path) == finished
    with pytest.raises(UserError):
        _request(tmp_path, (tmp_path / "scores.parquet").unlink)
    assert (read(tmp_path)["status"], read(tmp_path)["config"]) == ("failed", {"method": "length"})


def _request(folder: Path, change) -> None:
    """A run with another method that changes the folder and fails."""
    with RunCard({"method": "length"}, argv=ARGV).recording(folder) as card, card.stage("score"):
        assert read(folder)["status"] == "running"
        change()
        raise UserError("made with other settings")


def test_a_stage_leaves_out_its_wait_for_another_run(tmp_path: Path) -> None:
    """Another run, here a thread, is at work in the folder of a pass for 2 s; the stage itself has next to no work."""
    card, folder, held = RunCard({}), Store(tmp_path).artifact("passes", {}), threading.Event()

    def work() -> None:
        with folder.lock():
            held.set()
            time.sleep(2)

    threading.Thread(target=work).start()
    held.wait()
    began = time.perf_counter()
    with card.stage("score"), folder.lock():
        pass
    assert time.perf_counter() - began > 1.5 and card.stages["score"].seconds < 1


def test_a_stage_that_is_not_asked_for_keeps_its_results(tmp_path: Path) -> None:
    """Until an earlier stage runs again, which drops its outputs."""
    for asked in (("score", "select"), ("tune",), ("score",)):
        with RunCard({}, argv=ARGV).recording(tmp_path) as card:
            for name in ("score", "select", "tune"):
                if name not in asked:
                    card.skip(name)
                    continue
                with card.stage(name) as stage:
                    stage.results = {name: 1}
        kept = {("tune",): {"score", "select", "tune"}}.get(asked, set(asked))
        assert read(tmp_path)["results"].keys() == kept
