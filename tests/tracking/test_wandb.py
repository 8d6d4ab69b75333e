"""W&B tracking: offline without a key, complete on success and on error, confined to the run folder."""

from __future__ import annotations

import csv
import json
import os
import socket
import ssl
import time
import urllib.error
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import torch
from composed import build
from offline_runs import artifacts_of, config_of, exit_code_of, read_offline, run_of, summary_of
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.loggers import CSVLogger, WandbLogger

from winnow.errors import UserError
from winnow.network import reachable
from winnow.tracking import wandb_mode
from winnow.tracking.job import track_results, track_stage
from winnow.tracking.run_card import RunCard, StageRecord
from winnow.tracking.wandb_mode import has_key, resolve_mode
from winnow.tracking.wandb_run import Tracker

tracked = partial(build, "tracking/wandb", artifacts=[])


@pytest.fixture(autouse=True)
def no_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine on which nobody has set up W&B; returns its home."""
    for key in [key for key in os.environ if key.startswith("WANDB_")]:
        monkeypatch.delenv(key)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("NETRC", str(home / ".netrc"))
    return home


def test_auto_without_a_key_is_offline_and_reads_back(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    """What was logged (summary auc 0.75, a histogram of [1, 2, 2, 3] with 64 bins that count 4 values, one
    null, mean 8 / 4 = 2, a table, tags, group, masked config) is in the offline file, which ends with exit
    code 0. Nothing is printed. The command that sends it names its folder, ready to paste."""
    config = {"method": {"name": "ifd"}, "tracking": {"api_key": "k" * 40}}
    naming = {"project": "p", "group": "g", "job_type": "sweep", "name": "n", "tags": ["ifd", "5%"]}
    with tracked(folder=tmp_path / "my run", config=config, **naming) as tracker:
        (folder,) = tmp_path.glob("my run/wandb/offline-run-*")
        assert tracker.place == f"wandb sync '{folder}'"
        tracker.log_metrics({"loss": 1.5}, step=3)
        tracker.log_scores([1.0, 2.0, None, 2.0, 3.0])
        tracker.log_table("best", ["id", "score"], [["a", 3.0], ["b", None]])
        tracker.summary({"auc": 0.75})
        tracker.update_config({"git": {"commit": "c0ffee"}})
    assert capfd.readouterr() == ("", "")
    records = read_offline(tmp_path / "my run")
    summary = summary_of(records)
    assert summary["auc"] == 0.75
    assert (summary["scores/null"], summary["scores/mean"]) == (1, 2.0)
    history = {".".join(item.nested_key): json.loads(item.value_json) for r in records for item in r.history.item}
    assert history["loss"] == 1.5 and history["trainer/global_step"] == 3
    counts = history["scores/histogram.values"]
    assert len(counts) == 64 and sum(counts) == 4
    assert history["best.nrows"] == 2
    run = run_of(records)
    assert (run.project, run.run_group, run.job_type, run.display_name, list(run.tags)) == (
        "p",
        "g",
        "sweep",
        "n",
        ["ifd", "5%"],
    )
    logged = config_of(records)
    assert logged["method"] == {"name": "ifd"}
    assert logged["tracking"] == {"api_key": "***"}
    assert logged["git"] == {"commit": "c0ffee"}
    assert exit_code_of(records) == 0


def test_a_folder_keeps_its_run(tmp_path: Path) -> None:
    """A job that fails: the error goes on to the caller, its offline file ends properly, with exit code 1 and the
    sentence in the summary. Repeated in its folder: a second file of the same run id, whose summary takes the error
    back. A run of another folder that is open at the same time has another id and a file of its own."""
    failing = tracked(folder=tmp_path / "a", mode="offline")
    with pytest.raises(UserError, match="no such pool"), failing as first:  # noqa: PT012  (both belong inside)
        first.summary({"auc": 0.5})
        raise UserError("no such pool")
    records = read_offline(tmp_path / "a")
    assert not first.continued and exit_code_of(records) == 1
    assert summary_of(records)["error"] == "no such pool" and summary_of(records)["auc"] == 0.5
    time.sleep(1.1)  # the folder of an offline run is named by the second
    with tracked(folder=tmp_path / "a", mode="offline") as second:
        with tracked(folder=tmp_path / "b", mode="offline") as other:
            assert second.continued and second.run.id == first.run.id != other.run.id
            other.summary({"who": "b"})
        second.summary({"who": "a"})
    assert len(list((tmp_path / "a").glob("wandb/offline-run-*"))) == 2
    records = read_offline(tmp_path / "a")
    assert run_of(records).run_id == first.run.id == (tmp_path / "a" / "wandb" / "run_id").read_text().strip()
    assert summary_of(records)["error"] is None and exit_code_of(records) == 0
    assert [summary_of(read_offline(tmp_path / name))["who"] for name in "ab"] == ["a", "b"]


def test_artifacts_are_kept_if_they_are_named(tmp_path: Path) -> None:
    """A subset is copied, so that the file may change until it is sent; of an adapter only the place is noted, its
    files stay where they are; what `artifacts` does not name is left out, and a name that is none is refused. A file
    that is none of these is copied to the run's files, which `wandb sync` sends."""
    subset, adapter = tmp_path / "subset.jsonl", tmp_path / "adapter"
    subset.write_text('{"a": 1}\n')
    (tmp_path / "report.html").write_text("<p>hello</p>")
    adapter.mkdir()
    (adapter / "weights.bin").write_bytes(b"w")
    with tracked(folder=tmp_path / "run", mode="offline", artifacts=["subset", "adapter"]) as tracker:
        tracker.save_artifact("subset", subset, {"n_selected": 1})
        tracker.save_artifact("adapter", adapter, {"steps": 3})
        tracker.save_artifact("model", adapter, {})
        tracker.save_file(tmp_path / "report.html")
    subset.write_text("changed")
    found = artifacts_of(read_offline(tmp_path / "run"))
    run_id = tracker.run.id
    assert set(found) == {f"subset-{run_id}", f"adapter-{run_id}"}
    kind, metadata, files = found[f"subset-{run_id}"]
    assert (kind, metadata) == ("dataset", {"n_selected": 1}) and list(files) == ["subset.jsonl"]
    assert Path(files["subset.jsonl"]).read_text() == '{"a": 1}\n'
    kind, metadata, files = found[f"adapter-{run_id}"]
    assert (kind, metadata) == ("model", {"steps": 3}) and files == {"weights.bin": str(adapter / "weights.bin")}
    (copy,) = tmp_path.glob("run/wandb/offline-run-*/files/report.html")
    assert copy.read_text() == "<p>hello</p>" and not copy.is_symlink()
    with pytest.raises(UserError, match="tracking.artifacts: found 'weights'"):
        tracked(folder=tmp_path / "no", mode="offline", artifacts=["weights"])


