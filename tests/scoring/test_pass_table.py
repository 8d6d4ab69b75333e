"""The columns of a pass, lined up with the records that were asked for."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from winnow.errors import UserError
from winnow.scoring.runner import PassTable

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
