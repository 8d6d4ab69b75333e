"""Artifacts: finished work is reused, foreign content refused, damaged content computed anew."""

from __future__ import annotations

import errno
import json
import os
import random
import subprocess
import time
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from trials import context

from winnow.backbone import packaged
from winnow.errors import UserError
from winnow.store import files
from winnow.store.artifacts import Store, fingerprint
from winnow.store.files import SUM, replacing, seal, write_json, write_sum
from winnow.store.run_folder import earlier_output

TRIALS = int(os.environ.get("WINNOW_TRIALS", "20"))  # of each kind of damage


def flip(file, draw: random.Random) -> None:
    """Turn one bit of the file over, and forget what this process has checked."""
    content = bytearray(file.read_bytes())
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    file.write_bytes(content)
    files._sound.clear()


def _killed_in(block) -> None:
    with block:
        raise RuntimeError("killed")


def test_fingerprint_does_not_depend_on_key_order():
    assert fingerprint({"a": 1, "b": [2]}) == fingerprint({"b": [2], "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})


def test_finished_only_after_finish(tmp_path):
    """An interrupted computation is not taken for a finished one."""
    artifact = Store(tmp_path).artifact("models", {"a": 1})
    with pytest.raises(RuntimeError):
        _killed_in(artifact.claim())
    assert artifact.missing()
    with artifact.claim() as must_compute:
        assert must_compute
        artifact.finish()
    assert not artifact.missing()
    with artifact.claim() as must_compute:
        assert not must_compute


def test_metadata_may_hold_tuples(tmp_path):
    """JSON gives lists back: the same settings, given again, are the same artifact, interrupted or finished."""
    meta = {"datasets": ("sst2", "lap14")}
    with pytest.raises(RuntimeError):
        _killed_in(Store(tmp_path).artifact("evaluations", meta).claim())
    artifact = Store(tmp_path).artifact("evaluations", meta)
    with artifact.claim() as must_compute:
        assert must_compute
        artifact.finish()
    assert not Store(tmp_path).artifact("evaluations", {"datasets": ["sst2", "lap14"]}).missing()


def test_foreign_metadata_is_refused(tmp_path):
    """A folder whose meta.json is not what its name stands for is never read."""
    artifact = Store(tmp_path).artifact("models", {"a": 1})
    with artifact.claim():
        artifact.finish()
    (artifact.path / "meta.json").write_text(json.dumps({"a": 2}))
    with pytest.raises(UserError, match="delete the folder"):
        assert not artifact.missing()


def test_folder_that_cannot_be_made(tmp_path):
    """A file stands where the store should be: one sentence that names paths.store."""
    (tmp_path / "file").write_text("")
    artifact = Store(tmp_path / "file").artifact("models", {})
    with pytest.raises(UserError, match="paths.store"), artifact.claim():
        pass


def _compute_slowly(root, log):
    artifact = Store(root).artifact("models", {"a": 1})
    with artifact.claim() as must_compute:
        if must_compute:
            log.put("computed")
            time.sleep(0.5)
            artifact.finish()


@pytest.mark.fault("two processes ask for the same artifact", promise="one computes, the other waits", trials="1")
def test_two_processes_compute_once(tmp_path):
    """Both ask at once; one computes, the other waits and finds it done."""
    log = context().Queue()
    workers = [context().Process(target=_compute_slowly, args=(tmp_path, log)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert log.get(timeout=5) == "computed" and log.empty()


@pytest.mark.fault(
    "a file of an artifact is cut, gone, longer, or of an older store",
    promise="it is computed anew, and one sentence says so",
    trials="4 kinds",
)
@pytest.mark.parametrize("damage", ["cut", "gone", "longer", "old store"])
def test_a_damaged_artifact_is_computed_anew(tmp_path, damage, capsys):
    """Not used, said once, and whole again afterwards. A store that was made before there were checksums has an empty
    DONE."""
    artifact = Store(tmp_path).artifact("evaluations", {"a": 1})
    result = artifact.path / "result.json"
    with artifact.claim():
        result.write_text('{"accuracy": 0.5}')
        artifact.finish()
    assert not artifact.missing() and artifact.result("result.json") == {"accuracy": 0.5}
    files._sound.clear()
    if damage == "gone":
        result.unlink()
    elif damage == "old store":
        (artifact.path / "DONE").write_text("")
    else:
        result.write_text('{"acc' if damage == "cut" else '{"accuracy": 0.55}')
    assert artifact.missing()
    with artifact.claim() as must_compute:
        assert must_compute and not (artifact.path / "DONE").exists()
        result.write_text('{"accuracy": 0.5}')
        artifact.finish()
    name = "DONE" if damage == "old store" else "result.json"
    assert capsys.readouterr().out.startswith(f"Computing {artifact.path} anew: {artifact.path / name} ")
    assert not artifact.missing()


@pytest.mark.fault(
    "a flipped bit in a tuned model, an evaluation's result, its samples or their seal",
    promise="the artifact is not used",
    trials="20 in CI, 300 with WINNOW_TRIALS=300",
)
@pytest.mark.parametrize("name", ["result.json", "samples.jsonl", "model/adapter_model.safetensors", "DONE"])
def test_no_flipped_bit_is_used(tmp_path, name, record_property):
    """A bit of a byte drawn at random, in a result, a list of answers, an adapter, the checksums. The artifact is then
    not finished, unless the flip left the very same checksums (it hit a blank)."""
    artifact = Store(tmp_path).artifact("models", {"a": 1})
    (artifact.path / "model").mkdir(parents=True)
    with artifact.claim():
        (artifact.path / "result.json").write_text('{"accuracy": 0.5}')
        (artifact.path / "samples.jsonl").write_text('{"task": "copa"}\n' * 20)
        (artifact.path / "model" / "adapter_model.safetensors").write_bytes(random.Random(1).randbytes(4000))
        artifact.finish()
    record_property("trials", TRIALS)
    draw, file, used = random.Random(0), artifact.path / name, 0
    whole, sums = file.read_bytes(), json.loads((artifact.path / "DONE").read_text())
    for _ in range(TRIALS):
        flip(file, draw)
        if not artifact.missing():
            used += name != "DONE" or json.loads(file.read_text()) != sums
        file.write_bytes(whole)
    files._sound.clear()
    assert used == 0 and not artifact.missing()


@pytest.mark.fault(
    "a flipped bit in the scores or the selection of an earlier stage, or in their checksums",
    promise="one sentence, and the file is not used",
    trials="20 of each file in CI, 300 with WINNOW_TRIALS=300",
)
@pytest.mark.parametrize("file", ["scores.parquet", "selection.json"])
@pytest.mark.parametrize("damaged", ["", SUM])
def test_no_flipped_bit_of_a_run_folder_is_used(tmp_path, file, damaged, record_property):
    """A bit of a byte drawn at random, the footer of the Parquet file among them."""
    path = tmp_path / file
    if file == "scores.parquet":
        pq.write_table(pa.table({"id": ["a", "b"], "score": [0.5, 1.5]}), path)
    else:
        write_json(path, {"decisions": [{"id": "a", "row": 0, "selected": True}]})
    write_sum(path)
    record_property("trials", TRIALS)
    draw, flipped = random.Random(0), tmp_path / (file + damaged)
    whole = flipped.read_bytes()
    for _ in range(TRIALS):
        flip(flipped, draw)
        with pytest.raises(
            UserError, match=f"{file} is damaged: {file}.sha256 is missing or has another checksum; run the stage"
        ):
            earlier_output(tmp_path, file, "score")
        flipped.write_bytes(whole)
    assert earlier_output(tmp_path, file, "score") == path
    assert subprocess.run(["sha256sum", "--check", "--quiet", file + SUM], cwd=tmp_path).returncode == 0


@pytest.mark.fault(
    "a flipped bit in the unpacked backbone in the cache",
    promise="it is unpacked again",
    trials="20 in CI, 300 with WINNOW_TRIALS=300",
)
def test_the_unpacked_backbone_is_made_once_and_again_when_damaged(tmp_path, monkeypatch, capsys, record_property):
    """Unpacked, found, and unpacked anew after each flip of a bit; also a folder of a version that wrote no checksums.
    Nothing is left beside it."""
    record_property("trials", TRIALS)
    made = []

    def convert(gguf, folder):
        made.append(folder)
        (folder / "model.safetensors").write_bytes(random.Random(2).randbytes(2000))

    monkeypatch.setattr(packaged, "packaged_identity", lambda name: {"package": "smol", "version": "1"})
    monkeypatch.setattr(packaged, "shipped", lambda *given: ("smol", "1", None))
    monkeypatch.setattr(packaged, "_convert", convert)
    target = packaged.unpack("smol", tmp_path)
    assert packaged.unpack("smol", tmp_path) == target and len(made) == 1 and capsys.readouterr().out == ""
    file, draw = target / "model.safetensors", random.Random(0)
    whole = file.read_bytes()
    for trial in range(TRIALS):
        flip(file, draw)
        packaged.unpack("smol", tmp_path)
        assert len(made) == 2 + trial and file.read_bytes() == whole
    assert f"Making {target} anew: {file} is damaged." in capsys.readouterr().out
    (target / "DONE").unlink()
    packaged.unpack("smol", tmp_path)
    assert len(made) == 2 + TRIALS and sorted(tmp_path.iterdir()) == [target, Path(f"{target}.lock")]


def test_files_are_read_once_in_a_process(tmp_path, monkeypatch):
    """Checking costs a reading of all files: the second time it is known, under the same checksums alone."""
    artifact = Store(tmp_path).artifact("models", {"a": 1})
    with artifact.claim():
        artifact.finish()
    files._sound.clear()
    assert not artifact.missing()
    monkeypatch.setattr(files, "_checksum", None)
    assert not artifact.missing()
    (artifact.path / "DONE").write_text('{"model.safetensors": ["00", 1]}')
    assert artifact.missing()


def test_an_artifact_that_the_system_cannot_read_is_kept(tmp_path, monkeypatch):
    """An error of the disk is no damage: a model is not tuned anew because of it, nor its folder to be deleted."""
    artifact = Store(tmp_path).artifact("models", {"a": 1})
    with artifact.claim():
        artifact.finish()

    def fail(*_, **__):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    for owner, name in ((files, "_checksum"), (Path, "read_text")):
        files._sound.clear()
        monkeypatch.setattr(owner, name, fail)
        with pytest.raises(UserError, match="meta.json cannot be read: Input/output error; it is kept"):
            artifact.missing()
        monkeypatch.undo()
    assert not artifact.missing()


@pytest.mark.parametrize("killed", [False, True])
def test_checkpoints_are_kept_until_the_artifact_is_sealed(tmp_path, monkeypatch, killed):
    """They are not sealed; if the process is killed before it has removed them, the next use does."""
    artifact = Store(tmp_path).artifact("models", {"a": 1})
    left = artifact.path / "checkpoints" / "step_2.ckpt"
    with artifact.claim():
        left.parent.mkdir()
        left.write_text("a")
        monkeypatch.setattr(files, "_checksum", lambda file: _killed_in(nullcontext()))
        with pytest.raises(RuntimeError):
            artifact.finish()
        assert left.exists() and artifact.missing()
        monkeypatch.undo()
        seal(artifact.path) if killed else artifact.finish()
    assert left.exists() == killed and list(json.loads((artifact.path / "DONE").read_text())) == ["meta.json"]
    assert not artifact.missing() and not left.parent.exists() and not artifact.missing()


@contextmanager
def _half_written(path):
    with replacing(path) as partial:
        if path.is_dir():
            partial.mkdir()
        (partial / "a" if path.is_dir() else partial).write_text("new")
        yield


def test_replacing_leaves_the_old_one_when_the_block_fails(tmp_path):
    """File or folder: the old content stays, and nothing is left beside it."""
    (tmp_path / "file").write_text("old")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a").write_text("old")
    for name in ("file", "folder"):
        with pytest.raises(RuntimeError):
            _killed_in(_half_written(tmp_path / name))
    assert (tmp_path / "file").read_text() == (tmp_path / "folder" / "a").read_text() == "old"
    with replacing(tmp_path / "folder") as partial:
        partial.mkdir()
        (partial / "b").write_text("new")
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == ["file", "folder", "folder/b"]


def test_a_seal_names_every_file(tmp_path):
    """SHA-256 of "abc" is that of FIPS 180-2, appendix B.1."""
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "a").write_text("abc")
    seal(tmp_path)
    assert json.loads((tmp_path / "DONE").read_text()) == {
        "inner/a": ["ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", 3]
    }
