"""Processes wait for one another as long as it takes."""

from __future__ import annotations

import os
import time

import pytest
import torch.distributed as dist
from lightning_fabric.plugins.environments import LightningEnvironment

from winnow.distributed import PATIENCE, join, rank
from winnow.errors import UserError
from winnow.trainer import make_trainer


def test_a_group_of_torchrun_is_patient(monkeypatch):
    """The leader may evaluate for hours while the others stand in a broadcast."""
    asked = []
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(dist, "init_process_group", lambda **given: asked.append(given))
    join()
    assert asked == [{"timeout": PATIENCE}] and PATIENCE.days >= 7


@pytest.mark.parametrize(
    ("variables", "number"),
    [
        ({"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1", "LOCAL_RANK": "2"}, 2),  # in the shell of `srun --pty`
        ({"SLURM_PROCID": "3", "SLURM_STEP_NUM_TASKS": "4", "LOCAL_RANK": "1"}, 3),
        ({"RANK": "5", "SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "2", "LOCAL_RANK": "1"}, 5),  # torchrun under srun
        ({"NODE_RANK": "1"}, 1),
        ({}, 0),
    ],
)
def test_rank_is_that_of_who_started_the_process(monkeypatch, variables, number):
    for variable in ("RANK", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "LOCAL_RANK", "NODE_RANK"):
        monkeypatch.delenv(variable, raising=False)
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    assert rank() == number


def slurm(monkeypatch, **variables):
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    monkeypatch.setattr(os, "environ", dict(os.environ))  # join writes into it
    os.environ |= {"SLURM_JOB_ID": "1", "SLURM_JOB_NAME": "winnow", "SLURM_NTASKS": "2", "SLURM_NODELIST": "localhost"}
    os.environ |= {"SLURM_LOCALID": "1", "SLURM_PROCID": "1", "SLURM_NODEID": "0", **variables}


def test_tasks_of_an_interactive_job_start_no_others(monkeypatch):
    """Lightning leaves a job of this name to itself, and reads LOCAL_RANK to know whether it starts the processes."""
    slurm(monkeypatch, SLURM_JOB_NAME="interactive", SLURM_STEP_NUM_TASKS="2", SLURM_NTASKS_PER_NODE="2")
    monkeypatch.setattr(dist, "init_process_group", lambda **_: None)
    join()
    assert LightningEnvironment().creates_processes_externally and LightningEnvironment().local_rank() == 1


def test_slurm_without_srun_and_without_tasks_a_machine(monkeypatch):
    slurm(monkeypatch, SLURM_STEP_NUM_TASKS="2")
    with pytest.raises(UserError, match="--ntasks-per-node=2"):
        join()
    slurm(monkeypatch, SLURM_NTASKS_PER_NODE="2")
    os.environ.pop("SLURM_STEP_NUM_TASKS", None)
    two = {"accelerator": "cpu", "strategy": "ddp", "devices": 2}
    with pytest.raises(UserError, match="write srun before the command"):
        make_trainer(two, logger=False)
    for more in ({}, {"SLURM_NTASKS_PER_NODE": "1"}):  # Lightning's advice on the latter is to give the devices up
        slurm(monkeypatch, SLURM_NTASKS="1", SLURM_STEP_NUM_TASKS="1", **more)
        with pytest.raises(UserError, match=r"waits for 2 processes, .* ask for --ntasks-per-node=2"):
            make_trainer(two, logger=False)


def test_every_task_sees_all_gpus_of_its_machine(monkeypatch):
    """With --gpus-per-task each of two tasks sees one, and the second has no GPU of its number. Both refuse."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    for task in "01":
        slurm(monkeypatch, SLURM_STEP_NUM_TASKS="2", SLURM_NTASKS_PER_NODE="2", SLURM_LOCALID=task)
        with pytest.raises(
            UserError, match="Each of the 2 processes .* sees 1 GPUs.* --gpus-per-node=2, without --gpu"
        ):
            join()


def test_a_trainer_of_another_size_than_its_group_is_refused(monkeypatch):
    """Two processes that torchrun started: with one device each both would do all of the work, with three work would be
    lost. Without a group nothing starts the second of two machines."""
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(UserError, match="num_nodes=2: nothing starts the processes of the other machines"):
        make_trainer({"accelerator": "cpu", "strategy": "ddp", "num_nodes": 2}, logger=False)
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    for asked in (1, 3):
        with pytest.raises(UserError, match=rf"asks for {asked} processes .*, but 2 were started: give trainer=ddp"):
            make_trainer({"accelerator": "cpu", "devices": asked}, logger=False)


def test_a_child_of_lightnings_launcher_ends_with_its_parent(monkeypatch):
    """It has the parent's environment; the parent is killed while the child stands in a broadcast. A pipe ends when no
    process has it any more."""
    for variable in ("TORCHELASTIC_RUN_ID", "SLURM_STEP_NUM_TASKS", "LOCAL_RANK"):
        monkeypatch.delenv(variable, raising=False)
    read, write = os.pipe()
    parent = os.fork()
    if not parent:
        try:
            join()
            if not os.fork():
                os.environ["LOCAL_RANK"] = "1"
                join()
                time.sleep(20)
        finally:
            os._exit(0)
    os.close(write)
    os.waitpid(parent, 0)
    began = time.monotonic()
    assert os.read(read, 1) == b"" and time.monotonic() - began < 10


def test_a_group_of_lightning_is_patient(monkeypatch):
    """What Lightning hands to torch when it forms the group itself."""
    asked = []
    form = "pytorch_lightning.strategies.ddp._init_dist_connection"
    monkeypatch.setattr(form, lambda *_, **given: asked.append(given))
    trainer = make_trainer({"accelerator": "cpu", "strategy": "ddp", "devices": 2}, logger=False)
    trainer.strategy.setup_distributed()
    assert [given["timeout"] for given in asked] == [PATIENCE]
