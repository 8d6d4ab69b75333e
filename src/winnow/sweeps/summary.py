"""A multirun sweep: its folder, its jobs as they begin, and at its end those that are unfinished."""

from __future__ import annotations

import functools
import os
import platform
import re
import shutil
import sys
import textwrap
import time
import traceback
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ValueType
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict

from winnow.errors import UserError
from winnow.messages import user_sentence
from winnow.store.files import read_json, write_atomically, write_json
from winnow.sweeps import scale
from winnow.sweeps.rows import expand, job_name
from winnow.tracking.run_card import STARTED_BY, mask_hydra, masked

FAILURE = "failed.json"  # in a job's folder: the error of its last attempt
LAST_SWEEP = "sweep.json"  # in an experiment's folder: when its last sweep began, in seconds since 1970
TROUBLE = "sweep_error.txt"  # in a sweep's folder: the traceback of its launcher or sweeper
UNFINISHED = "not finished: it was killed, or it still runs"
SHARED = (
    "refused, as an earlier job of the sweep wrote into this folder; let hydra.sweep.subdir name what differs between "
    "jobs, as ${hydra:job.num} does"
)
SEVERAL = "give each job N devices with hydra/launcher=submitit_slurm hydra.launcher.tasks_per_node=N trainer.devices=N"
CARD = "run_card.json"
FREE = ("paths", "tracking", "scoring", "trainer", "callbacks", "stages", "offline")  # groups that change no number
UNNAMED = Path("outputs/sweeps/unnamed")  # the folder of a sweep in conf/config.yaml


def note_failure(folder: Path, error: Exception) -> None:
    """Write the error into the job's folder, because the job may run in another process than the sweep."""
    sentence = user_sentence(error) or "".join(traceback.format_exception(error))
    write_json(folder / FAILURE, {"error": sentence})
    print(f"This job failed: {sentence}", flush=True)


def failure(file: Path) -> str:
    """The sentence of `note_failure`; the last line of a traceback."""
    return read_json(file, "error")["error"].strip().splitlines()[-1]


@dataclass(frozen=True)
class Sweep:
    """A sweep that this process began.

    folder: the parent of its jobs' folders. table, scale: the experiment's resolved `table` and the scale of the
    command, None without an experiment. began: seconds since 1970. notes: the folder into which every job, in any
    process, writes a note when it begins.
    """

    folder: Path
    table: dict[str, Any] | None
    scale: str | None
    began: float
    notes: Path

    def jobs(self) -> list[dict[str, Any]]:
        """The notes of the jobs that began, by folder: folder, table, scale, and the time stamp of the run card of an
        earlier attempt; a refused job also has `refused`."""
        notes = [read_json(path, "folder") for path in self.notes.glob("*.json")]
        return sorted(notes, key=lambda note: note["folder"])

    def name(self, job: dict[str, Any]) -> str:
        """A job's folder for a message: relative to the sweep's, or the whole path if it lies elsewhere."""
        path, home = Path(job["folder"]), Path(os.path.abspath(self.folder))
        return str(path.relative_to(home) if path.is_relative_to(home) else path)

    def failed(self) -> str | None:
        """One sentence on the unfinished jobs, grouped by reason; None without one."""
        reasons: dict[str, list[str]] = {}
        for job in self.jobs():
            why = _reason(job)
            if why is not None:
                reasons.setdefault(why, []).append(self.name(job))
        if not reasons:
            return None
        number = sum(map(len, reasons.values()))
        message = "; ".join(f"{', '.join(names)}: {why}" for why, names in reasons.items())
        return f"{number} job{'s' if number > 1 else ''} of the sweep failed: {message}"

    def finished(self) -> str:
        """A sentence with the number of finished jobs."""
        number = sum(_reason(job) is None for job in self.jobs())
        return f"{number} job{'s' if number != 1 else ''} of the sweep finished."

    def trouble(self, error: Exception) -> str:
        """One sentence on the error of the launcher or sweeper; a traceback goes into the sweep's folder."""
        sentence = user_sentence(error)
        if sentence is None:
            write_atomically(self.folder / TROUBLE, "".join(traceback.format_exception(error)))
            # Submitit's messages hold whole logs below a line of dashes.
            message = textwrap.shorten(re.split(r"\n\s*-{3,}|\n\s*Traceback", str(error))[0], 300)
            sentence = f"{type(error).__name__}: {message} (its traceback: {self.folder / TROUBLE})"
        if not self.jobs():
            return sentence
        return f"the sweep ended early: {sentence}; the same command runs the missing jobs."

    def check_table(self) -> None:
        """Raises UserError where the sweep's folder lacks the jobs of its table, because an empty table would replace a
        full one."""
        name, home = table_name(self.table), Path(os.path.abspath(self.folder))
        outside = [job for job in self.jobs() if not Path(job["folder"]).is_relative_to(home)]
        if outside:
            raise UserError(
                f"no table of {name} is written: {len(outside)} of {len(self.jobs())} jobs, as "
                f"{self.name(outside[0])}, lie outside of {self.folder}; give one hydra.sweep.dir for all, or write "
                f"the table of one folder with `winnow table {name} runs=FOLDER`."
            )
        if not any((job["table"], job["scale"]) == (name, self.scale) for job in self.jobs()):
            raise UserError(
                f"no table of {name} at scale={self.scale} is written: no job of this sweep has both; do not sweep the "
                f"keys that set table or scale."
            )

    def remember(self) -> None:
        """Write the time of this sweep into the experiment's folder."""
        write_json(self.folder / LAST_SWEEP, {"began": self.began})

    def forget(self) -> None:
        """Remove the jobs' notes."""
        shutil.rmtree(self.notes, ignore_errors=True)


