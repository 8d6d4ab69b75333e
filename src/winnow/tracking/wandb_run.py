"""Tracking of a run: Weights & Biases, offline when no key is configured, and Lightning's CSV logger besides.

    with instantiate(cfg.tracking)(folder=run_folder, config=cfg) as tracker:
        trainer = Trainer(logger=tracker.lightning_loggers())
        tracker.summary({"arc_easy/acc": 0.61})

All files are inside the run folder (`wandb/`, `metrics/`), and tracking never prints or asks. Send an offline run
later with `wandb sync <run folder>/wandb/offline-run-*`.

One run folder is one W&B run: its id is kept in `wandb/run_id`, and a later start in the same folder continues it.
"""

from __future__ import annotations

import math
import os
import secrets
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from pytorch_lightning.loggers import CSVLogger, Logger, WandbLogger
from pytorch_lightning.utilities import rank_zero_only

from winnow.errors import UserError
from winnow.store.files import write_atomically
from winnow.tracking.run_card import error_sentence, masked
from winnow.tracking.wandb_mode import resolve_mode

if TYPE_CHECKING:
    from wandb import Run

STEP = "trainer/global_step"  # the x-axis that Lightning's WandbLogger logs under
ID_FILE, URL_FILE = "run_id", "run_url"  # inside <run folder>/wandb
ARTIFACTS = {"subset": "dataset", "adapter": "model", "model": "model"}  # kind: its type in W&B


