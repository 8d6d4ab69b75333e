"""`winnow store`: what a store holds, and what it gives back."""

from __future__ import annotations

import os
import shutil

import pytest
from filelock import FileLock
from run_folders import run_folder

from winnow.errors import UserError
from winnow.store.contents import free, show_size, summary_lines
from winnow.tracking.run_card import RunCard


@pytest.fixture
def store(tmp_path):
    """Two passes of 100 bytes, one of which a run has used, and attacked prompts of 10 bytes."""
    for kind, name, size in (("passes", "a" * 16, 100), ("passes", "b" * 16, 100), ("prompts", "c" * 16, 10)):
        folder = tmp_path / "store" / kind / name
        folder.mkdir(parents=True)
        (folder / "part").write_bytes(b"x" * size)
    card = run_folder(tmp_path / "runs" / "1", seconds={"score": (1, "computed")}) / "run_card.json"
    card.write_text(card.read_text().replace('"fingerprint": null', f'"fingerprint": "{"a" * 16}"', 1))
    return tmp_path / "store"


def test_what_a_store_holds(store, tmp_path):
    """Two passes make 200 bytes; one of them is used. Prompts are not counted as unused."""
    lines = summary_lines(store, tmp_path / "runs")
    assert lines[2].split()[:5] == ["passes", "2", "200", "B", "1"]
    assert lines[-2].split()[:4] == ["prompts", "1", "10", "B"] and lines[-1].split() == ["together", "210", "B"]


def test_a_part_that_was_added_is_written_last(store, tmp_path):
    """The folder of a pass keeps its own time where its parts grow."""
    for folder in (store / "passes").iterdir():
        (folder / "parts").mkdir()
        os.utime(folder, (0, 0))
    assert summary_lines(store, tmp_path / "runs")[2].endswith("0.0 days ago")


def test_what_no_run_used_is_freed_and_the_rest_stays(store, tmp_path):
    assert free(store, ["unused"], tmp_path / "runs") == ["Freed 100 B: 1 of passes."]
    assert {path.name[0] for path in store.glob("*/*")} == {"a", "c"}
    assert free(store, ["prompts", "a" * 16], tmp_path / "runs") == [
        "Freed 100 B: 1 of passes.",
        "Freed 10 B: 1 of prompts.",
    ]


def test_what_an_earlier_run_of_the_folder_was_made_with_is_used(store, tmp_path):
    """A run that only writes its report leaves scores and selection as they are, and says so from its beginning; one
    that scores again drops the selection and what it was made with."""

    def run(**made):
        with RunCard({}, argv=["winnow"]).recording(tmp_path / "again") as card:
            assert "report" not in made or free(store, ["unused"], tmp_path / "again") == []
            for name in ("score", "select", "report"):
                if name not in made:
                    card.skip(name)
                    continue
                with card.stage(name) as stage:
                    stage.fingerprint = made[name] and 16 * made[name]

    (tmp_path / "again").mkdir()
    run(score="b"), run(select="a"), run(report=None), run(report=None)
    assert free(store, ["unused"], tmp_path / "again") == []
    run(score="b")
    assert free(store, ["unused"], tmp_path / "again") == ["Freed 100 B: 1 of passes."]
    assert (store / "passes" / ("b" * 16)).is_dir()


def test_a_model_that_a_run_began_from_is_used(store, tmp_path):
    """One of another run stands in no card here: the run folder links to it."""
    model = store / "models" / ("d" * 16) / "model"
    model.mkdir(parents=True)
    (tmp_path / "runs" / "1" / "start").symlink_to(model, target_is_directory=True)
    assert free(store, ["unused"], tmp_path / "runs") == ["Freed 100 B: 1 of passes."] and model.is_dir()


def test_what_another_process_writes_stays(store, tmp_path):
    with FileLock(store / "passes" / ("b" * 16) / "lock"):
        (line,) = free(store, ["b" * 16], tmp_path)
    assert line.startswith("Left: ") and (store / "passes" / ("b" * 16) / "part").is_file()


def test_a_newcomer_meets_nothing_of_what_is_deleted(store, tmp_path, monkeypatch):
    """A run computes the same artifact again while its folder is deleted: it has a folder and a lock of its own."""
    folder, rmtree = store / "passes" / ("b" * 16), shutil.rmtree

    def meanwhile(path) -> None:
        folder.mkdir()
        with FileLock(folder / "lock", timeout=0):
            (folder / "new").touch()
            rmtree(path)

    monkeypatch.setattr("winnow.store.contents.shutil.rmtree", meanwhile)
    assert free(store, ["unused"], tmp_path / "runs") == ["Freed 100 B: 1 of passes."]
    assert {path.name for path in folder.iterdir()} == {"lock", "new"} and len(list(store.glob("passes/*"))) == 2


def test_what_cannot_be_freed_is_one_sentence(store, tmp_path):
    """A name that is none, runs that are not there, a folder that is no store."""
    with pytest.raises(UserError, match="no such artifact"):
        free(store, ["pases"], tmp_path)
    with pytest.raises(UserError, match="everything would count as unused"):
        free(store, ["unused"], tmp_path / "none")
    with pytest.raises(UserError, match="is no store"):
        free(tmp_path / "none", [], tmp_path)


def test_sizes_have_a_unit():
    """3.5 MiB are 3.5 * 1024^2 = 3,670,016 bytes."""
    assert (show_size(999), show_size(3_670_016), show_size(2**41)) == ("999 B", "3.5 MiB", "2.0 TiB")
