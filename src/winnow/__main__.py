"""`winnow [overrides]`: Hydra before `pipeline.run`; also commands that read runs: `winnow compare`."""

from __future__ import annotations

import _thread
import os
import signal
import sys
import threading
import warnings
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

import winnow
from winnow.config import COMMANDS, CONF, check_values, help_page
from winnow.quiet import quiet

if TYPE_CHECKING:  # `winnow --help` loads none of them
    from omegaconf import DictConfig

    from winnow.sweeps.summary import Sweep

_raised: list[Exception] = []


class _GroupFailed(BaseException):
    """Ends a sweep of several processes, with its cause: they wait for one another. Hydra would take an Exception for
    the job's result and begin the next job."""


def _job(cfg: DictConfig) -> dict | float | None:
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from winnow.sweeps.summary import FAILURE, REFUSED, note_failure

    quiet()  # Hydra's own logging set-up is in force only now
    folder = Path(HydraConfig.get().runtime.output_dir)
    if HydraConfig.get().mode == RunMode.MULTIRUN and HydraConfig.get().job.num in REFUSED:
        return None
    try:
        check_values(cfg)  # before torch and what needs it, whose imports take seconds
        from winnow import pipeline
        from winnow.distributed import is_leader
        from winnow.sweeps.objective import check_objective, objective
        from winnow.sweeps.scale import scaled

        wanted = cfg.get("objective") if is_leader() else None
        if wanted is not None:
            cfg = scaled(cfg)
            check_objective(cfg)
        results = pipeline.run(cfg)
        if is_leader():  # the job was started again meanwhile, and that start was refused
            (folder / FAILURE).unlink(missing_ok=True)
        return results if wanted is None else objective(results, wanted)
    except Exception as error:
        if HydraConfig.get().mode == RunMode.RUN:
            _raised.append(error)  # Hydra would print a report of its own before passing it on
            return None
        # A failed job of a sweep must not take the others with it; the sweep names it at the end.
        from winnow.distributed import in_group, is_leader

        if is_leader():
            note_failure(folder, error)
        if in_group():
            raise _GroupFailed from error
        return None


def _end(sweep: Sweep, error: Exception | None, sentences: list[str]) -> None:
    """Adds to `sentences` what is wrong with a sweep that ended; writes the table of its experiment, with
    whatever has been run so far. error: what ended its launcher or its sweeper."""
    from winnow.distributed import is_leader

    if not is_leader():  # the first process reports the jobs of all
        if error is not None:
            raise error
        return
    from winnow.console import sweep_lines
    from winnow.reproduce.publish import publish

    failed, begun = sweep.failed(), bool(sweep.jobs())
    sentences += [failed] if failed else []
    sentences += [sweep.trouble(error)] if error is not None else []
    if sweep.table is not None and begun:
        sweep.remember()
        sweep.check_table()
        publish(sweep.table, sweep.folder, sweep.scale)
    if begun and error is None:
        print("\n".join(sweep_lines(sweep.folder, sweep.jobs(), sweep.table)), flush=True)


def _run(sentences: list[str]) -> None:
    """One run or a sweep. Whatever ends a sweep, its jobs are accounted for."""
    import hydra

    from winnow.sweeps.summary import SWEEPS

    error = None
    try:
        hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(_job)()
    except (Exception, _GroupFailed) as raised:
        if not SWEEPS:
            raise
        error = raised.__cause__ if isinstance(raised, _GroupFailed) else raised
    if _raised:
        raise _raised[0]
    for sweep in SWEEPS:
        _end(sweep, error, sentences)


def _interrupt(*_) -> None:
    raise KeyboardInterrupt


def _interrupt_again(ignored: sys.UnraisableHookArgs) -> None:
    """Python drops what is raised while an object is deleted. A dropped interrupt is raised again, a moment later."""
    if issubclass(ignored.exc_type, KeyboardInterrupt):
        threading.Timer(0.05, _thread.interrupt_main).start()
    else:
        sys.__unraisablehook__(ignored)


def main() -> None:
    """Console entry point: exit status 0, or 1 with one sentence for an error that the user can correct."""
    if sys.argv[1:] in (["--help"], ["-h"]):
        print(help_page())
        return
    if sys.argv[1:] == ["--version"]:
        print(f"Winnow {winnow.__version__}")
        return
    if meant := get_close_matches(" ".join(sys.argv[1:]), ("--help", "--version"), 1, 0.8):
        sys.exit(f"error: {sys.argv[1]} is no argument; did you mean `winnow {meant[0]}`?")
    quiet()  # before the imports: then libraries begin to talk
    from winnow.messages import user_sentence
    from winnow.sweeps.summary import SWEEPS

    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # errors come to us instead of being printed by Hydra
    warnings.filterwarnings("ignore", category=UserWarning, module="hydra")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # where a class of the user's own is looked for last
    sys.unraisablehook = _interrupt_again
    signal.signal(signal.SIGTERM, _interrupt)  # what a scheduler sends; without this nobody would write the run card
    SWEEPS.clear()
    _raised.clear()
    sentences: list[str] = []  # what went wrong, a sentence each
    try:
        if sys.argv[1:2] and sys.argv[1] in COMMANDS:
            from winnow import commands

            vars(commands)[sys.argv[1]](sys.argv[2:])
        else:
            _run(sentences)
    except KeyboardInterrupt as interrupt:
        sentence = " ".join([str(interrupt) or "Interrupted.", *(sweep.finished() for sweep in SWEEPS)])
        sys.exit(f"{sentence} The store holds the finished results; the same command continues from there.")
    except Exception as error:
        sentence = user_sentence(error)
        if sentence is None:
            print("".join(f"error: {one}\n" for one in sentences), end="", file=sys.stderr)
            raise
        sentences.append(sentence)
    finally:
        for sweep in SWEEPS:
            sweep.forget()
    if sentences:
        sys.exit("\n".join(f"error: {one}" for one in sentences))


if __name__ == "__main__":
    main()