class Tracker:
    """One tracked run; made by `track`. A context manager: leaving it finishes the W&B run, with exit code 1
    on an error.

    `run` is the wandb run, or None when W&B is disabled; `artifacts` are the kinds that are kept; `continued` says that
    an earlier start in the same folder began this W&B run. `place` is the run's address, or the command that sends an
    offline run; None without W&B."""

    def __init__(
        self,
        run: Run | None,
        mode: str,
        folder: Path,
        csv: bool = False,
        variables: Sequence[str] = (),
        artifacts: Sequence[str] = (),
        continued: bool = False,
    ) -> None:
        self.run = run
        self.continued = continued
        self.artifacts = tuple(artifacts)
        self._variables = tuple(variables)
        self._loggers: list[Logger] = []
        self._csv_steps = 0
        self._csv = CSVLogger(save_dir=str(folder), name="metrics") if csv else None
        self.place: str | None = None
        if run is not None:
            self.place = run.url if mode == "online" else f"wandb sync {shlex.quote(str(Path(run.dir).parent))}"
            if mode == "online":
                write_atomically(folder / "wandb" / URL_FILE, f"{run.url}\n")
            self._loggers.append(WandbLogger(experiment=run, save_dir=str(folder), log_model=False))
        if self._csv is not None:
            self._loggers.append(self._csv)

    def __enter__(self) -> Tracker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._csv is not None:
                self._csv.finalize("success" if error is None else "failed")
            if self.run is not None:
                if error is not None or self.continued:  # an earlier start may have left its error
                    self.run.summary["error"] = None if error is None else error_sentence(error)
                # W&B's service process writes the last records of the file some milliseconds later; the end of this
                # process waits for it.
                self.run.finish(exit_code=0 if error is None else 1)
        finally:
            for key in self._variables:
                os.environ.pop(key, None)

    def lightning_loggers(self) -> list[Logger]:
        """Loggers for `Trainer(logger=...)`: a WandbLogger on this same W&B run (unless disabled) and a
        CSVLogger writing `metrics/version_<n>/metrics.csv` (unless csv is off). Give them to one Trainer at a
        time; empty means `logger=False`."""
        return list(self._loggers)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log numbers, against the trainer's step axis when `step` is given; also a row of metrics.csv."""
        if self.run is not None:
            self.run.log(dict(metrics) if step is None else {**metrics, STEP: step})
        if self._csv is not None:
            self._csv.log_metrics(dict(metrics), self._csv_steps if step is None else step)
            self._csv_steps = max(self._csv_steps, step or 0) + 1
            self._csv.save()

    def summary(self, values: Mapping[str, Any]) -> None:
        """Set the run's final numbers: the columns of a W&B dashboard that line methods up."""
        if self.run is not None:
            self.run.summary.update(masked(values))

    def update_config(self, values: Mapping[str, Any]) -> None:
        """Add to the run's configuration (git commit, packages, hardware, data hash); secrets are masked."""
        if self.run is not None:
            self.run.config.update(masked(values), allow_val_change=True)

    def log_scores(self, scores: Sequence[float | None]) -> None:
        """Log the scores as a histogram of 64 bins, with their mean and their number of nulls in the summary."""
        numbers = [score for score in scores if score is not None and math.isfinite(score)]
        means = {"scores/mean": math.fsum(numbers) / len(numbers)} if numbers else {}
        self.summary({"scores/null": len(scores) - len(numbers)} | means)
        if self.run is not None and numbers:
            import wandb

            self.run.log({"scores/histogram": wandb.Histogram(numbers, num_bins=64)})

    def log_table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Log a table, for instance the best records with their scores. Cells are numbers, strings or None; a
        column whose cells differ in type is logged as text."""
        if self.run is None:
            return
        import wandb

        self.run.log(
            {name: wandb.Table(columns=list(columns), data=[list(row) for row in rows], allow_mixed_types=True)}
        )

    def save_file(self, path: Path) -> None:
        """Keep a copy of a file of the run folder (run card, report) with the W&B run."""
        if self.run is not None:
            # Copied to where W&B collects files: `run.save` would link, which breaks when the folder moves.
            target = Path(self.run.dir) / path.name
            target.write_bytes(path.read_bytes())
            self.run.save(str(target), base_path=self.run.dir, policy="now")

    def save_artifact(self, kind: str, path: str | Path, about: Mapping[str, Any]) -> None:
        """Keep a file or folder as version of the artifact `<kind>-<run id>`, if `artifacts` names its kind.

        kind: subset, adapter or model. about: the artifact's metadata. A subset is copied into `wandb/local` until it
        is sent; an adapter or model is sent from where it is, because the store never changes it."""
        if self.run is None or kind not in self.artifacts:
            return
        import wandb

        path = Path(path)
        artifact = wandb.Artifact(f"{kind}-{self.run.id}", ARTIFACTS[kind], metadata=masked(about))
        # Without skip_cache W&B would keep a further copy of what it has sent.
        if path.is_dir():  # one by one: `add_dir` prints
            for file in sorted(one for one in path.resolve().rglob("*") if one.is_file()):
                name = file.relative_to(path.resolve()).as_posix()
                artifact.add_file(str(file), name, skip_cache=True, policy="immutable")
        else:
            artifact.add_file(str(path), skip_cache=True)
        self.run.log_artifact(artifact)


def track(
    *,
    folder: str | Path,
    config: Any = None,
    mode: str,
    csv: bool,
    project: str,
    entity: str | None,
    name: str | None,
    group: str | None,
    job_type: str | None,
    tags: Sequence[str],
    artifacts: Sequence[str],
) -> Tracker:
    """Start tracking a run whose files go under `folder`; use the result as a context manager.

    mode: auto (online when a key is configured, otherwise offline), online, offline, disabled (no W&B). csv:
    also keep metrics in CSV files. config: the resolved configuration, logged with its secrets masked. artifacts:
    some of subset, adapter, model. The others are W&B's own fields. Only the process of rank 0 tracks.

    Online, a folder that was tracked before continues its W&B run. Offline it gets a further file with the same run
    id, which W&B joins when the files are sent.

    Raises UserError for an unknown mode or artifact, `online` without a key, a folder that cannot be written, a
    setting that W&B refuses, and a server that cannot be reached."""
    folder = Path(folder).resolve()
    for kind in artifacts:
        if kind not in ARTIFACTS:
            raise UserError(f"tracking.artifacts: found {kind!r}, expected some of {', '.join(ARTIFACTS)}.")
    if rank_zero_only.rank != 0:
        return Tracker(None, "disabled", folder)
    mode = resolve_mode(mode)
    if mode == "disabled":
        return Tracker(None, mode, folder, csv)
    run_id, continued = _run_id(folder / "wandb" / ID_FILE)
    variables = _keep_inside(folder / "wandb" / "local")
    import wandb

    settings = wandb.Settings(
        silent=True,
        console="off",  # the terminal's progress bars stay in the terminal
        symlink=False,
        disable_git=True,  # the run card knows which repository counts, and masks the command's secrets
        disable_code=True,
        disable_job_creation=True,
        x_disable_meta=True,
        x_save_requirements=False,
        init_timeout=60,
        reinit="create_new",  # never join a run that is already active, a notebook's for instance
    )
    try:
        run = wandb.init(
            dir=str(folder),
            id=run_id,
            resume="allow",
            mode=mode,
            project=project,
            entity=entity,
            name=name,
            group=group,
            job_type=job_type,
            tags=[str(tag) for tag in tags],
            config=masked(config if config is not None else {}),
            settings=settings,
        )
    except (wandb.Error, ValueError, OSError) as error:
        for key in variables:
            os.environ.pop(key, None)
        message = " ".join(str(error).split())
        anew = f", delete {folder / 'wandb' / ID_FILE} to begin a new W&B run" if continued else ""
        raise UserError(
            f"tracking.mode={mode}: W&B could not start ({message}); "
            f"mend the tracking settings{anew}, or use tracking=csv."
        ) from error
    if run.resumed:  # W&B then prefers what it knew
        run.config.update(masked(config if config is not None else {}), allow_val_change=True)
    run.define_metric(STEP)
    run.define_metric("*", step_metric=STEP, step_sync=True)
    return Tracker(run, mode, folder, csv, variables, artifacts, continued)


def _run_id(file: Path) -> tuple[str, bool]:
    """(the folder's W&B run id, whether it was there already). Drawn once, not derived from the job's name: the same
    experiment of two people must not become one run."""
    if file.exists():
        return file.read_text(encoding="utf-8").strip(), True
    run_id = secrets.token_hex(5)
    write_atomically(file, run_id + "\n")
    return run_id, False


def _keep_inside(folder: Path) -> list[str]:
    """Point W&B's cache and staging folders at `folder` where the user has not chosen them; returns the
    environment variables that were set."""
    unset = [key for key in ("WANDB_CACHE_DIR", "WANDB_DATA_DIR", "WANDB_ARTIFACT_DIR") if key not in os.environ]
    os.environ.update(dict.fromkeys(unset, str(folder)))
    return unset
