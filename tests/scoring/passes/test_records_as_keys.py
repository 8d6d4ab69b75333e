"""The record is the key of a pass: a pool computes what no earlier pool has computed, and nothing else."""

from __future__ import annotations

import random

import numpy as np
import pytest
from composed import template
from tiny_passes import TRAINER, Loaded, record

from winnow.scoring.passes.likelihood import Likelihood
from winnow.scoring.passes.token_count import TokenCount
from winnow.scoring.runner import PassRunner
from winnow.store.artifacts import Store

RECORDS = [record(f"Say {row}.", "", f"It is {row}.", row) for row in range(60)]


@pytest.fixture
def reached(monkeypatch) -> list[str]:
    """Ids of the records that reach `step`, in that order."""
    ids: list[str] = []
    original = Likelihood.step

    def counted(self, run, batch):
        ids.extend(row["id"] for row in batch["columns"])
        return original(self, run, batch)

    monkeypatch.setattr(Likelihood, "step", counted)
    return ids


def runner_of(backbone, folder) -> PassRunner:
    return PassRunner(Loaded(backbone), Store(folder), TRAINER)


@pytest.mark.parametrize(
    ("pool", "there"),
    [
        (RECORDS[:40], 20),  # another limit
        (RECORDS[10:50][::-1], 10),  # a second pool that shares ten records, in another order
        ([*RECORDS[:20], record("One more.", "", "yes")], 20),  # an appended record
    ],
)
def test_only_new_records_are_computed(backbone, tmp_path, reached, capsys, pool, there):
    """After a pool of 20 records only those of the second pool that it lacked reach the model, which is said; the
    columns are those of a store of its own, to 1e-5."""
    runner_of(backbone, tmp_path / "a").compute(Likelihood("clean"), RECORDS[:20], template("alpaca"))
    assert len(reached) == 20 and "in the store" not in capsys.readouterr().out
    reached.clear()
    runner = runner_of(backbone, tmp_path / "a")
    table = runner.compute(Likelihood("clean"), pool, template("alpaca"))
    assert sorted(reached) == sorted({one.id for one in pool} - {one.id for one in RECORDS[:20]})
    told = f"Pass likelihood clean: {there} of {len(pool)} records are in the store, {len(pool) - there} to compute."
    assert told in capsys.readouterr().out and runner.counts() == (0, 1)
    alone = runner_of(backbone, tmp_path / "b").compute(Likelihood("clean"), pool, template("alpaca"))
    assert table.column("id").to_pylist() == [one.id for one in pool]
    assert np.allclose(table.ragged("nll")[0], alone.ragged("nll")[0], atol=1e-5)
    assert len(list((tmp_path / "a" / "passes").iterdir())) == 1


def test_a_part_of_what_is_there_computes_nothing(backbone, tmp_path, reached):
    """A smaller limit, copies of a record, another order: the weights are not even loaded."""
    runner_of(backbone, tmp_path).compute(Likelihood("clean"), RECORDS[:20], template("alpaca"))
    reached.clear()
    runner = runner_of(backbone, tmp_path)
    table = runner.compute(Likelihood("clean"), [RECORDS[7], RECORDS[3], RECORDS[7]], template("alpaca"))
    assert table.column("id").to_pylist() == [RECORDS[i].id for i in (7, 3, 7)]
    assert reached == [] and runner.computed == [] and runner.source.loads == 0
    assert runner.counts() == (1, 0)


def test_a_damaged_part_is_computed_anew(backbone, tmp_path, reached, capsys):
    """One bit of the only part is turned over: all its records are computed again, to the same numbers."""
    before = runner_of(backbone, tmp_path).compute(Likelihood("clean"), RECORDS[:9], template("alpaca")).ragged("nll")
    (part,) = tmp_path.glob("passes/*/parts/*.parquet")
    content = bytearray(part.read_bytes())
    content[random.Random(0).randrange(len(content))] ^= 4
    part.write_bytes(content)
    reached.clear()
    again = runner_of(backbone, tmp_path).compute(Likelihood("clean"), RECORDS[:9], template("alpaca")).ragged("nll")
    assert len(reached) == 9 and np.array_equal(before[0], again[0])
    assert f"{part} is damaged" in capsys.readouterr().out


def test_a_pass_without_a_model(backbone, tmp_path):
    """TokenCount reads the tokenizer alone; it, too, counts only what is new. One token per byte."""
    for pool, origin in ((RECORDS[:5], "computed"), (RECORDS[:8], "resumed"), (RECORDS[2:7], "reused")):
        runner = runner_of(backbone, tmp_path)
        table = runner.compute(TokenCount(), pool, template("alpaca"))
        assert list(runner.origin.values()) == [origin]
        assert table.numbers("answer_tokens").tolist() == [len(one.output) for one in pool]
