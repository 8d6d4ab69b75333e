"""The run card: command, data, versions, machine and results of a run on one page.

    with RunCard(config).recording(folder) as card:
        with card.stage("score") as stage:
            stage.status, stage.fingerprint = "reused", "0123456789abcdef"
            stage.results = {"scored": 300}
        card.data = {"source": "pool.jsonl", "n_records": 300}

writes `run_card.json` (for programs) and `run_card.md` (for people) into `folder`: after every stage, so that a killed
run has a card, and at the end, also when the run fails.
"""

from __future__ import annotations

import importlib.metadata
import math
import os
import platform
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from omegaconf import OmegaConf

from winnow.errors import UserError
from winnow.pages.card import card_markdown
from winnow.scoring.price import price
from winnow.store.artifacts import WAITED
from winnow.store.files import read_json, write_atomically, write_json
from winnow.store.run_folder import outputs

MASK = "***"
STARTED_BY: list[str] = []  # the arguments of the sweep whose job this process runs
# Whole words only: `tokenizer`, `first_token` or `max_new_tokens` are settings, not secrets.
_SECRET = re.compile(
    r"(^|_)(api_?key|secret|secret_key|password|passwd|credentials?|private_key|access_key)$"
    r"|^token$|(^|_)(hf|hub|huggingface|api|auth|access|bearer|wandb|github|refresh|use_auth)_token$",
    re.IGNORECASE,
)
PACKAGES = (
    *("torch", "transformers", "tokenizers", "peft", "pytorch-lightning", "lm-eval", "datasets", "huggingface-hub"),
    *("safetensors", "hydra-core", "omegaconf", "wandb", "numpy", "scipy", "scikit-learn", "pyarrow", "matplotlib"),
    "bitsandbytes",
)


def masked(value: Any) -> Any:
    """A plain copy of a configuration (dict, list or OmegaConf node) in which every non-null value under a
    key that names a secret (`api_key`, `token`, `hf_token`, `password`, ...) is replaced by `***`, in overrides
    (`tracking.api_key=...`) too."""
    if OmegaConf.is_config(value):
        value = OmegaConf.to_container(value, resolve=True)
    if isinstance(value, Mapping):
        return {
            str(key): MASK if item is not None and _SECRET.search(str(key)) else masked(item)
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple, set, frozenset)):
        return [masked(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # JSON has no NaN or infinity
    if isinstance(value, str):
        return _masked_override(value)
    return value if value is None or isinstance(value, (bool, int, float)) else str(value)


def _masked_override(text: str) -> str:
    """A text without the values of its `key=value` and `key: value` whose key is a secret: an override, several with
    commas, or one whose value is a dictionary."""
    key, equals, _ = text.partition("=")
    if equals and _is_secret(key):
        return f"{key}={MASK}"
    for pair in (r"([\w@/.~+-]+)(=)[^,\s]+", r"""([\w.-]+)(["']?\s*:\s*)("[^"]*"|'[^']*'|[^,\s{}[\]]+)"""):
        text = re.sub(pair, lambda one: f"{one[1]}{one[2]}{MASK}" if _is_secret(one[1]) else one[0], text)
    return text


def _is_secret(key: str) -> bool:
    return bool(_SECRET.search(key.lstrip("+~-").rsplit(".", 1)[-1].replace("-", "_")))


def mask_hydra(folder: Path) -> None:
    """Mask the secrets in what Hydra wrote about the job or the sweep of a folder."""
    for path in [*folder.glob(".hydra/*.yaml"), *folder.glob("multirun.yaml")]:
        plain = yaml.load(path.read_text(encoding="utf-8"), yaml.CSafeLoader)  # ten times as fast as OmegaConf's
        if masked(plain) == plain:
            continue
        text = OmegaConf.to_yaml(OmegaConf.create(masked(OmegaConf.to_container(OmegaConf.load(path), resolve=False))))
        if MASK in text:
            write_atomically(path, text)


def command_line(argv: Sequence[str]) -> str:
    """The command that started this process, ready to paste into a shell, without the interpreter's path: a
    package's `__main__.py` becomes `python -m <package>`, a console script its bare name, any other file
    `python <file>`. Values given to secret keys (`tracking.api_key=...`) are masked."""
    program = Path(argv[0]) if argv and argv[0] else Path("python")
    if program.name == "__main__.py":
        words = ["python", "-m", program.parent.name]
    elif program.suffix == ".py":
        words = ["python", str(argv[0])]
    else:
        words = [program.name]
    return shlex.join([*words, *map(_masked_override, argv[1:])])


def git_state(folder: Path) -> dict[str, str | bool | None]:
    """`{"commit": 40 hex digits, "dirty": bool}` of the git repository that `folder` is tracked in; both None
    when it is in none (an installed wheel, also one that lies inside somebody else's repository) or when git
    cannot be run."""
    # A hook (pre-commit) sets GIT_DIR and friends, which would point git at the wrong repository.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}

    def git(*arguments: str) -> str | None:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, env=environment, timeout=30
        )
        return done.stdout.strip() if done.returncode == 0 else None

    unknown: dict[str, str | bool | None] = {"commit": None, "dirty": None}
    try:
        if not git("ls-files", "--", "."):
            return unknown
        commit, changes = git("rev-parse", "HEAD"), git("status", "--porcelain")
    except (OSError, subprocess.TimeoutExpired):
        return unknown
    return unknown if commit is None else {"commit": commit, "dirty": bool(changes)}


@cache
def package_versions() -> dict[str, str]:
    """Version of Python, of Winnow and of each of `PACKAGES` that is installed."""
    versions = {"python": platform.python_version()}
    for name in ("winnow", *PACKAGES):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def hardware() -> dict[str, Any]:
    """`{"cpu": model, "cores": usable by this process, "memory_gib": float, "gpus": [name, ...], "system":
    str}`."""
    import torch

    cpu = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        models = re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(), re.MULTILINE)
        cpu = models.group(1).strip() if models else cpu
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "cpu": cpu,
        "cores": cores,
        "memory_gib": round(memory, 1),
        "gpus": gpus,
        "system": f"{platform.system()} {platform.release()}",
    }


