"""TensorBoard, MLflow and trackio get the numbers that W&B gets, under its keys."""

from __future__ import annotations

import csv
import re
import sys

import pytest
from composed import build
from pytorch_lightning.loggers import CSVLogger, MLFlowLogger

from winnow.errors import UserError
from winnow.tracking.loggers import LoggerTracker

KEYS = {"train/loss", "scores/mean", "scores/null", "delta/ifeval/exact_match,strict-match", "stages/score/seconds"}
KEYS |= {"delta/humaneval/pass@1"}


def fill(tracker) -> None:
    """As a run does: provenance, a curve, a score column with a null, and final values, words among them."""
    with tracker:
        tracker.update_config({"git": {"commit": "c0ffee"}})
        tracker.log_metrics({"train/loss": 1.5}, step=3)
        tracker.log_scores([1.0, None, 2.0])
        tracker.log_table("best", ["id"], [["a"]])
        tracker.summary({"stages/score/seconds": 2, "stages/score/status": "computed"})
        tracker.summary({"delta/humaneval/pass@1": 0.5})
        tracker.summary({"delta/ifeval/exact_match,strict-match": 0.25, "verdict/ifeval": "tie", "nothing": None})


def test_numbers_keep_their_keys_and_words_stay_out(tmp_path):
    """Lightning's CSV logger in the place of the others: mean of 1 and 2, one null, the last step's number."""
    logger = CSVLogger(str(tmp_path), name="all")
    fill(LoggerTracker(logger, tmp_path, csv=True))
    with (tmp_path / "all" / "version_0" / "metrics.csv").open() as file:
        logged = {key: float(value) for row in csv.DictReader(file) for key, value in row.items() if value}
    assert logged.keys() == KEYS | {"step"}
    assert (logged["scores/mean"], logged["scores/null"], logged["train/loss"], logged["step"]) == (1.5, 1.0, 1.5, 3)
    assert "c0ffee" in (tmp_path / "all" / "version_0" / "hparams.yaml").read_text()
    assert "train/loss" in (tmp_path / "metrics" / "version_0" / "metrics.csv").read_text()


def test_tensorboard_reads_back(tmp_path):
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    settings = {"api_key": "k" * 40, "seed": 1}
    fill(build("tracking/tensorboard", folder=tmp_path, config=settings, name="n", group="g"))
    found = event_accumulator.EventAccumulator(str(tmp_path / "tensorboard" / "version_0")).Reload()
    assert set(found.Tags()["scalars"]) == KEYS
    assert (found.Scalars("train/loss")[0].step, found.Scalars("scores/mean")[0].value) == (3, 1.5)
    assert "k" * 40 not in "".join(p.read_text("latin-1") for p in tmp_path.rglob("*") if p.is_file())


def test_mlflow_reads_back(tmp_path):
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("alembic")
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    fill(
        build("tracking/mlflow", folder=tmp_path / "run", config={"seed": 1}, uri=uri, name="n", group="g", tags=["t"])
    )
    (run,) = mlflow.MlflowClient(uri).search_runs(["1"])
    assert (
        set(run.data.metrics) == {key.replace(",", " ").replace("@", " at ") for key in KEYS}
        and run.info.status == "FINISHED"
    )
    assert run.data.tags["group"] == "g" and run.data.params["seed"] == "1"


def test_mlflow_gets_names_that_it_takes(tmp_path):
    """Hydra's choices are `choices/data@target` and the like; MLflow refuses the sign. Of `a` and `a/stderr` one would
    be the folder of the other where MLflow writes files."""

    class Recording(MLFlowLogger):
        def __init__(self):
            self.given = {}

        def log_hyperparams(self, values):
            self.given |= values

    names = {"choices/data@target": "None", "a,b": 1, "a": 2, "a/stderr": 3, "a/low": 4, "a/high": 5}
    LoggerTracker(logger := Recording(), tmp_path, False).update_config(names)
    assert all(re.fullmatch(r"[/\w.\- :]+", key) for key in logger.given) and len(logger.given) == 6
    assert not any(key.startswith("a/") for key in logger.given)


def test_trackio_reads_back_and_asks_nobody(tmp_path, monkeypatch):
    """With a token, trackio asks the hub whose it is. A Trainer ends its loggers before the run ends."""
    place = tmp_path / "db"
    monkeypatch.setenv("TRACKIO_DIR", str(place))
    trackio = pytest.importorskip("trackio", reason="trackio is absent; it needs transformers 5")
    asked = []
    monkeypatch.setattr("socket.getaddrinfo", lambda host, *_, **__: asked.append(host))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_" + "x" * 34)
    settings = {"api_key": "k" * 40, "seed": 1}
    tracker = build("tracking/trackio", folder=tmp_path, config=settings, uri=str(place), name="n", group="g")
    tracker.logger.finalize("success")
    fill(tracker)
    storage = trackio.sqlite_storage.SQLiteStorage
    logs = storage.get_logs("winnow", "n")
    found = {key: (value, log["step"]) for log in logs for key, value in log.items() if key in KEYS}
    assert found.keys() == KEYS and (found["train/loss"], found["scores/mean"]) == ((1.5, 3), (1.5, 3))
    known = storage.get_run_config("winnow", "n")
    assert (known["seed"], known["_Group"], known["git"]["commit"], known["api_key"]) == (1, "g", "c0ffee", "***")
    assert not asked
    with pytest.raises(UserError, match=r"tracking.uri=\S+/other: this process writes to \S+/db; start another"):
        build("tracking/trackio", folder=tmp_path, uri=str(tmp_path / "other"))
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"tracking=trackio: \S+/file cannot be used \(.*; give another tracking.uri"):
        build("tracking/trackio", folder=tmp_path, uri=str(tmp_path / "file"))


def test_a_missing_package_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr("pytorch_lightning.loggers.mlflow._MLFLOW_AVAILABLE", False)
    with pytest.raises(UserError, match=r"tracking=mlflow needs the package mlflow \(`pip install mlflow`\), or use"):
        build("tracking/mlflow", folder=tmp_path, uri="sqlite://")
    monkeypatch.setitem(sys.modules, "trackio", None)
    monkeypatch.setenv("TRACKIO_DIR", "")
    with pytest.raises(UserError, match=r"the package trackio \(`pip install trackio 'transformers>=5'`\), or use"):
        build("tracking/trackio", folder=tmp_path, uri=str(tmp_path))
    with pytest.raises(UserError, match="tracking.to=paper is unknown; choose one of tensorboard, mlflow, trackio"):
        build("tracking/mlflow", folder=tmp_path, to="paper", uri=None)