SWEEPS: list[Sweep] = []  # of this process; Hydra creates the callback below and gives no access to it
REFUSED: set[int] = set()  # numbers of jobs that must not run, for the same reason


def _ends_process(method: Callable) -> Callable:
    """Ends the process with the sentence of an error, because Hydra turns errors of a callback into warnings."""

    @functools.wraps(method)
    def call(*args, **kwargs):
        try:
            return method(*args, **kwargs)
        except Exception as error:
            sys.exit(f"error: {user_sentence(error) or ''.join(traceback.format_exception(error))}")

    return call


class SweepSummary(Callback):
    """Hydra callback: checks the sweep and names its folder; prints and writes a note for every job that begins."""

    def __init__(self) -> None:
        # The launcher copies these into its processes.
        self.notes: Path | None = None
        self.common: set[str] = set()  # overrides of all jobs
        self.number: int | None = None  # of jobs, where it is known
        self.argv: list[str] = []  # a job of submitit has its own

    @_ends_process
    def on_multirun_start(self, config: DictConfig, **kwargs) -> None:
        _check_sweep(config)
        REFUSED.clear()
        scale.PRINTED.clear()
        _name_folder(config)
        self.argv = list(sys.argv)
        self.common, self.number = set(masked(config.hydra.overrides.task)), _number_of_jobs(config)
        from winnow.distributed import is_leader  # loads torch, which takes seconds

        if is_leader():
            print(f"Sweep{f' of {self.number} jobs' if self.number else ''} in {config.hydra.sweep.dir}", flush=True)
        folder, table = Path(config.hydra.sweep.dir), config.get("table")
        home = Path(os.path.abspath(folder))
        for left in home.glob(".jobs-*-*-*"):  # by sweeps that were killed
            host, process, _ = left.name.rsplit("-", 2)
            if host == f".jobs-{platform.node()}" and not psutil.pid_exists(int(process)):
                shutil.rmtree(left, ignore_errors=True)
        self.notes = home / f".jobs-{platform.node()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        if table is not None:
            table = OmegaConf.to_container(table, resolve=True)
        SWEEPS.append(Sweep(folder, table, OmegaConf.select(config, "scale.name"), time.time(), self.notes))

    @_ends_process
    def on_job_start(self, config: DictConfig, **kwargs) -> None:
        STARTED_BY[:] = self.argv
        folder = Path(config.hydra.runtime.output_dir)
        mask_hydra(folder)
        mask_hydra(Path(config.hydra.sweep.dir))
        if self.notes is not None and not self._first(config, folder):
            REFUSED.add(config.hydra.job.num)
            return
        if self.notes is None and not (folder / FAILURE).is_file():
            return
        from winnow.distributed import is_leader

        if not is_leader():  # it may be late, and meet what the leader has written in this attempt
            return
        (folder / FAILURE).unlink(missing_ok=True)  # of an earlier attempt
        if self.notes is not None:
            of = f" of {self.number}" if self.number else ""
            own = self._own(masked(config.hydra.overrides.task))
            print(f"\nJob {config.hydra.job.num + 1}{of}: {' '.join(own)}", flush=True)
            self._part_from_another(folder, own)

    def _own(self, overrides: Sequence[str]) -> list[str]:
        """The overrides of a job that others lack."""
        added = ("row.job=", "scale.keep=")  # by the sweeper of rows
        return [word for word in overrides if word not in self.common and not word.startswith(added)]

    def _part_from_another(self, folder: Path, own: Sequence[str]) -> None:
        """Begin a new W&B run in a folder that another job had, when this sweep had other values."""
        run_id = folder / "wandb" / "run_id"  # of `tracking.wandb_run`, which loads torch
        if not run_id.is_file():
            return
        try:
            before = read_json(folder / CARD, "hydra")["hydra"]["overrides"]
        except (UserError, TypeError):  # no card, or one that does not tell
            return
        if _numbers(self._own(before)) != _numbers(own):
            run_id.unlink(missing_ok=True)

    def _first(self, config: DictConfig, folder: Path) -> bool:
        """Write the job's note. False if an earlier job has this folder; the settings of that job are restored."""
        note = self.notes / f"{uuid.uuid5(uuid.NAMESPACE_URL, str(folder)).hex}.json"
        about = {
            "job": config.hydra.job.num,
            "folder": str(folder),
            "table": table_name(config.get("table")),
            "scale": OmegaConf.select(config, "scale.name"),
            "card": _stamp(folder),
            "settings": {path.name: path.read_text(encoding="utf-8") for path in (folder / ".hydra").glob("*.yaml")},
        }
        self.notes.mkdir(parents=True, exist_ok=True)
        with FileLock(self.notes / ".lock"):
            if not note.exists():
                write_json(note, about)
                return True
            first = read_json(note, "job")
            if first["job"] == about["job"]:  # another process of the same job
                return True
            for name, text in first["settings"].items():
                write_atomically(folder / ".hydra" / name, text)
            write_json(self.notes / f"{uuid.uuid4().hex}.json", about | {"refused": True})
            return False


