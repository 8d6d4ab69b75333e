"""Columns of records: ids are the keys, nothing damaged is read, and no kill costs or doubles a row."""

from __future__ import annotations

import errno
import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from trials import context

from winnow.errors import UserError
from winnow.store import columns as module
from winnow.store.artifacts import Store
from winnow.store.columns import MANY, Columns

HERE = multiprocessing.get_context("fork")
TRIALS = int(os.environ.get("WINNOW_TRIALS", "20"))
SCHEMA = pa.schema([("id", pa.string()), ("nll", pa.list_(pa.float32())), ("flag", pa.string())])


def columns_in(root) -> Columns:
    return Columns(Store(root), "passes", {"pass": "a"}, SCHEMA)


def value(record_id: str) -> list[float]:
    """What stands under an id, known from the id alone."""
    return [float(int(record_id)), 0.5]


def append(columns: Columns, numbers) -> Path:
    ids = [str(number) for number in numbers]
    return columns.append({"id": ids, "nll": [value(i) for i in ids], "flag": [None] * len(ids)})


def check(columns: Columns, numbers) -> None:
    """These records are there, each once and with its own values."""
    ids = [str(number) for number in numbers]
    rows = columns.read(ids).to_pylist()
    assert sorted(row["id"] for row in rows) == sorted(ids)
    assert all(row == {"id": row["id"], "nll": value(row["id"]), "flag": None} for row in rows)


def parts(columns: Columns) -> list[Path]:
    return sorted((columns.path / "parts").glob("*.parquet"))


def test_ids_are_the_keys(tmp_path):
    """Rows come back by id, whichever part holds them, each once though two parts have it."""
    columns = columns_in(tmp_path)
    assert columns.missing(["2", "1"]) == ["2", "1"]
    append(columns, [3, 1])
    append(columns, [2, 1])
    assert columns.missing(["5", "1", "2", "4"]) == ["5", "4"]
    check(columns, [1, 2, 3])
    check(columns, [2])
    check(columns, [])


def test_other_columns_are_not_read(tmp_path):
    """Those that are asked for, in their order, also where no row is."""
    columns = columns_in(tmp_path)
    append(columns, [1, 2])
    assert columns.read(["2"], ["id", "flag"]).to_pylist() == [{"id": "2", "flag": None}]
    assert columns.read([], ["nll", "id"]).column_names == ["nll", "id"]


def test_what_is_not_there_is_not_made_up(tmp_path):
    columns = columns_in(tmp_path)
    append(columns, [1])
    with pytest.raises(UserError, match="lost the columns of 2 records"):
        columns.read(["1", "2", "3"])


def test_foreign_metadata_is_refused(tmp_path):
    columns = columns_in(tmp_path)
    with columns.claim(["1"]):
        append(columns, [1])
    (columns.path / "meta.json").write_text("{}")
    with pytest.raises(UserError, match="delete the folder"):
        columns.missing(["1"])


def test_a_part_of_an_older_store_is_not_read(tmp_path, capsys):
    """Its name is no hash of its bytes. One with other columns, from a pass that was edited, is put aside as well."""
    columns = columns_in(tmp_path)
    append(columns, [1]).rename(columns.path / "parts" / f"{'0' * 32}.parquet")
    pq.write_table(pa.table({"id": ["1"]}), columns.path / "columns.parquet")
    Columns(Store(tmp_path), "passes", {"pass": "a"}, pa.schema([("id", pa.string())])).append({"id": ["1"]})
    assert columns.missing(["1"]) == ["1"] and parts(columns) == []
    told = capsys.readouterr().out
    assert "is damaged: it is put aside" in told and "does not hold these columns: it is put aside" in told


