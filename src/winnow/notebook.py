"""Helpers of the notebooks: runs without a command line, a table of a run's records, plots in the style of the reports.

The words of `winnow` describe a run; WINNOW_NOTEBOOK_WORDS has those of all runs. They are written below
WINNOW_NOTEBOOK_FOLDER (by default `outputs/notebooks` in the repository). All notebooks share one store there, so that
no notebook repeats a pass.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from omegaconf import DictConfig, OmegaConf

from winnow import config
from winnow.config import CONF
from winnow.errors import UserError
from winnow.pages.files import read_json
from winnow.quiet import quiet

if TYPE_CHECKING:
    import pandas as pd
    from IPython.display import HTML
    from matplotlib.axes import Axes

quiet()  # before the import of libraries that print
warnings.filterwarnings("ignore", message="IProgress not found")  # progress bars are off; no need for their widgets

DOTS_PER_INCH = 96  # 9 inches wide: 864 pixels, of about 40 KB each
QUIET = ("tracking=none", "trainer.enable_progress_bar=false")
_began = time.perf_counter()
_stages: list[str] = []  # status of every stage since `begin`


def begin(records: int) -> int:
    """Set the style of the plots, start the clock, and return the number of records.

    records: the default, which WINNOW_NOTEBOOK_RECORDS overrides. Raises UserError unless the number is whole and at
    least 8.
    """
    global _began
    import matplotlib

    from winnow.pages.svg import STYLE

    matplotlib.rcParams.update(STYLE | {"figure.dpi": DOTS_PER_INCH, "savefig.dpi": DOTS_PER_INCH})
    _began = time.perf_counter()
    _stages.clear()
    number = os.environ.get("WINNOW_NOTEBOOK_RECORDS", str(records))
    if not number.isdecimal() or int(number) < 8:
        raise UserError(f"WINNOW_NOTEBOOK_RECORDS={number} must be a whole number of 8 or more.")
    return int(number)


def end(records: int) -> None:
    """Print the number of records, the time, and the number of stages that came from the store."""
    import torch

    threads = torch.get_num_threads()
    seconds = time.perf_counter() - _began
    print(
        f"{records} records, {seconds:.0f} s on {threads} thread{'s' * (threads > 1)}: "
        f"stages: {_stages.count('computed')} computed, {_stages.count('reused')} taken from the store."
    )


def folder() -> Path:
    """The folder of the notebooks' runs and their store."""
    return Path(os.environ.get("WINNOW_NOTEBOOK_FOLDER", CONF.parent / "outputs" / "notebooks")).expanduser().resolve()


def compose(*words: str) -> DictConfig:
    """The configuration of `winnow <words>`, below `folder()`, without tracker and progress bars.

    The method and a hash of all words name the run folder, so that equal words share it.
    """
    cfg = config.compose(*_own_words(), f"paths.store={folder() / 'store'}", *words)
    if not any(word.startswith("paths.run=") for word in words):
        cfg.paths.run = str(folder() / "runs" / f"{cfg.method.name}-{_hash(words)}")
    return cfg


def run(*words: str) -> Path:
    """Run `winnow <words>` in this process without its output, and return the run folder."""
    from winnow import pipeline

    cfg = compose(*words)
    with contextlib.redirect_stdout(io.StringIO()):
        pipeline.run(cfg)
    _count(Path(cfg.paths.run))
    return Path(cfg.paths.run)


def sweep(*words: str) -> Path:
    """Run `winnow -m <words>` in a new process, and return the sweep's folder with a run folder for each job.

    The folder also holds a store for these jobs alone, so that their times are those of an empty store. A finished
    sweep of the same words does not run again. Raises UserError with the last output of the process if a job failed.
    """
    place = folder() / "sweeps" / _hash(words)
    finished = place / "finished"
    again = finished.exists()
    if not again:
        plain = [*_own_words(), f"hydra.sweep.dir={place}", f"paths.store={place / 'store'}"]
        command = [sys.executable, "-m", "winnow", "-m", *plain, *words]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            output = (done.stdout + done.stderr)[-2000:]
            raise UserError(f"The sweep of {' '.join(words)} ended with status {done.returncode}: {output}")
        finished.touch()
    for card in sorted(place.glob("*/run_card.json")):
        _count(card.parent, again)
    return place


def table(run_folder: Path) -> pd.DataFrame:
    """One row per record of the pool, in its order: the texts, the pool's labels (`category`, `defect`) if it has them,
    all columns of `scores.parquet`, and `selected`, `rank` and `reason` after a selection.

    `defect` is `clean` for a record without a defect.
    """
    import pandas as pd
    import pyarrow.parquet as pq
    from hydra.utils import instantiate

    card = read_json(run_folder / "run_card.json")
    pool = instantiate(OmegaConf.create(card["config"]["data"]))
    rows = []
    for record in pool.records:
        labels: dict[str, Any] = {key: record.raw[key] for key in ("category", "defect") if key in record.raw}
        if "defect" in labels:
            labels["defect"] = (labels["defect"] or "clean").replace("_", " ")
        rows.append({"instruction": record.instruction, "input": record.input, "output": record.output} | labels)
    scores = pq.read_table(run_folder / "scores.parquet").to_pandas()
    frame = pd.concat([pd.DataFrame(rows), scores], axis=1)
    manifest = read_json(run_folder / "selection.json")
    if manifest is not None:
        decisions = pd.DataFrame(manifest["decisions"])
        extra = [key for key in ("selected", "rank", "reason", "class") if key in decisions]
        frame = frame.merge(decisions[["row", *extra]], on="row", how="left", validate="one_to_one")
    return frame


def short(text: str, width: int = 90) -> str:
    """The beginning of a text, on one line of at most `width` characters; it may end inside a word."""
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 2].rstrip() + " …"


def show(frame: pd.DataFrame, decimals: int = 2, width: int = 90) -> HTML:
    """The table for display, without an index: texts on one line of at most `width` characters, numbers rounded. Equal
    tables give equal HTML, so that a second execution does not change the notebook."""
    from IPython.display import HTML

    texts = frame.map(lambda value: short(value, width) if isinstance(value, str) else value)
    rounded = f"{{:.{decimals}f}}".format
    return HTML(texts.to_html(index=False, border=0, justify="left", float_format=rounded, na_rep=""))


def matrix(axes: Axes, names: Sequence[str], values: np.ndarray) -> None:
    """Draw a square matrix of numbers in [-1, 1], one number in each cell; NaN cells are empty."""
    from winnow.compare.plots import draw_cells

    draw_cells(axes, values, size=9)
    axes.set_aspect("equal")
    axes.set_xticks(range(len(names)), names, rotation=30, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), names)


def _count(run_folder: Path, again: bool = False) -> None:
    """Remember the status of the run's stages; again: an earlier notebook made the run."""
    card = read_json(run_folder / "run_card.json")
    done = [stage["status"] for stage in card["stages"].values() if stage["status"] != "skipped"]
    _stages.extend(["reused"] * len(done) if again else done)


def _own_words() -> list[str]:
    return [*QUIET, *os.environ.get("WINNOW_NOTEBOOK_WORDS", "").split()]


def _hash(words: Sequence[str]) -> str:
    return hashlib.sha256("\n".join([*_own_words(), *words]).encode()).hexdigest()[:8]