def _numbers(overrides: Sequence[str]) -> set[str]:
    """The overrides that may change a number: another place, device or tracker makes no other job."""
    return {word for word in overrides if re.split(r"[.=@]", word.lstrip("+~"))[0] not in FREE}


def _name_folder(config: DictConfig) -> None:
    """Name the folder of a sweep that has none by its overrides, so that the same command finds its jobs again. It
    becomes an override, because Hydra composes the configuration of each job anew."""
    sweep = config.hydra.sweep
    if Path(sweep.dir) != UNNAMED:
        return
    with open_dict(config):
        sweep.dir = str(UNNAMED.with_name(job_name(sorted(config.hydra.overrides.task))))
        config.hydra.overrides.hydra.append(f"hydra.sweep.dir='{sweep.dir}'")


def _number_of_jobs(config: DictConfig) -> int | None:
    """How many jobs a sweep has; None for a sweeper that decides as it goes."""
    sweeper, words = OmegaConf.to_container(config.hydra.sweeper, resolve=True), list(config.hydra.overrides.task)
    parse = OverridesParser.create().parse_overrides
    params = {str(key): str(value) for key, value in (sweeper.get("params") or {}).items()}
    if "rows" in sweeper:
        only = sweeper["only"] if isinstance(sweeper["only"], dict) else {}  # the sweeper refuses what is none
        return len(expand(sweeper["rows"], params, words, parse, only))
    if "n_trials" in sweeper:
        return sweeper["n_trials"]
    overrides = parse([*words, *(f"{key}={value}" for key, value in params.items())])
    glob = any(one.value_type == ValueType.GLOB_CHOICE_SWEEP for one in overrides)  # Hydra knows what it stands for
    if glob or not sweeper["_target_"].endswith(".BasicSweeper"):
        return None
    return len(BasicSweeper.split_arguments(overrides, None)[0])