class Line(LightningModule):
    """y = w x from w = 0 on the single point (1, 1): the first loss is exactly 1."""

    def __init__(self) -> None:
        super().__init__()
        self.w = torch.nn.Parameter(torch.zeros(1))

    def training_step(self, batch: list[torch.Tensor], _: int) -> torch.Tensor:
        loss = ((self.w * batch[0] - 1) ** 2).mean()
        self.log("train/loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.25)

    def train_dataloader(self) -> torch.utils.data.DataLoader:
        return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.ones(2, 1)), batch_size=1)


def test_lightning_logs_into_the_same_run_and_into_csv(tmp_path: Path) -> None:
    """Loss (w - 1)^2 with w0 = 0 is 1; its gradient 2 (w - 1) = -2 times lr 0.25 moves w to 0.5, so the
    second loss is 0.25. Both are in the W&B file of this run and in metrics.csv."""
    with tracked(folder=tmp_path, mode="offline") as tracker:
        loggers = tracker.lightning_loggers()
        assert [type(logger) for logger in loggers] == [WandbLogger, CSVLogger]
        assert loggers[0].experiment is tracker.run
        trainer = Trainer(
            max_epochs=1,
            logger=loggers,
            log_every_n_steps=1,
            accelerator="cpu",
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=tmp_path,
        )
        trainer.fit(Line())
        tracker.summary({"after": 1})  # the trainer must not have ended the run
    losses = [
        json.loads(item.value_json)
        for record in read_offline(tmp_path)
        for item in record.history.item
        if item.nested_key[0] == "train/loss"
    ]
    assert losses == [1.0, 0.25]
    assert summary_of(read_offline(tmp_path))["after"] == 1
    with (tmp_path / "metrics" / "version_0" / "metrics.csv").open() as file:
        assert [float(row["train/loss"]) for row in csv.DictReader(file)] == [1.0, 0.25]


def test_disabled_keeps_csv_only(tmp_path: Path) -> None:
    """No W&B folder, but the metric is in metrics.csv; with csv off too there is no logger and no file."""
    with tracked(folder=tmp_path / "csv", mode="disabled") as tracker:
        assert tracker.run is tracker.place is None
        assert [type(logger) for logger in tracker.lightning_loggers()] == [CSVLogger]
        tracker.log_metrics({"loss": 1.5})
        tracker.log_scores([1.0])
    assert [path.name for path in (tmp_path / "csv").iterdir()] == ["metrics"]
    assert "1.5" in (tmp_path / "csv" / "metrics" / "version_0" / "metrics.csv").read_text()
    with tracked(folder=tmp_path / "none", mode="disabled", csv=False) as tracker:
        assert tracker.lightning_loggers() == []
        tracker.log_metrics({"loss": 1.5})
    assert not (tmp_path / "none").exists()


