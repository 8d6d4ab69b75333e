"""Run folders written by hand, for everything that reads them."""

from __future__ import annotations

import json
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
    table: str = "noise/table3",
    status: str = "finished",
    error: str | None = None,
    scores: list[float | None] | None = None,
    selected: list[int] = (),
    seconds: dict[str, tuple[float, str]] | None = None,
    started: str = "2026-01-01T12:00:00+00:00",
    stand_in: str | None = None,
) -> Path:
    """A finished job of an experiment with a value for each `<task>/<metric>`, all on 50 items."""
    folder.mkdir(parents=True)
    chosen = CHOICES | (choices or {})
    paper, name = table.split("/")
    (folder / ".hydra").mkdir()
    OmegaConf.save({"hydra": {"runtime": {"choices": chosen}}}, folder / ".hydra" / "hydra.yaml")
    stages = {
        key: {"seconds": value, "status": status, "fingerprint": None}
        for key, (value, status) in (seconds or {}).items()
    }
    card = {
        "command": f"python -m winnow +experiment={table} scale=smoke",
        "started": started,
        "status": status,
        "error": error,
        "stages": stages,
        "git": {"commit": "0123456789abcdef", "dirty": False},
        "data": {"source": "pool", "n_records": 10, "fingerprint": "f"},
        "config": {
            "seed": seed,
            "table": {"paper": paper, "name": name, "data": stand_in},
            "row": row or {},
            "method": {"name": chosen["method"]},
            "backbone": {"name": "packaged:small"},
            "data": {},
            "scale": {"name": "smoke", "changes": {"data.limit": [None, 60]}},
        },
    }
    (folder / "run_card.json").write_text(json.dumps(card))
    if metrics is not None:
        models = {"tuned": metrics} | ({"base": base} if base else {})
        entries = {
            model: {"metrics": {key: {"value": value, "stderr": None, "n": 50} for key, value in values.items()}}
            for model, values in models.items()
        }
        (folder / "results.json").write_text(json.dumps({"suite": "s", "models": entries, "headline": list(metrics)}))
    if scores is not None:
        records = [Record(f"record {i}", i, f"Say {i}", "", f"{i}", (), "pool", {}) for i in range(len(scores))]
        values = np.array([np.nan if value is None else value for value in scores])
        table_ = Scores(values, ["x" if value is None else None for value in scores], {}, chosen["method"] != "noise")
        table_.write(table_.table(records, {"method": chosen["method"]}), folder / "scores.parquet")
        decisions = [{"id": record.id, "row": i, "selected": i in selected} for i, record in enumerate(records)]
        (folder / "selection.json").write_text(json.dumps({"n_valid": len(scores), "decisions": decisions}))
    return folder
