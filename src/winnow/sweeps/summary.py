"""What a multirun sweep says at its end: which jobs are not finished, and why; and the table that it was for."""

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
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from winnow.errors import UserError, user_sentence
from winnow.store.files import read_json, write_atomically, write_json
from winnow.tracking.run_card import mask_hydra

FAILURE = "failed.json"  # in a job's folder: why its last attempt failed
LAST_SWEEP = "sweep.json"  # in an experiment's folder: when its last sweep began, in seconds since 1970
TROUBLE = "sweep_error.txt"  # in a sweep's folder: the traceback of what ended its launcher or its sweeper
UNFINISHED = "it did not finish: killed, or running still"
SHARED = (
    "refused, as an earlier job of the sweep wrote into this folder; let hydra.sweep.subdir name what differs between "
    "jobs, as ${hydra:job.num} does"
)
CARD = "run_card.json"


def note_failure(folder: Path, error: Exception) -> None:
    """Leave the reason in the job's folder: the job may run in another process than the sweep's."""
    sentence = user_sentence(error) or "".join(traceback.format_exception(error))
    write_json(folder / FAILURE, {"error": sentence})
    print(f"This job failed: {sentence}", flush=True)


def failure(file: Path) -> str:
    """The sentence that `note_failure` left; of a traceback the last line."""
    return read_json(file, "error")["error"].strip().splitlines()[-1]


@dataclass(frozen=True)
class Sweep:
    """A sweep that this process began.

    folder: where its jobs belong. table, scale: of the command; the experiment's resolved `table`, None outside of
    experiments. began: seconds since 1970. notes: each job leaves one here when it begins, whatever process it runs in
    and wherever its own folder is.
    """

    folder: Path
    table: dict[str, Any] | None
    scale: str | None
    began: float
    notes: Path

    def jobs(self) -> list[dict[str, Any]]:
        """The notes of the jobs that began, by folder: folder, table, scale, and the time stamp of an earlier attempt's
        run card; of a job that was refused `refused`."""
        notes = [read_json(path, "folder") for path in self.notes.glob("*.json")]
        return sorted(notes, key=lambda note: note["folder"])

    def name(self, job: dict[str, Any]) -> str:
        """A job's folder as it is told: below the sweep's, else the whole path."""
        path, home = Path(job["folder"]), Path(os.path.abspath(self.folder))
        return str(path.relative_to(home) if path.is_relative_to(home) else path)

    def failed(self) -> str | None:
        """One sentence with each job that began and is not finished; those with the same reason together."""
        reasons: dict[str, list[str]] = {}
        for job in self.jobs():
            why = _verdict(job)
            if why is not None:
                reasons.setdefault(why, []).append(self.name(job))
        if not reasons:
            return None
        number = sum(map(len, reasons.values()))
        told = "; ".join(f"{', '.join(names)}: {why}" for why, names in reasons.items())
        return f"{number} job{'s' if number > 1 else ''} of the sweep failed: {told}"

    def trouble(self, error: Exception) -> str:
        """One sentence on what ended the launcher or the sweeper; a traceback goes into the sweep's folder."""
        sentence = user_sentence(error)
        if sentence is None:
            write_atomically(self.folder / TROUBLE, "".join(traceback.format_exception(error)))
            # Submitit's messages have whole logs below a line of dashes.
            told = textwrap.shorten(re.split(r"\n\s*-{3,}|\n\s*Traceback", str(error))[0], 300)
            sentence = f"{type(error).__name__}: {told} (its traceback: {self.folder / TROUBLE})"
        if not self.jobs():
            return sentence
        return f"the sweep was not brought to its end: {sentence}; the same command runs what is missing."

    def check_table(self) -> None:
        """Raises UserError where the sweep's folder does not have the jobs of its table: an empty one must not take the
        place of a full one."""
        name, home = _table_name(self.table), Path(os.path.abspath(self.folder))
        away = [job for job in self.jobs() if not Path(job["folder"]).is_relative_to(home)]
        if away:
            raise UserError(
                f"no table of {name} is written: {len(away)} of {len(self.jobs())} jobs, as {self.name(away[0])}, lie "
                f"outside of {self.folder}; give a hydra.sweep.dir that is the same for all jobs, or write the table "
                f"of one folder with `winnow table {name} runs=FOLDER`."
            )
        if not any((job["table"], job["scale"]) == (name, self.scale) for job in self.jobs()):
            raise UserError(
                f"no table of {name} at scale={self.scale} is written: no job of this sweep is of both; do not sweep "
                f"what says which table or scale it is."
            )

    def remember(self) -> None:
        """Leave the time of this sweep in an experiment's folder."""
        write_json(self.folder / LAST_SWEEP, {"began": self.began})

    def forget(self) -> None:
        """Remove the jobs' notes."""
        shutil.rmtree(self.notes, ignore_errors=True)


