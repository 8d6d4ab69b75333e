"""Reading W&B's offline run files back."""

from __future__ import annotations

import json
import time
from pathlib import Path

BLOCK, HEADER = 32768, 7


def read_offline(folder: Path) -> list:
    """The protobuf records of the latest offline run under `folder`, once its exit record is there (W&B's service
    writes the file's end some milliseconds after the run is finished)."""
    path = max(folder.glob("wandb/offline-run-*/*.wandb"), key=lambda path: path.stat().st_mtime_ns)
    return read_file(path)


def read_file(path: Path) -> list:
    """The protobuf records of one finished run."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        records = parse(path.read_bytes())
        if any(record.HasField("exit") for record in records):
            return records
        time.sleep(0.02)
    raise AssertionError(f"{path} never got its exit record")


def parse(data: bytes) -> list:
    """A .wandb file is a LevelDB log: a 7-byte file header, then blocks of 32 KiB that hold fragments of
    records (crc32, 2-byte length, type 1 = whole, 2 = first, 3 = middle, 4 = last)."""
    from wandb.proto import wandb_internal_pb2

    assert data[:4] == b":W&B"
    position, whole, records = HEADER, b"", []
    while position + HEADER <= len(data):
        if BLOCK - position % BLOCK < HEADER:
            position += BLOCK - position % BLOCK
            continue
        length, kind = int.from_bytes(data[position + 4 : position + 6], "little"), data[position + 6]
        position += HEADER
        if position + length > len(data):
            break
        whole += data[position : position + length]
        position += length
        if kind in (1, 4):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(whole)
            records.append(record)
            whole = b""
    return records


def run_of(records: list):
    """The record that says what the run is called."""
    return next(record.run for record in records if record.HasField("run"))


def summary_of(records: list) -> dict:
    """The final summary: all updates applied in order."""
    summary = {}
    for record in records:
        for item in record.summary.update:
            summary[item.key or ".".join(item.nested_key)] = json.loads(item.value_json)
    return summary


def history_of(records: list) -> list[dict]:
    """What was logged, one mapping for each call."""
    rows = []
    for record in records:
        row = {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
        rows += [row] if row else []
    return rows


def config_of(records: list) -> dict:
    """The run's configuration, all updates applied."""
    return {
        item.key: json.loads(item.value_json)
        for record in records
        for item in (*record.run.config.update, *record.config.update)
    }


def exit_code_of(records: list) -> int:
    (code,) = [record.exit.exit_code for record in records if record.HasField("exit")]
    return code


def artifacts_of(records: list) -> dict[str, tuple[str, dict, dict[str, str]]]:
    """Artifact name -> (type, metadata, {name of a file in it: where its content lies})."""
    found = {}
    for record in records:
        if record.HasField("artifact"):
            one = record.artifact
            files = {entry.path: entry.local_path for entry in one.manifest.contents}
            found[one.name] = (one.type, json.loads(one.metadata or "{}"), files)
    return found