def error_sentence(error: BaseException) -> str:
    """The sentence for the user: that of a UserError, otherwise the exception's type and message."""
    if isinstance(error, UserError):
        return str(error)
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


@dataclass
class StageRecord:
    """The record of one stage: wall-clock seconds, without waits for another run's work; `computed`, `reused`,
    `skipped`, `failed` or `interrupted`; the fingerprint of its artifact (16 hex digits, None without an artifact).
    reused, resumed: number of its artifacts that came from the store, and that continue an interrupted run; None where
    nothing is counted. Only if both are 0, the seconds measure the whole work. results: its headline numbers."""

    seconds: float = 0.0
    status: str = "computed"
    fingerprint: str | None = None
    reused: int | None = None
    resumed: int | None = None
    results: dict[str, Any] = field(default_factory=dict)


@dataclass
class RunCard:
    """Collects the provenance of one run; fill `data` and the stages' records as the run goes. `argv` defaults to
    this process's.

    `hydra` is what `config.told` says. It belongs to the results; what Hydra writes itself may be of a later attempt
    that came to nothing.

    `status` is running, finished, failed or interrupted; `error` is None or the sentence that ended the run."""

    config: Any
    argv: Sequence[str] | None = None
    hydra: dict[str, Any] | None = None
    data: dict[str, Any] = field(default_factory=dict)
    status: str = "running"
    error: str | None = None

    def __post_init__(self) -> None:
        self.config = masked(self.config)
        self.command = command_line(self.argv or STARTED_BY or sys.argv)
        self.started = datetime.now().astimezone().isoformat(timespec="seconds")
        self.git = git_state(Path(__file__).resolve().parent)
        self.packages = package_versions()
        self.hardware = hardware()
        self.hydra = masked(self.hydra)
        self.stages: dict[str, StageRecord] = {}
        self._clock = time.perf_counter()
        self._folder: Path | None = None

    @property
    def results(self) -> dict[str, Any]:
        """The headline numbers of all stages, those of an earlier run of the folder among them."""
        return {key: value for record in self.stages.values() for key, value in record.results.items()}

    @contextmanager
    def stage(self, name: str) -> Iterator[StageRecord]:
        """Time one stage. The block sets `status` and `fingerprint` on the record it is given; an exception
        marks the stage failed and goes on. Inside `recording` the card on disk is rewritten when the block
        ends."""
        record = self.stages[name] = StageRecord()
        begin, waited = time.perf_counter(), sum(WAITED)
        try:
            yield record
        except BaseException as error:
            record.status = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
            raise
        finally:
            record.seconds = time.perf_counter() - begin - (sum(WAITED) - waited)
        if self._folder is not None:
            self.write(self._folder)

    def skip(self, name: str) -> None:
        """Record a stage that is not part of the run. What an earlier run of the folder made it with stays in the card,
        unless an earlier stage has run again and dropped its outputs."""
        if name not in self.stages or any(record.status != "skipped" for record in self.stages.values()):
            self.stages[name] = StageRecord(status="skipped")

    @contextmanager
    def recording(self, folder: str | Path) -> Iterator[RunCard]:
        """Keep the card in `folder` current: written at once, after each stage, and at the end also when the
        block raises (status failed, with the error's sentence; interrupted, with the stage, for KeyboardInterrupt); the
        exception goes on to the caller, and an interrupt with that sentence. Where the block raises and the folder's
        outputs are still those of a finished run, the card stays that of this run: a refused request has no results."""
        self._folder = Path(folder)
        earlier = {}
        if (self._folder / "run_card.json").is_file():
            earlier = read_json(self._folder / "run_card.json", "stages", cure="delete it")
            self.stages = {
                name: StageRecord(0.0, "skipped", one.get("fingerprint"), results=one.get("results", {}))
                for name, one in earlier["stages"].items()
            }
        before = outputs(self._folder)
        self.write(self._folder)
        try:
            yield self
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                self.status, self.error = "interrupted", self._interruption()
                error.args = (self.error,)
            else:
                self.status, self.error = "failed", error_sentence(error)
            try:
                if earlier.get("status") == "finished" and before and outputs(self._folder) == before:
                    _write(self._folder, earlier)
                else:
                    self.write(self._folder)
            except UserError as unwritten:
                # The first error is the important one; it may be the cause of this one.
                error.add_note(str(unwritten))
            raise
        self.status = "finished"
        self.write(self._folder)

    def _interruption(self) -> str:
        done = [name for name, record in self.stages.items() if record.status in ("computed", "reused")]
        at = [f" in the stage {name}" for name, record in self.stages.items() if record.status == "interrupted"]
        return f"Interrupted{''.join(at)}; finished: {', '.join(done) or 'no stage'}."

    def as_dict(self) -> dict[str, Any]:
        """The content of run_card.json; `docs/outputs.md` describes every key. Contains no secrets."""
        content = {
            "command": self.command,
            "started": self.started,
            "seconds": round(time.perf_counter() - self._clock, 3),
            "status": self.status,
            "error": self.error,
            "stages": {
                name: masked({**asdict(record), "seconds": round(record.seconds, 3)})
                for name, record in self.stages.items()
            },
            "data": masked(self.data),
            "results": masked(self.results),
            "git": self.git,
            "packages": self.packages,
            "hardware": self.hardware,
            "config": self.config,
            "hydra": self.hydra,
        }
        return content | {"price": price(content)}

    def write(self, folder: str | Path) -> None:
        """Write run_card.json and run_card.md into `folder`, each atomically. Raises UserError when it is not
        writable."""
        _write(Path(folder), self.as_dict())


def _write(folder: Path, content: dict[str, Any]) -> None:
    write_json(folder / "run_card.json", content, indent=2)
    write_atomically(folder / "run_card.md", card_markdown(content))
