"""The little that winnow itself needs to know about several processes; Lightning does the rest.

Every process runs the same pipeline on the same configuration. The leader decides what must be computed and writes
shared files; the others follow. A process that Lightning's own launcher started replays the pipeline from the start
and joins the leader at the computation for which it was started.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.distributed as dist

from winnow.errors import UserError

if TYPE_CHECKING:
    from winnow.store.artifacts import Artifact
    from winnow.store.columns import Columns

Item = TypeVar("Item")
Result = TypeVar("Result")

# How long a process may wait for the others (ours). The leader computes metrics and runs the model's code alone, and
# may wait for another job's artifact, while the others stand in a broadcast; the defaults, 10 minutes on GPUs and 30 on
# CPUs, would end the run. A process that dies is noticed by what started it, or by `end_after`, not by this.
PATIENCE = timedelta(days=7)

# Variable with the number of the process that sets it: Lightning's launcher copies it to those that it starts.
PARENT = "WINNOW_PARENT"


def rank() -> int:
    """Global rank of this process, also before the process group exists; 0 when there is only one.

    Reads what torchrun, Slurm and Lightning's own launcher set in the environment of the processes they start.
    """
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank()

    def number(variable: str) -> int | None:
        value = os.environ.get(variable, "")
        return int(value) if value.isdigit() else None

    for variable in ("RANK", "SLURM_PROCID") if _started_by_srun() else ("RANK",):
        if number(variable) is not None:
            return number(variable)
    # Lightning's launcher: the first process of a further machine has no LOCAL_RANK yet, but a NODE_RANK.
    return number("LOCAL_RANK") or number("NODE_RANK") or 0


def group_size() -> int:
    """How many processes torchrun or srun started together, also before the process group exists."""
    return int(os.environ.get("WORLD_SIZE") or os.environ.get("SLURM_STEP_NUM_TASKS", "1"))


def _started_by_srun() -> bool:
    """Whether srun started several tasks, of which this is one. The shell of `srun --pty` and `salloc` and a batch
    script have Slurm's other variables too."""
    return int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1


def is_leader() -> bool:
    """True for the one process that writes shared files."""
    return rank() == 0


def in_group() -> bool:
    """Whether other processes wait for this one, and it for them."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def join() -> None:
    """Form the process group early if torchrun, or srun with several tasks, started this process, so that the leader's
    decisions can be heard. A process that Lightning's launcher started ends with the one that started it."""
    if dist.is_initialized():
        return
    if "TORCHELASTIC_RUN_ID" in os.environ:
        _take_gpu(int(os.environ["LOCAL_RANK"]), int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
        dist.init_process_group(timeout=PATIENCE)
    elif _started_by_srun():
        from lightning_fabric.plugins.environments import SLURMEnvironment

        try:
            job = SLURMEnvironment()
        except RuntimeError as error:  # the number of tasks is given, but not how many a machine has
            raise UserError(f"Slurm's settings: {error}") from error
        # In a job named `bash` or `interactive` Lightning looks for these, and would start processes of its own.
        os.environ["LOCAL_RANK"], os.environ["NODE_RANK"] = str(job.local_rank()), str(job.node_rank())
        _take_gpu(job.local_rank(), int(os.environ.get("SLURM_NTASKS_PER_NODE", "1")))
        place = f"tcp://{job.main_address}:{job.main_port}"
        dist.init_process_group(
            init_method=place, rank=job.global_rank(), world_size=job.world_size(), timeout=PATIENCE
        )
    elif os.environ.get("LOCAL_RANK", "0") == "0":
        os.environ[PARENT] = str(os.getpid())
    elif PARENT in os.environ:
        end_after(_parent)


def end_after(wait: Callable[[], None]) -> None:
    """End this process when `wait` returns, which waits for the one that started it: one that is killed ends nobody."""

    def watch() -> None:
        wait()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _parent() -> None:
    while os.getppid() == int(os.environ[PARENT]):
        time.sleep(1)


def _take_gpu(number: int, processes: int) -> None:
    """For process `number` of so many on this machine. All of them refuse: one alone would leave the others waiting."""
    if not torch.cuda.is_available():
        return
    if processes > torch.cuda.device_count():
        raise UserError(
            f"Each of the {processes} processes of this machine sees {torch.cuda.device_count()} GPUs, and needs "
            f"{processes} to choose its own from: ask Slurm for --gpus-per-node={processes}, without --gpus-per-task "
            f"and --gpu-bind; to compute on CPUs, set CUDA_VISIBLE_DEVICES= (nothing)."
        )
    torch.cuda.set_device(number)


def share(items: Sequence[Item]) -> Sequence[Item]:
    """The items that this process works on: every n-th in a group of n, all where there is no group."""
    return items[dist.get_rank() :: dist.get_world_size()] if in_group() else items


def dealt(
    items: Sequence[Item], work: Callable[[Sequence[Item]], Sequence[Result]], then: Callable[[], None] = lambda: None
) -> list[Result]:
    """A result for each item, in their order. Every process of the group calls it with the same items, works on its
    share of them and gets the results of all. A UserError that one of them raises is raised in all. then: called when
    the share is done, before the results go round."""
    try:
        own: Any = work(share(items))
    except UserError as error:
        own = error
    then()
    parts = from_all(own)
    for part in parts:
        if isinstance(part, UserError):
            raise part
    results: list[Any] = [None] * len(items)
    for number, part in enumerate(parts):
        results[number :: len(parts)] = part
    return results


def compute_once(folder: Artifact | Columns, work: Callable[[Any], None], *asked: Any) -> Any:
    """Call `work` with what is missing of `asked`, if anything is, and finish the folder; all processes take the same
    turn.

    Returns what was missing: of an artifact, whether it was; of columns, the ids among those asked for. The leader
    holds the folder's lock; if another job is at work on it, it waits, and takes over should that job die.
    """
    if not is_leader():
        # Without a group this process was started for the very thing that the leader has in hand.
        missing = from_leader(None) if dist.is_initialized() else folder.missing(*asked)
        if missing:
            work(missing)
            barrier()
        return missing
    missing = folder.missing(*asked)
    if not missing:
        return from_leader(missing)
    with folder.claim(*asked) as missing:
        from_leader(missing)
        if missing:
            work(missing)
            folder.finish()
            barrier()
    return missing


def barrier() -> None:
    """Wait for the other processes of the group, if there is a group."""
    if in_group():
        dist.barrier()


def from_leader(value: Any) -> Any:
    """The leader's value, in every process of the group; the process's own where there is no group."""
    if not in_group():
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def from_all(value: Item) -> list[Item]:
    """The value of each process of the group, by rank, in every one of them."""
    if not in_group():
        return [value]
    box: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(box, value)
    return box


def read_by_leader(read: Callable[[], Any]) -> Any:
    """What `read` gives the leader, in every process of the group: a file of the run folder may not be there for
    others, and a service is paid for each request. A UserError that it raises is raised in all. Without a group each
    process reads itself."""
    try:
        found: Any = read() if is_leader() or not dist.is_initialized() else None
    except UserError as error:
        found = error
    found = from_leader(found)
    if isinstance(found, UserError):
        raise found
    return found