@pytest.mark.fault(
    "a flipped bit in a part of a pass",
    promise="the part is not used, its records are computed again",
    trials="20 in CI, 300 with WINNOW_TRIALS=300",
)
def test_no_flipped_bit_is_used(tmp_path, capsys, record_property):
    """A bit of a byte drawn at random in one of two parts: its records are missing, the other's are there."""
    record_property("trials", TRIALS)
    draw = random.Random(0)
    for trial in range(TRIALS):
        columns = columns_in(tmp_path / str(trial))
        append(columns, range(50))
        part = append(columns, range(50, 100))
        content = bytearray(part.read_bytes())
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        part.write_bytes(content)
        assert columns.missing([str(i) for i in range(100)]) == [str(i) for i in range(50, 100)]
        assert capsys.readouterr().out.startswith(f"{part} is damaged: it is put aside")
        append(columns, range(50, 100))
        check(columns, range(100))


@pytest.mark.parametrize("content", [b"", b"rubbish"])
def test_a_cut_part_is_not_used(tmp_path, content):
    columns = columns_in(tmp_path)
    append(columns, [1]).write_bytes(content)
    assert columns.missing(["1"]) == ["1"]


@pytest.mark.parametrize(("number", "text"), [(errno.EIO, "Input/output error"), (errno.ESTALE, None)])
def test_a_part_that_the_system_cannot_read_is_kept(tmp_path, monkeypatch, number, text):
    """An error of the disk says nothing about the content; over NFS, ESTALE is a file that is gone."""
    columns = columns_in(tmp_path)
    part = append(columns, [1])

    def read_bytes(self):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    if text is None:
        assert columns.missing(["1"]) == ["1"]
    else:
        with pytest.raises(UserError, match=f"{part} cannot be read: {text}; it is kept"):
            columns.missing(["1"])
    monkeypatch.undo()
    check(columns, [1])


def test_damage_is_not_merged_into_a_sound_part(tmp_path):
    """Merging gives a part a new name: what it reads must be checked before."""
    columns = columns_in(tmp_path)
    made = [append(columns, [i]) for i in range(MANY + 2)]
    made[3].write_bytes(made[4].read_bytes())
    columns.finish()
    assert len(parts(columns)) == 1
    check(columns, [i for i in range(MANY + 2) if i != 3])
    assert columns.missing(["3"]) == ["3"]


