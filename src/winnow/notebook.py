"""What the notebooks need of Winnow besides its own functions: runs without a command line, a table of what a run said
of each record, and plots in the look of the reports.

A run is given by the words that `python -m winnow` takes; it writes below WINNOW_NOTEBOOK_FOLDER (by default
`outputs/notebooks` in the repository), with one store for all notebooks, so that none computes a pass again.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
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
from winnow.quiet import quiet

if TYPE_CHECKING:
    import pandas as pd
    from IPython.display import HTML
    from matplotlib.axes import Axes

quiet()  # when this is imported, before the libraries that talk
warnings.filterwarnings("ignore", message="IProgress not found")  # progress bars are off; no need for their widgets

DOTS_PER_INCH = 96  # 9 inches wide: 864 pixels, of about 40 KB each
PLAIN = ("tracking=none", "trainer.enable_progress_bar=false")
_began = time.perf_counter()
_stages: list[str] = []  # status of every stage since `begin`


def begin(records: int) -> int:
    """Sets the plots' look and starts the clock; returns how many records to look at.

    records: the useful number, on which WINNOW_NOTEBOOK_RECORDS has the last word. Raises UserError where that is no
    whole number of 8 or more.
    """
    global _began
    import matplotlib

    from winnow.pages.svg import STYLE

    matplotlib.rcParams.update(STYLE | {"figure.dpi": DOTS_PER_INCH, "savefig.dpi": DOTS_PER_INCH})
    _began = time.perf_counter()
    _stages.clear()
    given = os.environ.get("WINNOW_NOTEBOOK_RECORDS", str(records))
    if not given.isdecimal() or int(given) < 8:
        raise UserError(f"WINNOW_NOTEBOOK_RECORDS={given} must be a whole number of 8 or more.")
    return int(given)


def end(records: int) -> None:
    """Prints how many records were looked at, how long it took, and how much of it came from the store."""
    import torch

    threads = torch.get_num_threads()
    seconds = time.perf_counter() - _began
    print(
        f"{records} records, {seconds:.0f} s on {threads} thread{'s' * (threads > 1)}: "
        f"stages: {_stages.count('computed')} computed, {_stages.count('reused')} taken from the store."
    )


def folder() -> Path:
    """Where notebooks keep their runs and their store."""
    return Path(os.environ.get("WINNOW_NOTEBOOK_FOLDER", CONF.parent / "outputs" / "notebooks")).expanduser().resolve()


def compose(*words: str) -> DictConfig:
    """The configuration of `python -m winnow <words>`, below `folder()`, without tracker and progress bars.

    Its run folder is named by the method and a hash of the words: the same words go to the same folder again.
    """
    cfg = config.compose(*PLAIN, f"paths.store={folder() / 'store'}", *words)
    if not any(word.startswith("paths.run=") for word in words):
        cfg.paths.run = str(folder() / "runs" / f"{cfg.method.name}-{_hash(words)}")
    return cfg


def run(*words: str) -> Path:
    """Runs `python -m winnow <words>` in this process, without what it prints; returns the run folder."""
    from winnow import pipeline

    cfg = compose(*words)
    told = io.StringIO()
    with contextlib.redirect_stdout(told):
        pipeline.run(cfg)
    _count(Path(cfg.paths.run))
    return Path(cfg.paths.run)


def sweep(*words: str) -> Path:
    """Runs `python -m winnow -m <words>` as a process of its own; returns the sweep's folder, which holds a run folder
    for each job.

    The jobs share a store of their own in that folder, so that their times are those of a cold store; a sweep of the
    same words that has finished before is not run again. Raises UserError with the end of what the process said if a
    job failed.
    """
    place = folder() / "sweeps" / _hash(words)
    finished = place / "finished"
    again = finished.exists()
    if not again:
        plain = [*PLAIN, f"hydra.sweep.dir={place}", f"paths.store={place / 'store'}"]
        command = [sys.executable, "-m", "winnow", "-m", *plain, *words]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            told = (done.stdout + done.stderr)[-2000:]
            raise UserError(f"The sweep of {' '.join(words)} ended with status {done.returncode}: {told}")
        finished.touch()
    for card in sorted(place.glob("*/run_card.json")):
        _count(card.parent, again)
    return place


def table(run_folder: Path) -> pd.DataFrame:
    """One row per record of the pool, in its order: the texts, the pool's own labels (`category`, `defect`) where it
    has them, all columns of `scores.parquet`, and `selected`, `rank` and `reason` if the run has selected.

    `defect` of a record without one is `clean`.
    """
    import pandas as pd
    import pyarrow.parquet as pq
    from hydra.utils import instantiate

    card = json.loads((run_folder / "run_card.json").read_text(encoding="utf-8"))
    pool = instantiate(OmegaConf.create(card["config"]["data"]))
    rows = []
    for record in pool.records:
        labels: dict[str, Any] = {key: record.raw[key] for key in ("category", "defect") if key in record.raw}
        if "defect" in labels:
            labels["defect"] = (labels["defect"] or "clean").replace("_", " ")
        rows.append({"instruction": record.instruction, "input": record.input, "output": record.output} | labels)
    scores = pq.read_table(run_folder / "scores.parquet").to_pandas()
    frame = pd.concat([pd.DataFrame(rows), scores], axis=1)
    manifest = run_folder / "selection.json"
    if manifest.exists():
        decisions = pd.DataFrame(json.loads(manifest.read_text(encoding="utf-8"))["decisions"])
        extra = [key for key in ("selected", "rank", "reason", "class") if key in decisions]
        frame = frame.merge(decisions[["row", *extra]], on="row", how="left", validate="one_to_one")
    return frame


def short(text: str, width: int = 90) -> str:
    """The beginning of a text on one line, of at most `width` characters; long words are broken off too."""
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 2].rstrip() + " …"


def show(frame: pd.DataFrame, decimals: int = 2, width: int = 90) -> HTML:
    """The table for display, without an index: texts on one line of at most `width` characters, numbers rounded. The
    same table gives the same HTML, so that a notebook that is executed again does not change."""
    from IPython.display import HTML

    texts = frame.map(lambda value: short(value, width) if isinstance(value, str) else value)
    rounded = f"{{:.{decimals}f}}".format
    return HTML(texts.to_html(index=False, border=0, justify="left", float_format=rounded, na_rep=""))


def matrix(axes: Axes, names: Sequence[str], values: np.ndarray) -> None:
    """Draws a square matrix of numbers in [-1, 1], one number in each cell; NaN cells are empty."""
    from winnow.compare.plots import BLUES, BOTH

    signed = bool(np.nanmin(values) < 0)
    axes.imshow(values, cmap=BOTH if signed else BLUES, vmin=-1 if signed else 0, vmax=1)
    for (i, j), value in np.ndenumerate(values):
        if not np.isnan(value):
            ink = "#fdfdfd" if abs(value) > 0.6 else "#1c1d21"
            axes.text(j, i, f"{value:.2f}".replace("-0.00", "0.00"), ha="center", va="center", color=ink, fontsize=9)
    axes.set_xticks(range(len(names)), names, rotation=30, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), names)
    axes.grid(visible=False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _count(run_folder: Path, again: bool = False) -> None:
    """Remember the status of the run's stages; `again`: it was made by an earlier notebook."""
    card = json.loads((run_folder / "run_card.json").read_text(encoding="utf-8"))
    done = [stage["status"] for stage in card["stages"].values() if stage["status"] != "skipped"]
    _stages.extend(["reused"] * len(done) if again else done)


def _hash(words: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(words).encode()).hexdigest()[:8]