SWEEPS: list[Sweep] = []  # of this process; Hydra makes the callback below, and has no way to hand it out
REFUSED: set[int] = set()  # numbers of jobs that must not run, for the same reason


def _told(method: Callable) -> Callable:
    """Ends the process with an error's sentence: Hydra makes warnings of a callback's errors."""

    @functools.wraps(method)
    def call(*given, **named):
        try:
            return method(*given, **named)
        except Exception as error:
            sys.exit(f"error: {user_sentence(error) or ''.join(traceback.format_exception(error))}")

    return call


class SweepSummary(Callback):
    """Hydra callback: refuses what cannot be one sweep; every job that begins leaves a note with its folder."""

    def __init__(self) -> None:
        self.notes: Path | None = None  # goes along into the processes of a launcher

    @_told
    def on_multirun_start(self, config: DictConfig, **kwargs) -> None:
        _check_sweep(config)
        REFUSED.clear()
        folder, table = Path(config.hydra.sweep.dir), config.get("table")
        home = Path(os.path.abspath(folder))
        for left in home.glob(f".jobs-{platform.node()}-*-*"):  # by sweeps that were killed
            if not _alive(int(left.name.split("-")[-2])):
                shutil.rmtree(left, ignore_errors=True)
        self.notes = home / f".jobs-{platform.node()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        if table is not None:
            table = OmegaConf.to_container(table, resolve=True)
        SWEEPS.append(Sweep(folder, table, OmegaConf.select(config, "scale.name"), time.time(), self.notes))

    @_told
    def on_job_start(self, config: DictConfig, **kwargs) -> None:
        folder = Path(config.hydra.runtime.output_dir)
        mask_hydra(folder)
        mask_hydra(Path(config.hydra.sweep.dir))
        if self.notes is not None and not self._first(config, folder):
            REFUSED.add(config.hydra.job.num)
            return
        (folder / FAILURE).unlink(missing_ok=True)  # the verdict of an earlier attempt

    def _first(self, config: DictConfig, folder: Path) -> bool:
        """Leaves the job's note; False for a job whose folder is another's, which then has its settings back."""
        note = self.notes / f"{uuid.uuid5(uuid.NAMESPACE_URL, str(folder)).hex}.json"
        about = {
            "job": config.hydra.job.num,
            "folder": str(folder),
            "table": _table_name(config.get("table")),
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
            if first["job"] == about["job"]:  # of several processes of a job the first one says how it was
                return True
            for name, text in first["settings"].items():
                write_atomically(folder / ".hydra" / name, text)
            write_json(self.notes / f"{uuid.uuid4().hex}.json", about | {"refused": True})
            return False


def _check_sweep(config: DictConfig) -> None:
    """Raises UserError for several experiments, or several scales of one: folder and table are those of one."""
    params = config.hydra.sweeper.get("params") or {}
    words = [f"{key}={params[key]}" for key in ("experiment", "scale") if key in params]
    given = {}
    for one in OverridesParser.create().parse_overrides([*words, *config.hydra.overrides.task]):
        given[one.get_key_element().lstrip("+~")] = one
    for key in ("experiment", "scale"):
        if "experiment" in given and key in given and given[key].is_sweep_override():
            raise UserError(
                f"{given[key].input_line}: an experiment at a scale is a sweep of its own, with its own folder and "
                f"table; give one command for each, or run all experiments of a scale with "
                f"`python experiments/run_all.py`."
            )


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it is somebody else's
        return True
    return True


def _table_name(table: Any) -> str | None:
    return None if table is None else f"{table['paper']}/{table['name']}"


def _stamp(folder: Path) -> int | None:
    """When the run card in a folder was last written; None if there is none."""
    return (folder / CARD).stat().st_mtime_ns if (folder / CARD).is_file() else None


def _verdict(job: dict[str, Any]) -> str | None:
    """Why a job that began is not finished; None if it is."""
    folder = Path(job["folder"])
    if job.get("refused"):
        return SHARED
    if (folder / FAILURE).is_file():
        return failure(folder / FAILURE)
    if _stamp(folder) == job["card"]:  # nothing was written since
        return UNFINISHED
    card = read_json(folder / CARD, "status", "error")
    if card["status"] == "finished":
        return None
    return card["error"] or UNFINISHED