def _check_sweep(config: DictConfig) -> None:
    """Raises UserError for several experiments or scales, because folder and table belong to one; for a folder of one
    run; for a search by several processes, and for jobs of several that only the whole command could start."""
    params, search = config.hydra.sweeper.get("params") or {}, "n_trials" in config.hydra.sweeper
    launcher = OmegaConf.select(config, "hydra.launcher._target_", default="").rpartition(".")[2]
    if search:
        from winnow.distributed import group_size  # loads torch, which takes seconds

        if group_size() > 1:
            raise UserError(
                f"A search in a group of {group_size()} processes: each would choose other settings for its part of a "
                f"model. Start it without torchrun or srun; {SEVERAL}."
            )
    alone = {"JoblibLauncher": "hydra/launcher=joblib", "LocalLauncher": "hydra/launcher=submitit_local"}.get(launcher)
    if alone or (search and launcher != "SlurmLauncher"):
        from winnow.trainer import check_trainer, processes_of

        check_trainer(config.trainer)
        if processes_of(config.trainer) > 1:
            raise UserError(
                f"trainer.devices={config.trainer.devices}: {alone or 'a search'} cannot start several processes for a "
                f"job; give trainer.devices=1, or {SEVERAL}."
            )
    words = [f"{key}={params[key]}" for key in ("experiment", "scale") if key in params]
    overrides = {}
    for one in OverridesParser.create().parse_overrides([*words, *config.hydra.overrides.task]):
        overrides[one.get_key_element().lstrip("+~")] = one
    if "paths.run" in overrides:
        raise UserError("paths.run is the folder of one run; the jobs of a sweep lie below hydra.sweep.dir=FOLDER.")
    for key in ("experiment", "scale"):
        if "experiment" in overrides and key in overrides and overrides[key].is_sweep_override():
            raise UserError(
                f"{overrides[key].input_line}: an experiment at a scale is a sweep of its own, with its own folder and "
                f"table; give one command for each, or run all experiments of a scale with "
                f"`python experiments/run_all.py`."
            )


def table_name(table: Any) -> str | None:
    """`<paper>/<name>` of a `table` of a configuration; None without one."""
    return None if table is None else f"{table['paper']}/{table['name']}"


def _stamp(folder: Path) -> int | None:
    """Time of the last change of the run card in a folder; None without a card."""
    return (folder / CARD).stat().st_mtime_ns if (folder / CARD).is_file() else None


def _reason(job: dict[str, Any]) -> str | None:
    """The reason why a job that began is not finished; None if it is."""
    folder = Path(job["folder"])
    if job.get("refused"):
        return SHARED
    if (folder / FAILURE).is_file():
        return failure(folder / FAILURE)
    if _stamp(folder) == job["card"]:  # nobody has written it since
        return UNFINISHED
    card = read_json(folder / CARD, "status", "error")
    if card["status"] == "finished":
        return None
    return card["error"] or UNFINISHED
