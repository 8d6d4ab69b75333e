"""The store: finished work is reused, foreign content refused, half-written parts never seen."""

from __future__ import annotations

import json
import multiprocessing
import shutil
import time

import pyarrow as pa
import pytest

from winnow.errors import UserError
from winnow.store.artifacts import ColumnParts, Store, fingerprint

SCHEMA = pa.schema([("id", pa.string()), ("x", pa.float32())])


def test_fingerprint_does_not_depend_on_key_order():
    assert fingerprint({"a": 1, "b": [2]}) == fingerprint({"b": [2], "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})


def test_finished_only_after_finish(tmp_path):
    """An interrupted computation is not taken for a finished one."""
    artifact = Store(tmp_path).artifact("passes", {"a": 1})
    with pytest.raises(RuntimeError), artifact.claim() as must_compute:
        assert must_compute
        raise RuntimeError("killed")
    assert not artifact.finished
    with artifact.claim() as must_compute:
        assert must_compute
        artifact.finish()
    assert artifact.finished
    with artifact.claim() as must_compute:
        assert not must_compute


def test_metadata_may_hold_tuples(tmp_path):
    """JSON gives lists back: the same settings, given again, are the same artifact, interrupted or finished."""
    meta = {"datasets": ("sst2", "lap14")}
    with pytest.raises(RuntimeError), Store(tmp_path).artifact("evaluations", meta).claim():
        raise RuntimeError("killed")
    artifact = Store(tmp_path).artifact("evaluations", meta)
    with artifact.claim() as must_compute:
        assert must_compute
        artifact.finish()
    assert Store(tmp_path).artifact("evaluations", {"datasets": ["sst2", "lap14"]}).finished


def test_foreign_metadata_is_refused(tmp_path):
    """A folder whose meta.json is not what its name stands for is never read."""
    artifact = Store(tmp_path).artifact("passes", {"a": 1})
    with artifact.claim():
        artifact.finish()
    (artifact.path / "meta.json").write_text(json.dumps({"a": 2}))
    with pytest.raises(UserError, match="delete the folder"):
        assert artifact.finished


def test_folder_that_cannot_be_made(tmp_path):
    """A file stands where the store should be: one sentence that names paths.store."""
    (tmp_path / "file").write_text("")
    artifact = Store(tmp_path / "file").artifact("passes", {})
    with pytest.raises(UserError, match="paths.store"), artifact.claim():
        pass


def _compute_slowly(root, log):
    artifact = Store(root).artifact("passes", {"a": 1})
    with artifact.claim() as must_compute:
        if must_compute:
            log.put("computed")
            time.sleep(0.5)
            artifact.finish()


def test_two_processes_compute_once(tmp_path):
    """Both ask at once; one computes, the other waits and finds it done."""
    context = multiprocessing.get_context("spawn")
    log = context.Queue()
    workers = [context.Process(target=_compute_slowly, args=(tmp_path, log)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert log.get(timeout=5) == "computed" and log.empty()


def test_parts_merge_sorted_and_once(tmp_path):
    """Ids in order, each once, whichever part it came in."""
    parts = ColumnParts(tmp_path, SCHEMA)
    parts.write({"id": ["c", "a"], "x": [3.0, 1.0]})
    parts.write({"id": ["b", "a"], "x": [2.0, 1.0]})
    assert parts.done_ids() == {"a", "b", "c"}
    parts.merge(["a", "b", "c"])
    assert parts.table().to_pydict() == {"id": ["a", "b", "c"], "x": [1.0, 2.0, 3.0]}


def test_broken_part_is_named(tmp_path):
    """A damaged file is not skipped: its records would be missing without a word."""
    parts = ColumnParts(tmp_path, SCHEMA)
    parts.write({"id": ["a"], "x": [1.0]})
    file = next((tmp_path / "parts").iterdir())
    file.write_bytes(b"rubbish")
    with pytest.raises(UserError, match=f"{file.name}.*delete it"):
        parts.done_ids()


def test_lost_part_is_not_merged_over(tmp_path):
    """A part that vanished while the pass ran must not end as a finished table with a hole in it."""
    parts = ColumnParts(tmp_path, SCHEMA)
    parts.write({"id": ["a"], "x": [1.0]})
    with pytest.raises(UserError, match="lost the columns of 1 records"):
        parts.merge(["a", "b"])


def test_two_jobs_drop_the_parts_of_one_pass(tmp_path, monkeypatch):
    """Another job that shares the pass is quicker with one of the files."""
    parts = ColumnParts(tmp_path, SCHEMA)
    parts.write({"id": ["a"], "x": [1.0]})
    parts.write({"id": ["b"], "x": [1.0]})
    seen = parts._files()
    seen[0].unlink()
    monkeypatch.setattr(parts, "_files", lambda: seen)
    parts.drop()
    assert not list((tmp_path / "parts").iterdir())


@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_damaged_columns_of_a_finished_pass(tmp_path, damage):
    """DONE outlives the file: the folder is what must be deleted, and then the pass is computed again."""
    artifact = Store(tmp_path).artifact("passes", {"a": 1})
    with artifact.claim():
        parts = ColumnParts(artifact.path, SCHEMA)
        parts.write({"id": ["a"], "x": [1.0]})
        parts.merge(["a"])
        artifact.finish()
    file = artifact.path / "columns.parquet"
    file.unlink() if damage == "gone" else file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(UserError, match=f"columns.parquet cannot be read.*delete the folder {artifact.path} and"):
        parts.table()
    shutil.rmtree(artifact.path)
    with artifact.claim() as must_compute:
        assert must_compute


@pytest.mark.parametrize(
    ("content", "told"),
    [(None, "is missing"), ("", "cannot be read"), ('{"a": ', "cannot be read"), ("[1]", "holds no JSON object")],
)
def test_damaged_result_of_a_finished_artifact(tmp_path, content, told):
    artifact = Store(tmp_path).artifact("evaluations", {"a": 1})
    with artifact.claim():
        artifact.finish()
    if content is not None:
        (artifact.path / "result.json").write_text(content)
    with pytest.raises(UserError, match=f"result.json {told}.*delete the folder {artifact.path} and start again"):
        artifact.result("result.json")
