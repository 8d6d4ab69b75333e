"""`winnow table`: whose scale the table gets."""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf
from run_folders import run_folder

from winnow import commands
from winnow.errors import UserError
from winnow.sweeps.summary import note_failure


@pytest.fixture
def written(monkeypatch) -> list[tuple[str, str]]:
    """(table, scale) of each table that a command wrote."""
    done: list[tuple[str, str]] = []
    monkeypatch.setattr(
        "winnow.reproduce.publish.publish", lambda settings, runs, scale: done.append((settings["name"], scale))
    )
    return done


def test_the_scale_is_that_of_the_jobs(written, tmp_path):
    """Jobs at smoke: the table is one of smoke, said or not, and never one of the paper's scale."""
    run_folder(tmp_path / "a")
    run_folder(tmp_path / "other", table="consistency/table4", scale="small")
    commands.table(["consistency/table3", f"runs={tmp_path}"])
    commands.table(["consistency/table3", f"runs={tmp_path}", "scale=smoke"])
    assert written == [("table3", "smoke")] * 2
    with pytest.raises(UserError, match="the jobs of consistency/table3 have scale=smoke, none has scale=paper"):
        commands.table(["consistency/table3", f"runs={tmp_path}", "scale=paper"])
    with pytest.raises(UserError, match="holds no job of consistency/table1"):
        commands.table(["consistency/table1", f"runs={tmp_path}"])
    assert len(written) == 2


def test_of_several_scales_one_is_named(written, tmp_path):
    """The second scale is that of a job that failed before it had a run card."""
    run_folder(tmp_path / "a")
    (tmp_path / "b" / ".hydra").mkdir(parents=True)
    config = {"table": {"paper": "consistency", "name": "table3"}, "scale": {"name": "small"}}
    OmegaConf.save(config, tmp_path / "b" / ".hydra" / "config.yaml")
    note_failure(tmp_path / "b", UserError("no ratio"))
    with pytest.raises(UserError, match="choose one with scale=: small, smoke"):
        commands.table(["consistency/table3", f"runs={tmp_path}"])
    commands.table(["consistency/table3", f"runs={tmp_path}", "scale=small"])
    assert written == [("table3", "small")]


def test_the_default_folder_is_checked_too(written, tmp_path, monkeypatch):
    """A folder of smoke runs that was moved to where those of the paper's scale lie."""
    monkeypatch.chdir(tmp_path)
    run_folder(tmp_path / "outputs" / "experiments" / "consistency" / "table3" / "paper" / "a")
    with pytest.raises(UserError, match="none has scale=paper"):
        commands.table(["consistency/table3"])
    assert not written
