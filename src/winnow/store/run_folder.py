"""The folder of a run: what each stage leaves there, and that it never holds the outputs of two different runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from winnow.errors import UserError
from winnow.store.files import SUM, has_sum, remove_partials

# Stage -> what it writes into the run folder.
OUTPUTS = {
    "score": ("scores.parquet*", "attacks.*", "answers.parquet"),
    "select": ("selection.json*", "subset.*", "detection.json", "diversity.json"),
    "tune": ("tuning.json*", "model", "start", "model_card.md"),
    "evaluate": ("results.json*", "samples-*"),
    "report": ("report.html",),
}
STAGES = tuple(OUTPUTS)


def run_folder(cfg: DictConfig) -> Path:
    """Where this run writes: Hydra's folder for the job, or `paths.run` when called without Hydra."""
    folder = HydraConfig.get().runtime.output_dir if HydraConfig.initialized() else cfg.paths.run
    path = Path(folder).expanduser().resolve()
    try:
        path.mkdir(parents=True, exist_ok=True)
        (path / ".writable").touch()
        (path / ".writable").unlink(missing_ok=True)  # another process may have been quicker
    except FileExistsError:
        raise UserError(f"paths.run={path} is a file; a folder is expected: give another one.") from None
    except OSError as error:
        raise UserError(
            f"paths.run={path} cannot be written ({error.strerror}); choose another folder with paths.run=..."
        ) from None
    return path


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Keep the run folder for one run, so that its files never mix two. Raises UserError if another run has it.

    The lock is the operating system's, so that of a killed process is gone.
    """
    try:
        held = FileLock(folder / ".lock").acquire(timeout=0)
    except Timeout:
        raise UserError(
            f"Another run is writing to {folder}; wait for its end, or give this one another folder with paths.run=... "
            f"(a sweep: hydra.sweep.dir=...)."
        ) from None
    with held:
        remove_partials(folder / "*")
        yield


def present(folder: Path, file: str, stage: str) -> Path:
    """The path of what a stage of the run left. Raises UserError if it is not there."""
    path = folder / file
    if not path.exists():
        raise UserError(
            f"{path} is missing: the stage `{stage}` makes it; add it to stages, or name the folder of an "
            f"earlier run with paths.run=..."
        )
    return path


def earlier_output(folder: Path, file: str, stage: str) -> Path:
    """The path of what an earlier stage left: a file, or a folder of the store, which has checksums of its own. Raises
    UserError if it is not there, or its checksum is not the one beside it."""
    path = present(folder, file, stage)
    if path.is_file() and not has_sum(path):
        raise UserError(
            f"{path} is damaged: {path.name}{SUM} is missing or has another checksum; run the stage `{stage}` again "
            f"with this run folder, or, if you changed the file, `sha256sum {path.name} > {path.name}{SUM}` there."
        )
    return path


def outputs(folder: Path) -> dict[Path, int]:
    """All that stages have left in the folder, with the time at which it was written, in ns."""
    return {path: path.lstat().st_mtime_ns for own in OUTPUTS.values() for one in own for path in folder.glob(one)}


def drop_outputs_from(folder: Path, stage: str) -> None:
    """Delete what this and later stages have left of an earlier run; their artifacts stay in the store."""
    for later in STAGES[STAGES.index(stage) :]:
        for pattern in OUTPUTS[later]:
            for path in folder.glob(pattern):
                path.unlink()
