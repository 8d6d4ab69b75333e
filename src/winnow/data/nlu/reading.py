"""From the files of NLU data sets, or their hub copies, to a pool of records: `read_nlu` and `read_nlu_tasks`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

from winnow import draws
from winnow.data.formats import SourceRow
from winnow.data.nlu.datasets import DATASETS, Dataset
from winnow.data.nlu.instructions import INSTRUCTIONS, STYLES
from winnow.data.readers import DUPLICATES, ON_ERROR, check_duplicates, check_size, load_from_hub, read_records
from winnow.data.records import Pool, Record, record_id
from winnow.data.schemas import BadRow
from winnow.errors import UserError, check_choice

# Split -> the words that stand for it in file names: eng.testa, dev.tsv, valid_triples.json.
SPLITS = {"train": {"train"}, "validation": {"validation", "valid", "val", "dev", "testa"}, "test": {"test", "testb"}}


def read_nlu(
    dataset: str,
    source: str | None,
    path: str | Path | None,
    style: str,
    split: str,
    limit: int | None,
    seed: int,
    on_error: str,
    duplicates: str,
    swapped: float | None,
) -> Pool:
    """The records of a data set: instruction, context (question, format, options, text) and target.

    dataset: a key of `DATASETS`. source: hub name, used when path is None; None for `Dataset.hub`. path: a file, a
    folder with one file for each split, or a folder that holds such a folder under the data set's name. style: detailed
    or concise; which of its instructions a record gets is drawn by the text. split: train, validation or test. limit:
    at most so many records, drawn at random by (seed, text and target), so that both styles get the same ones and a
    smaller limit a part of a larger one; None for all. on_error, duplicates: as in `read_pool`. swapped: share of the
    records, in [0, 1), whose target is replaced by another target of the pool, drawn by seed; every `Record.raw` then
    says which in `defect`, `swapped` or None.

    `Record.raw` holds instruction, input and output (Alpaca's columns, in which a subset is written as JSON Lines),
    dataset, style, split, and the row itself as `original`.
    Raises UserError for settings out of range, files that are missing or ambiguous, and a source without a good row.
    """
    known = _dataset(dataset, style, split, limit, on_error, duplicates)
    place, rows = _rows(known, source, path, split)
    records, quarantined = read_records(rows, partial(_record, known, style, split), place, None, on_error)
    if limit is not None and limit < len(records):
        records = _drawn(records, limit, seed)
    if swapped is not None:
        records = _swapped(records, swapped, seed, place)
    check_duplicates(records, place, duplicates)
    return Pool(
        records=records,
        schema="alpaca",
        format="jsonl",
        source=dataset,
        quarantined=quarantined,
        keep_duplicates=duplicates == "keep",
    )


def nlu_file(dataset: str, path: str | Path, split: str) -> Path:
    """The file of a split: `path` itself if it is a file; else the one file in the folder whose name holds the split's
    word, in a folder of the data set's name before the folder itself. Raises UserError for none or several."""
    top = Path(path).expanduser()
    if top.is_file():
        return top
    if not top.is_dir():
        raise UserError(f"{top} does not exist: give the file or folder of {dataset} with data.path=...")
    names = DATASETS[dataset].folders
    own = [folder for pattern in ("*", "*/*") for folder in sorted(top.glob(pattern)) if folder.name.lower() in names]
    for folder in [*(folder for folder in own if folder.is_dir()), top]:
        words = SPLITS.get(split, {split})
        named = [(one, set(re.split(r"\W|_", one.name.lower()))) for one in sorted(folder.iterdir()) if one.is_file()]
        files = [one for one, parts in named if words & parts]
        if len(files) > 1:
            found = ", ".join(one.name for one in files)
            raise UserError(f"{folder} holds several files of the split {split} ({found}): name one with data.path=...")
        if files:
            return files[0]
    raise UserError(
        f"{top} holds no file of the split {split} of {dataset}: a file name with one of the words "
        f"{', '.join(sorted(words))} was expected, there or in a folder {' or '.join(names)}."
    )


def _dataset(dataset: str, style: str, split: str, limit: Any, on_error: str, duplicates: str) -> Dataset:
    check_choice("data.dataset", dataset, DATASETS)
    check_choice("data.style", style, STYLES)
    check_choice("data.split", split, SPLITS)
    check_choice("data.on_error", on_error, ON_ERROR)
    check_choice("data.duplicates", duplicates, DUPLICATES)
    check_size("limit", limit)
    return DATASETS[dataset]


def _rows(dataset: Dataset, source: str | None, path: str | Path | None, split: str) -> tuple[str, Iterable[SourceRow]]:
    """(where the rows come from, the rows)."""
    if path is not None:
        file = nlu_file(dataset.name, path, split)
        return str(file), dataset.rows(file)
    source = source or dataset.hub
    if source is None:
        raise UserError(
            f"data={dataset.name} names no place: give its files with data.path=<folder or file>, or a hub copy with "
            f"data.source=<owner/name> (docs/nlu.md lists the columns)."
        )
    return source, _hub_rows(source, split)


def _hub_rows(source: str, split: str) -> Iterator[SourceRow]:
    """Rows with class numbers as the names that the hub's own description gives them."""
    loaded = load_from_hub(source, split)
    names: dict[str, list[str]] = {}
    for column, feature in (getattr(loaded, "features", None) or {}).items():
        labels = getattr(getattr(feature, "feature", feature), "names", None)
        if labels is not None:
            names[column] = labels

    def named(value: Any, labels: list[str]) -> Any:
        if isinstance(value, list):
            return [named(one, labels) for one in value]
        return labels[value] if isinstance(value, int) and 0 <= value < len(labels) else value

    for number, row in enumerate(loaded):
        yield SourceRow(number, None, {key: named(row[key], names[key]) if key in names else row[key] for key in row})


def _record(dataset: Dataset, style: str, split: str, number: int, value: Any) -> Record:
    text, items = dataset.read(value)
    if not text.strip():
        raise BadRow("the text is empty")
    given, target = dataset.context(text), dataset.target(items)
    texts = INSTRUCTIONS[dataset.name][style]
    instruction = texts[draws.key("instruction", text) % len(texts)]  # not the target: it must tell nothing of it
    for name, words in (("text", text), ("target", target)):
        try:
            words.encode("utf-8")
        except UnicodeEncodeError:
            raise BadRow(f"the {name} holds half a surrogate pair, which UTF-8 cannot hold") from None
    raw: Mapping[str, Any] = {
        "instruction": instruction,
        "input": given,
        "output": target,
        "dataset": dataset.name,
        "style": style,
        "split": split,
        "original": value,
    }
    return Record(record_id(instruction, given, target), number, instruction, given, target, (), dataset.name, raw)


def _drawn(records: list[Record], limit: int, seed: int) -> list[Record]:
    """`limit` records in file order: those with the lowest hash of (seed, context, target)."""

    def draw(record: Record) -> tuple[int, int]:
        return draws.key(seed, record_id("", record.input, record.output)), record.row

    return sorted(sorted(records, key=draw)[:limit], key=lambda record: record.row)


def _swapped(records: list[Record], share: float, seed: int, place: str) -> list[Record]:
    """The share of them, rounded down, drawn, each with a drawn one of the other targets in the pool."""
    if not 0 <= share < 1:
        raise UserError(f"data.swapped={share} is out of range: give a share from 0 to below 1, or null.")
    order = sorted(range(len(records)), key=lambda i: (draws.key("swapped", seed, records[i].id), i))
    targets = list(dict.fromkeys(record.output for record in records))
    if share and len(targets) < 2:
        raise UserError(
            f"{place}: data.swapped={share} needs two different targets, but all records have the same one."
        )
    chosen = set(order[: int(Fraction(str(share)) * len(records))])  # 0.29 of 100 are 29, in binary 28
    made = []
    for i, record in enumerate(records):
        target = record.output
        if i in chosen:
            others = [one for one in targets if one != target]
            target = others[draws.key("target", seed, record.id) % len(others)]
        raw = {**record.raw, "output": target, "defect": "swapped" if i in chosen else None}
        made.append(replace(record, id=record_id(record.instruction, record.input, target), output=target, raw=raw))
    return made


def read_nlu_tasks(dataset: Sequence[str], path: str | Path | None, **settings) -> Pool:
    """The records of several data sets, one set after the other, to tune on all their tasks; rows are numbered anew.

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
