"""The little that winnow itself needs to know about several processes; Lightning does the rest."""

from __future__ import annotations

import os

import torch.distributed as dist


def rank() -> int:
    """Global rank of this process, also before the process group exists; 0 when there is only one.

    Reads what torchrun, Slurm and Lightning's own launcher set in the environment of the processes they start.
    """
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank()
    for variable in ("RANK", "SLURM_PROCID", "LOCAL_RANK"):
        if os.environ.get(variable, "").isdigit():
            return int(os.environ[variable])
    return 0


def is_leader() -> bool:
    """True for the one process that writes shared files."""
    return rank() == 0


def barrier() -> None:
    """Wait for the other processes of the group, if there is a group."""
    if dist.is_available() and dist.is_initialized():
        dist.barrier()