def test_many_small_parts_become_one(tmp_path, monkeypatch):
    """Sorted by id, each id once, in row groups of at most ROWS rows; large parts are left alone, and few are too."""
    monkeypatch.setattr(module, "ROWS", 10)
    columns = columns_in(tmp_path)
    for start in range(MANY):
        append(columns, range(start, start + 5))
    columns.finish()
    assert len(parts(columns)) == MANY
    append(columns, range(100, 125))
    columns.finish()
    (merged,) = parts(columns)
    ids = pq.read_table(merged)["id"].to_pylist()
    assert ids == sorted({str(i) for i in [*range(MANY + 4), *range(100, 125)]})
    assert pq.ParquetFile(merged).metadata.num_row_groups == -(-len(ids) // 10)
    monkeypatch.setattr(module, "SMALL", 1)
    for start in range(MANY):
        append(columns, [200 + start])
    columns.finish()
    assert len(parts(columns)) == 1 + MANY


def test_merging_into_what_is_there_already_loses_nothing(tmp_path):
    """The merged part may be, byte for byte, one of those that it was made of: one that has all rows of the others."""
    columns = columns_in(tmp_path)
    append(columns, sorted(range(20), key=str))
    for number in range(MANY):
        append(columns, [number])
    columns.finish()
    check(columns, range(20))
    assert len(parts(columns)) == 1


@pytest.mark.fault(
    "SIGKILL at each step of merging parts", promise="no record is lost, none is there twice", trials="each step"
)
@pytest.mark.parametrize(("call", "stop"), [("replace", 0), *[("unlink", stop) for stop in range(MANY + 4)]])
def test_killed_while_merging(tmp_path, monkeypatch, call, stop):
    """Killed before the rename and before each removal, two of them by what writes the merged part: every row is there,
    and the next merge ends the work."""
    columns, calls = columns_in(tmp_path), []
    for number in range(MANY + 2):
        append(columns, [number])
    owner = {"replace": os, "unlink": Path}[call]
    real = getattr(owner, call)

    def killed(*given, **named):
        if len(calls) == stop:
            os.kill(os.getpid(), signal.SIGKILL)
        calls.append(given)
        return real(*given, **named)

    monkeypatch.setattr(owner, call, killed)
    worker = HERE.Process(target=columns.finish)
    worker.start()
    monkeypatch.undo()
    worker.join(60)
    assert worker.exitcode == -signal.SIGKILL
    check(columns, range(MANY + 2))
    with columns.claim([str(MANY + 2)]) as missing:
        append(columns, missing)
        columns.finish()
    check(columns, range(MANY + 3))
    assert len(parts(columns)) <= MANY and not list(columns.path.rglob("*.tmp"))


def test_a_reader_outlives_a_merge(tmp_path, monkeypatch):
    """Another process merges after the reader has listed the parts: it looks again and finds all rows once."""
    columns = columns_in(tmp_path)
    for number in range(MANY + 2):
        append(columns, [number])
    real, opened = Columns._open, []

    def merged_meanwhile(self, file):
        opened.append(file)
        if len(opened) == 3:
            columns_in(tmp_path).finish()
        return real(self, file)

    monkeypatch.setattr(Columns, "_open", merged_meanwhile)
    check(columns, range(MANY + 2))


def test_half_a_part_is_removed_under_the_lock(tmp_path):
    """What a killed process was writing has another name; the next one that holds the lock clears it away."""
    columns = columns_in(tmp_path)
    part = append(columns, [1])
    partial = part.with_name(f".{part.name}.99.tmp")
    partial.write_bytes(part.read_bytes()[:50])
    check(columns, [1])
    with columns.claim(["1", "2"]) as missing:
        assert missing == ["2"] and not partial.exists()


def _compute(root, ids, log, pause):
    columns = columns_in(root)
    with columns.claim(ids) as missing:
        for record_id in missing:
            with log.open("a") as file:
                file.write(f"{record_id}\n")
            append(columns, [record_id])
            time.sleep(pause)
        columns.finish()


def test_two_processes_compute_each_record_once(tmp_path):
    """Pools that share 20 of their 40 records, asked for at once: 60 records are computed, none twice."""
    log = tmp_path / "computed"
    pools = [[str(i) for i in range(start, start + 40)] for start in (0, 20)]
    workers = [context().Process(target=_compute, args=(tmp_path, pool, log, 0.01)) for pool in pools]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert sorted(log.read_text().split()) == sorted(str(i) for i in range(60))
    check(columns_in(tmp_path), range(60))


@pytest.mark.fault(
    "SIGKILL of processes that share a pass", promise="only what was in hand is computed again", trials="1"
)
def test_killed_processes_cost_only_what_they_had_in_hand(tmp_path):
    """Five processes one after the other, each killed at a moment drawn at random, then one that is not: every record
    is there, the numbers are right, and each kill has cost a record at most. At 5 ms and more for a record all 150 take
    0.75 s, and the five have less together, so that each kill comes while there is work left."""
    draw = random.Random(0)
    log, ids = tmp_path / "computed", [str(i) for i in range(150)]
    for _ in range(5):
        worker = HERE.Process(target=_compute, args=(tmp_path, ids, log, 0.005))
        worker.start()
        time.sleep(draw.uniform(0.02, 0.15))
        worker.kill()
        worker.join()
    columns = columns_in(tmp_path)
    with columns.claim(ids) as missing:
        append(columns, missing)
        columns.finish()
    check(columns, range(150))
    assert missing and log.stat().st_size
    assert 150 <= len(log.read_text().split()) + len(missing) <= 150 + 5
    assert not list(columns.path.rglob("*.tmp")) and not list(columns.path.rglob("*.damaged"))
