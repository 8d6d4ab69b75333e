"""Every job of a sweep is a W&B run that says what it was and what came of it: its offline file is read back."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
from composed import config, on_tiny
from offline_runs import artifacts_of, config_of, exit_code_of, history_of, read_offline, run_of, summary_of
from omegaconf import OmegaConf

from winnow import __main__ as command_line
from winnow.tracking.job import logged, naming

CURVE = ["train/loss", "trainer/global_step"]


@pytest.fixture
def jobs(tiny_folder, tmp_path, monkeypatch):
    """Runs a row of the consistency paper's table 3 at two shares on the tiny backbone; returns their folders by
    share."""
    for key in [key for key in os.environ if key.startswith("WANDB_")]:
        monkeypatch.delenv(key)

    def run(*overrides: str) -> dict[str, Path]:
        own = [
            "experiment=consistency/table3",
            "scale=smoke",
            "hydra.sweeper.rows=['method=random selection=top']",
            "selection.count=null",
            "row.ratio=null",
            "selection.ratio=0.5,0.25",
            *on_tiny(tiny_folder),
            "data.limit=24",
            "tracking.mode=offline",
            f"paths.store={tmp_path / 'store'}",
            f"hydra.sweep.dir={tmp_path / 'sweep'}",
            f"table.folder={tmp_path / 'table'}",
        ]
        monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
        monkeypatch.setattr(sys, "argv", ["winnow", *own, *overrides])
        command_line.main()
        cards = {path.parent: json.loads(path.read_text()) for path in (tmp_path / "sweep").glob("*/run_card.json")}
        folders = {f"{card['config']['selection']['ratio']:g}": folder for folder, card in cards.items()}
        assert set(folders) == {"0.5", "0.25"} and len(cards) == 2
        return folders

    return run


@pytest.mark.slow
def test_every_job_is_a_run(jobs, tiny_folder):
    """Two jobs: 12 and 6 of 24 records, 3 steps of tuning. Then the first of them again: the same run id, everything
    from the store, and still a curve of 3 points, so that the latest file of a folder tells all."""
    first = {}
    for share, folder in jobs().items():
        records = read_offline(folder)
        run, summary, history, settings = run_of(records), summary_of(records), history_of(records), config_of(records)
        first[share] = run.run_id
        assert (run.run_group, run.job_type, run.display_name) == ("consistency/table3/smoke", "random", folder.name)
        tags = {"consistency", "consistency/table3", "smoke", "random", tiny_folder.name, "embedded", f"ratio={share}"}
        assert tags <= set(run.tags) and exit_code_of(records) == 0
        assert settings["method"]["name"] == "random" and settings["scale"]["changes"] and settings["git"]
        assert settings["command"].startswith("winnow experiment=consistency/table3")
        assert settings["data"]["limit"] == 24 and settings["pool"]["n_records"] == 24
        assert settings["choices/method"] == "random" and settings["choices/selection"] == "top"
        assert not {"attack", "distortion", "noising", "pre_experience"} & settings.keys()
        for stage in ("score", "select", "tune", "evaluate", "report"):
            assert summary[f"stages/{stage}/seconds"] > 0
            assert summary[f"stages/{stage}/status"] in ("computed", "reused")  # they share a base model
        assert summary["stages/tune/status"] == "computed"
        results = json.loads((folder / "results.json").read_text())
        assert set(results["models"]) == {"base", "tuned"} and len(results["models"]["base"]["metrics"]) == 3
        for name, model in results["models"].items():
            for key, metric in model["metrics"].items():
                assert summary[f"{name}/{key}"] == metric["value"]
                assert summary.get(f"{name}/{key}/stderr") == metric["stderr"]
        assert {key: summary[f"delta/{key}"] for key in results["delta"]} == results["delta"]
        assert summary["selected"] == 24 * float(share)
        (histogram,) = [row for row in history if "scores/histogram._type" in row]
        assert sum(histogram["scores/histogram.values"]) == 24
        curve = [[row[key] for key in CURVE] for row in history if "train/loss" in row]
        assert [step for _, step in curve] == [0, 1, 2]
        (table,) = [row for row in history if "best and worst.nrows" in row]
        assert table["best and worst.nrows"] == min(24, 20) and table["best and worst.ncols"] == 5
        kept = artifacts_of(records)
        kind, about, files = kept[f"subset-{run.run_id}"]
        assert (kind, about["n_selected"], list(files)) == ("dataset", summary["selected"], ["subset.jsonl"])
        kind, about, files = kept[f"adapter-{run.run_id}"]
        assert (kind, about["steps"]) == ("model", 3) and "adapter_model.safetensors" in files
        assert {path.name for path in folder.glob("wandb/offline-run-*/files/*")} >= {"run_card.json", "report.html"}
    folder = jobs("hydra.sweeper.only={selection.ratio: 0.5}")["0.5"]
    records = read_offline(folder)
    assert len(list(folder.glob("wandb/offline-run-*"))) == 2 and run_of(records).run_id == first["0.5"]
    summary, history = summary_of(records), history_of(records)
    assert summary["stages/tune/status"] == "reused" and summary["stages/evaluate/status"] == "reused"
    told = json.loads((folder / "tuning.json").read_text())["train_loss"]
    curve = [[row[key] for key in CURVE] for row in history if "train/loss" in row]
    assert curve == [[point["loss"], point["step"] - 1] for point in told] and len(curve) == 3


def plain(*overrides: str) -> dict:
    return OmegaConf.to_container(config("paths.run=run", *overrides), resolve=True)


def test_names_of_a_run_outside_of_experiments():
    """The method and its share; what is set wins; a path says its last part; a tag has 64 characters at most, and none
    comes twice."""
    named = naming(plain("selection.ratio=0.10"), {}, "ifd", "/models/ifd", "/data/pool.jsonl")
    assert (named["name"], named["group"], named["job_type"]) == ("ifd 0.1", None, "ifd")
    assert named["tags"] == ["ifd", "pool", "method=ifd", "ratio=0.1"]
    named = naming(plain("selection.count=50", "tracking.name=mine", "tracking.tags=[a]"), {}, "ifd", "b" * 70, "p")
    assert (named["name"], named["tags"][:4], named["tags"][-1]) == ("mine", ["a", "ifd", "b" * 64, "p"], "count=50")
    named = naming(plain("tracking.group=g", "tracking.job_type=j"), {}, "ifd", "b", "p")
    assert (named["group"], named["job_type"]) == ("g", "j")


def test_groups_that_a_run_does_not_use_are_not_logged():
    """`ifd` with an ordinary tuning: no attack, no noise, no preparation. `aifd` keeps its attacks."""
    config = plain()
    assert {"attack", "distortion", "noising", "pre_experience"} <= config.keys()
    assert set(config) - set(logged(config, {}, attacks=False, distortion=False)) == {
        *("attack", "distortion", "noising", "pre_experience", "start")
    }
    assert "attack" in logged(plain("method=aifd"), {}, attacks=True, distortion=False)