@pytest.mark.fault(
    "a W&B key on a machine without network", promise="offline within seconds, with one sentence", trials="3"
)
def test_a_server_that_does_not_answer(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture) -> None:
    """With a key but no network, a run is offline and says so; where it must be online it is refused. Nothing listens
    at port 9 of this machine; an address that swallows every packet costs no more than the seconds asked for."""
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    monkeypatch.setattr(wandb_mode, "server", lambda: "http://127.0.0.1:9")
    monkeypatch.setattr(wandb_mode, "has_key", lambda: True)
    assert resolve_mode("auto") == "offline"
    assert capfd.readouterr().out.startswith("http://127.0.0.1:9 does not answer, so W&B is offline")
    with pytest.raises(UserError, match="does not answer; use tracking.mode=offline"):
        resolve_mode("online")
    with monkeypatch.context() as patched:  # a server of one's own, whose certificate nobody signed
        unsigned = urllib.error.URLError(ssl.SSLCertVerificationError("self-signed certificate"))
        patched.setattr("urllib.request.urlopen", Mock(side_effect=unsigned))
        assert reachable("https://wandb.example")
        broken = urllib.error.URLError(ssl.SSLEOFError("EOF occurred in violation of protocol"))
        patched.setattr("urllib.request.urlopen", Mock(side_effect=broken))
        assert not reachable("https://wandb.example")
    silent = socket.create_server(("127.0.0.1", 0))  # takes connections, says nothing
    began = time.monotonic()
    assert not reachable(f"http://127.0.0.1:{silent.getsockname()[1]}", 0.5)
    assert time.monotonic() - began < 3


def test_modes(monkeypatch: pytest.MonkeyPatch, no_account: Path) -> None:
    """auto is online exactly when a key is configured (environment or netrc entry for the server), WANDB_MODE
    steers auto only, and online without a key is refused instead of asked about. The server is taken to answer."""
    monkeypatch.setattr(wandb_mode, "reachable", lambda url: True)
    assert (has_key(), resolve_mode("auto")) == (False, "offline")
    with pytest.raises(UserError, match="no W&B key is configured"):
        resolve_mode("online")
    with pytest.raises(UserError, match="tracking.mode: found 'on'"):
        resolve_mode("on")
    netrc = no_account / ".netrc"
    netrc.write_text("machine example.org login user password " + "k" * 40)
    assert resolve_mode("auto") == "offline"
    netrc.write_text("machine api.wandb.ai login user password " + "k" * 40)
    assert resolve_mode("auto") == "online"
    netrc.unlink()
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    assert resolve_mode("auto") == "online"
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert (resolve_mode("auto"), resolve_mode("online")) == ("offline", "online")
    monkeypatch.setenv("WANDB_MODE", "sometimes")
    with pytest.raises(UserError, match="WANDB_MODE: found 'sometimes'"):
        resolve_mode("auto")


def test_an_online_run_keeps_its_address(tmp_path: Path) -> None:
    """The server is the user's own; a page that is made later links to it."""
    run = SimpleNamespace(url="https://wandb.our.org/team/winnow/runs/abc")
    tracker = Tracker(run, "online", tmp_path)
    assert tracker.place == run.url == (tmp_path / "wandb" / "run_url").read_text().strip()


def test_an_evaluation_stands_behind_the_training(tmp_path: Path) -> None:
    """Three steps, of which the last is number 2: both models' numbers stand at 3. The card that is sent says that the
    run is finished."""
    (tmp_path / "tuning.json").write_text('{"steps": 3}')
    model = {"metrics": {"t/acc": {"value": 0.5, "stderr": None}}}
    (tmp_path / "results.json").write_text(json.dumps({"models": {"base": model, "tuned": model}, "delta": {}}))
    with tracked(folder=tmp_path, mode="disabled") as tracker:
        track_stage(tracker, tmp_path, None, "evaluate", StageRecord())
        card = RunCard({}, argv=["winnow"])
        track_results(tracker, tmp_path, card)
    with (tmp_path / "metrics" / "version_0" / "metrics.csv").open() as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["3", "3"]
    assert json.loads((tmp_path / "run_card.json").read_text())["status"] == "finished"


def test_what_cannot_start_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    """Likewise a setting that W&B refuses; W&B's folders are then no longer set in the environment."""
    with pytest.raises(UserError, match="could not start .*Tags must be"):
        tracked(folder=tmp_path, mode="offline", tags=["t" * 65])
    assert not [key for key in os.environ if key.startswith("WANDB_") and key.endswith("_DIR")]
    with pytest.raises(UserError, match="cannot be written"):
        tracked(folder=tmp_path / "file" / "run", mode="offline")


def test_without_the_package_a_run_goes_on(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    """W&B is an extra: `auto` tracks nothing and says so, a mode that needs it names the extra."""
    monkeypatch.setattr(wandb_mode, "find_spec", lambda name: None)
    assert resolve_mode("auto") == "disabled" and "W&B is not installed" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"offline needs W&B: run `pip install -c requirements.txt -e '.\[wandb\]'` in"):
        resolve_mode("offline")


def test_offline_needs_no_package(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    """offline=true asks for nothing that is not there. Nor is a folder `wandb` of earlier runs the package."""
    monkeypatch.setattr(wandb_mode, "find_spec", lambda name: SimpleNamespace(loader=None))
    monkeypatch.setattr(wandb_mode, "is_offline", lambda: True)
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert resolve_mode("auto") == "disabled" and "W&B is not installed" in capsys.readouterr().out
    monkeypatch.setattr(wandb_mode, "is_offline", lambda: False)
    with pytest.raises(UserError, match="WANDB_MODE=offline needs W&B"):
        resolve_mode("auto")
