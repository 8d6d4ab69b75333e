"""Tracking by TensorBoard, MLflow or trackio, through Lightning's loggers, under the same keys as W&B.

Numbers go to the logger, and the configuration as its hyper-parameters. Tables, histograms, pages and artifacts stay in
the run folder, where the report shows them. Each start of a run is a run of its own there.
"""

from __future__ import annotations

import io
import math
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from types import TracebackType
from typing import Any
from unittest.mock import patch

from pytorch_lightning.loggers import Logger, MLFlowLogger, TensorBoardLogger
from pytorch_lightning.utilities import rank_zero_only

from winnow.errors import UserError, check_choice
from winnow.tracking.run_card import masked
from winnow.tracking.wandb_run import Tracker

# `to`, which is also the package's name: what pip installs. The hub's client that trackio needs is too new for
# transformers 4.
PACKAGES = {"tensorboard": "tensorboard", "mlflow": "mlflow", "trackio": "trackio 'transformers>=5'"}


class TrackioLogger(Logger):
    """A run in trackio's database on this machine. Asks nothing of the hub.

    folder: of the database. Raises UserError if this process has another one open, OSError if it cannot be made.
    """

    def __init__(self, project: str, name: str | None, group: str | None, folder: str) -> None:
        super().__init__()
        place = Path(folder).expanduser().resolve()
        place.mkdir(parents=True, exist_ok=True)  # trackio would warn, go on, and lose the numbers
        os.environ["TRACKIO_DIR"] = str(place)  # read when trackio is imported, once
        import trackio

        if Path(trackio.TRACKIO_DIR) != place:
            raise UserError(f"tracking.uri={folder}: this process writes to {trackio.TRACKIO_DIR}; start another.")
        # A run asks the hub for the name of the account that is logged in.
        with patch("huggingface_hub.constants.HF_HUB_OFFLINE", True):
            self.run = trackio.Run(url=None, project=project, client=None, name=name, group=group)

    @property
    def name(self) -> str:
        return self.run.project

    @property
    def version(self) -> str:
        return self.run.id

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.run.log(metrics, step=step)

    def log_hyperparams(self, params: dict[str, Any], *args: Any, **options: Any) -> None:
        """Before the first number: trackio sends the configuration with it."""
        self.run.config.update(params)

    def finalize(self, status: str) -> None:
        with redirect_stdout(io.StringIO()):  # it prints
            self.run.finish()


class LoggerTracker(Tracker):
    """A tracked run that writes to one of Lightning's loggers."""

    def __init__(self, logger: Logger, folder: Path, csv: bool) -> None:
        super().__init__(None, "disabled", folder, csv)
        self.logger = logger
        self._loggers.insert(0, logger)
        self._step = 0

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.logger.finalize("success" if error is None else "failed")
        super().__exit__(kind, error, trace)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        super().log_metrics(metrics, step)
        self._step = self._step if step is None else step
        self._log(metrics)

    def summary(self, values: Mapping[str, Any]) -> None:
        """The numbers among the run's final values; words are in the run card."""
        self._log(values)

    def update_config(self, values: Mapping[str, Any]) -> None:
        self.logger.log_hyperparams({self._name(key): value for key, value in masked(values).items()})

    def _name(self, key: str) -> str:
        """MLflow takes no comma in a name (`exact_match,strict-match`) and no @ (`pass@1`, `choices/data@target`). In a
        folder each name is a file, so that none may be the folder of another (`tuned/x/acc/stderr`)."""
        if not isinstance(self.logger, MLFlowLogger):
            return key
        return re.sub(r"/(?=(stderr|low|high)$)", " ", key.replace(",", " ").replace("@", " at "))

    def _log(self, values: Mapping[str, Any]) -> None:
        numbers = {
            self._name(key): float(value)
            for key, value in values.items()
            if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        }
        if numbers:
            self.logger.log_metrics(numbers, step=self._step)


def track(
    *,
    folder: str | Path,
    config: Any = None,
    to: str,
    csv: bool,
    project: str,
    uri: str | None,
    name: str | None,
    group: str | None,
    job_type: str | None,
    tags: Sequence[str],
) -> Tracker:
    """Start tracking a run; use the result as a context manager. Only the process of rank 0 tracks.

    to: tensorboard, with its files in the run folder, mlflow or trackio. project, uri: the experiment of MLflow or
    project of trackio, and where it lies. The others as for W&B. Raises UserError for a package that is not installed
    and a place that cannot be used.
    """
    check_choice("tracking.to", to, PACKAGES)
    folder = Path(folder).resolve()
    if rank_zero_only.rank != 0:
        return Tracker(None, "disabled", folder)
    about = {"name": name, "group": group, "job_type": job_type, "tags": ", ".join(map(str, tags))}
    try:
        if to == "tensorboard":
            logger: Logger = TensorBoardLogger(str(folder), name="tensorboard", default_hp_metric=False)
        elif to == "trackio":
            if uri is None:
                raise UserError("tracking=trackio needs tracking.uri, the folder of its database.")
            logger = TrackioLogger(project, name, group, uri)
        else:
            words = {key: str(value) for key, value in about.items() if value}
            logger = MLFlowLogger(experiment_name=project, run_name=name, tracking_uri=uri, tags=words)
        tracker = LoggerTracker(logger, folder, csv)
        tracker.update_config({**(config if config is not None else {}), **about})
    except ModuleNotFoundError as error:
        raise UserError(
            f"tracking={to} needs the package {to} (`pip install {PACKAGES[to]}`), or use tracking=csv."
        ) from error
    except Exception as error:
        if not isinstance(error, OSError) and type(error).__module__.partition(".")[0] not in ("mlflow", "sqlalchemy"):
            raise
        reason = " ".join(str(error).split())[:300]
        place = uri or folder
        raise UserError(f"tracking={to}: {place} cannot be used ({reason}); give another tracking.uri.") from error
    return tracker
