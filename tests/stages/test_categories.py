"""Categories of pool and subset, as in the consistency paper's Table 6."""

from __future__ import annotations

from winnow.data.records import Record
from winnow.stages.select import categories


def records(*names: str | None) -> list[Record]:
    return [Record(str(i), i, "do", "", "x", (), "", {"category": name}) for i, name in enumerate(names)]


def test_counts_by_hand():
    """code three times, of which one is selected: 100 (3 - 1) / 3 = 66.67%; of one creation and one row without a
    category none and all."""
    pool = records("code", "creation", "code", None, "code")
    assert categories(pool, [2, 3]) == {
        "code": {"pool": 3, "selected": 1, "reduction_percent": 66.67},
        "creation": {"pool": 1, "selected": 0, "reduction_percent": 100.0},
        "none": {"pool": 1, "selected": 1, "reduction_percent": 0.0},
    }


def test_a_pool_without_the_column_has_none():
    assert categories([Record("0", 0, "do", "", "x", (), "", {})], [0]) is None
