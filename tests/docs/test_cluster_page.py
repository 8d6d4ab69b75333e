"""Every command of docs/clusters.md composes, launcher and all; other tests run the paths that they take."""

from __future__ import annotations

import re
import shlex

import hydra
import pytest
from composed import CONF

from winnow.config import check
from winnow.trainer import check_trainer

PAGE = (CONF.parent / "docs" / "clusters.md").read_text(encoding="utf-8").replace("\\\n", " ")
COMMANDS = re.findall(r"^ *(?:srun |torchrun [\w -]+-m )?winnow ((?:--multirun )?\w+=.+)$", PAGE, re.M)


@pytest.mark.parametrize("command", COMMANDS, ids=range(len(COMMANDS)))
def test_the_command_composes(command, monkeypatch):
    """Each value of a sweep but the first is left out; keys of the launcher are those of its own schema."""
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    words = [word for word in shlex.split(command) if word != "--multirun"]
    words = [re.sub(r"^(method|seed)=(\w+),.*", r"\1=\2", word) for word in words]
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = hydra.compose("config", overrides=words, return_hydra_config=True)
    launcher = dict(cfg.hydra.launcher)
    del cfg.hydra
    check(cfg)
    check_trainer(dict(cfg.trainer))
    assert cfg.paths.store == "$SCRATCH/store"
    if "submitit_slurm" in command:
        assert launcher["timeout_min"] == 720 and launcher["max_num_timeout"] == 3 and launcher["gpus_per_node"] == 1


def test_the_page_has_a_job_a_sweep_and_an_experiment():
    """What the pattern of the test above must find: srun, torchrun, srun with fsdp, a sweep, an experiment."""
    assert len(COMMANDS) == 5
    assert sum("submitit_slurm" in command for command in COMMANDS) == 2
