"""Several NLU data sets as one pool, for tuning on all of their tasks together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from winnow.data.nlu.reading import read_nlu
from winnow.data.records import Pool
from winnow.errors import UserError


def read_nlu_tasks(dataset: Sequence[str], path: str | Path | None, **settings) -> Pool:
    """The records of several data sets, one set after the other; rows are numbered anew.

    dataset: keys of `DATASETS`. path: a folder that holds a folder for each, None for the hub. settings: those of
    `read_nlu`; limit and seed hold for each data set. Raises UserError for no data set, and for a path to one file.
    """
    if not dataset:
        raise UserError("data.dataset is empty: name the data sets that are tuned on together.")
    if path is not None and Path(path).expanduser().is_file():
        raise UserError(f"data.path={path} is a single file: name a folder that holds a folder for each data set.")
    pools = [read_nlu(name, path=path, **settings) for name in dataset]
    records = [record for pool in pools for record in pool.records]
    records = [replace(record, row=row) for row, record in enumerate(records)]
    return replace(
        pools[0],
        records=records,
        source="+".join(dataset),
        quarantined=[bad for pool in pools for bad in pool.quarantined],
    )
