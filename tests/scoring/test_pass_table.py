"""The columns of a pass, lined up with the records that were asked for."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from tiny_passes import compute, make_records

from winnow.errors import UserError
from winnow.scoring.passes.likelihood import Likelihood
from winnow.scoring.runner import PassTable
from winnow.store.columns import Columns

KIND = pa.list_(pa.float32())


def vectors(*chunks: list, rows: list[int]) -> np.ndarray:
    column = pa.chunked_array([pa.array(chunk, KIND) for chunk in chunks])
    ids = [f"r{i}" for i in range(len(column))]
    return PassTable(pa.table({"id": ids, "vector": column}), [ids[i] for i in rows]).vectors("vector")


def test_missing_vectors_leave_gaps():
    """A null becomes a row of NaN, in its place, also across chunks of the column; a copy has its record's vector."""
    rows = vectors([[1, 2], None], [None, [3, 4], [5, 6]], rows=[0, 1, 2, 3, 4, 3])
    assert rows.dtype == np.float32 and np.isnan(rows[1:3]).all()
    assert rows[[0, 3, 4, 5]].tolist() == [[1, 2], [3, 4], [5, 6], [3, 4]]


def test_more_values_than_32_bits_can_count():
    """2^31 in one column of lists, as 524,288 vectors of 4,096 numbers have. Chunks share a list and take its room
    alone."""
    nulls = pa.ListArray.from_arrays(pa.array([0, 0, 2**30], pa.int32()), pa.nulls(2**30))
    table = PassTable(pa.table({"id": ["a", "b", "c", "d"], "x": pa.chunked_array([nulls] * 2)}), ["c", "a"])
    assert table.column("x").to_pylist() == [[], []]
    vector = pa.array([np.ones(2**20, np.float16)], pa.list_(pa.float16()))
    table = PassTable(pa.table({"id": [str(i) for i in range(2048)], "x": pa.chunked_array([vector] * 2048)}), ["7"])
    assert table.vectors("x").shape == (1, 2**20)


def test_lists_are_read_when_they_are_asked_for(backbone, tmp_path, monkeypatch):
    """IFD's columns without the vectors, which it never looks at."""
    read, asked = Columns.read, []
    monkeypatch.setattr(Columns, "read", lambda own, ids, names=(): asked.append(names) or read(own, ids, names))
    table = compute(backbone, make_records(6), tmp_path, Likelihood())
    assert len(table.ragged("nll")[1]) - 1 == len(table.flags()) == len(table.numbers("skipped")) == len(table) == 6
    assert asked == [["id", "skipped", "prompt_tokens", "answer_tokens", "flag"], ["id", "nll"]]


def test_a_matrix_has_a_row_of_nan_where_there_is_none():
    """Null or empty, at any place; flags of another type become numbers. With no value at all it keeps its width."""
    ids = ["a", "b", "c"]
    rows = {"x": pa.array([[True, False], None, []], pa.list_(pa.bool_())), "y": pa.array([[], [], None], KIND)}
    table = PassTable(pa.table({"id": ids} | rows), ["b", "a", "c"])
    assert table.matrix("x", 2)[1].tolist() == [1, 0] and np.isnan(table.matrix("x", 2)[[0, 2]]).all()
    assert table.matrix("y", 3).shape == (3, 3) and np.isnan(table.matrix("y", 3)).all()


def test_a_pass_without_vectors_is_one_sentence():
    with pytest.raises(UserError, match="no vector for any of 2 records"):
        vectors([None, None], rows=[0, 1])
