"""Run folders written by hand, for everything that reads them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from omegaconf import OmegaConf

from winnow.data.records import Record
from winnow.scoring.scores import Scores

CHOICES = {
    "backbone": "llama2_7b",
    "data": "alpaca",
    "method": "random",
    "selection": "top",
    "adversary": "none",
    "noising": "none",
}


def run_folder(
    folder: Path,
    *,
    choices: dict | None = None,
    row: dict | None = None,
    seed: int = 0,
    metrics: dict[str, float] | None = None,
    base: dict[str, float] | None = None,
    table: str | None = "consistency/table3",
    status: str = "finished",
    error: str | None = None,
    scores: list[float | None] | None = None,
    selected: Sequence[int] = (),
    seconds: dict[str, tuple] | None = None,
    started: str = "2026-01-01T12:00:00+00:00",
    stand_in: str | None = None,
    config: dict | None = None,
    given: Sequence[str] = (),
    scale: str = "smoke",
    changes: dict[str, list] | None = None,
    commit: str = "0123456789abcdef",
    command: str | None = None,
    n: int = 50,
    items: dict[str, dict[str, list]] | None = None,
) -> Path:
    """A finished job of an experiment with a value for each `<task>/<metric>`, all on `n` items.

    seconds: stage -> (seconds, status[, artifacts from the store, artifacts resumed]). config: dotted keys over the
    configuration. given: keys of the sweep's command line. table: None for a run of no experiment. items: model ->
    `<task>/<metric>` -> its value for each item.
    """
    folder.mkdir(parents=True)
    chosen = CHOICES | (choices or {})
    stages = {}
    for key, (value, how, *counts) in (seconds or {}).items():
        reused, resumed = counts or (int(how == "reused"), 0)
        stages[key] = {"seconds": value, "status": how, "fingerprint": None, "reused": reused, "resumed": resumed}
    plain = {
        "seed": seed,
        "table": None,
        "row": row or {},
        "method": {"name": chosen["method"]},
        "backbone": {"name": "packaged:small"},
        "data": {},
        "scale": {"name": scale, "changes": {"data.limit": [None, 60]} if changes is None else changes},
    }
    if table is not None:
        paper, name = table.split("/")
        plain["table"] = {"paper": paper, "name": name, "data": stand_in}
    plain = OmegaConf.create(plain)
    for key, value in (config or {}).items():
        OmegaConf.update(plain, key, value)
    card = {
        "command": command or f"python -m winnow experiment={table} scale={scale}",
        "started": started,
        "status": status,
        "error": error,
        "stages": stages,
        "git": {"commit": commit, "dirty": False},
        "data": {"source": "pool", "n_records": 10, "fingerprint": "f"},
        "hydra": {"choices": chosen, "overrides": [f"scale.keep=[{','.join(map(repr, given))}]"]},
        "config": OmegaConf.to_container(plain),
    }
    (folder / "run_card.json").write_text(json.dumps(card))
    if metrics is not None:
        models = {"tuned": metrics} | ({"base": base} if base else {})
        entries = {
            model: {
                "metrics": {
                    key: {"value": value, "stderr": None, "n": n, "higher_is_better": True}
                    for key, value in values.items()
                },
                "samples": None,
            }
            for model, values in models.items()
        }
        for model, own in (items or {}).items():
            entries[model]["samples"] = str(folder / f"{model}.jsonl")
            rows = [
                {
                    "task": key.rpartition("/")[0],
                    "filter": "none",
                    "doc_id": i,
                    "doc_hash": f"{i}",
                    "metrics": {key.rpartition("/")[2]: value},
                }
                for key, values in own.items()
                for i, value in enumerate(values)
            ]
            (folder / f"{model}.jsonl").write_text("\n".join(map(json.dumps, rows)))
        (folder / "results.json").write_text(json.dumps({"suite": "s", "models": entries, "headline": list(metrics)}))
    if scores is not None:
        records = [Record(f"record {i}", i, f"Say {i}", "", f"{i}", (), "pool", {}) for i in range(len(scores))]
        values = np.array([np.nan if value is None else value for value in scores])
        table_ = Scores(
            values, ["x" if value is None else None for value in scores], {}, chosen["method"] != "consistency"
        )
        table_.write(table_.table(records, {"method": chosen["method"]}), folder / "scores.parquet")
        decisions = [{"id": record.id, "row": i, "selected": i in selected} for i, record in enumerate(records)]
        (folder / "selection.json").write_text(json.dumps({"n_valid": len(scores), "decisions": decisions}))
    return folder
