"""What a store holds, how large it is, and room given back: `winnow store`."""

from __future__ import annotations

import shutil
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock, Timeout

from winnow.errors import UserError
from winnow.store.artifacts import KINDS
from winnow.store.files import read_json

UNUSED = "unused"
COUNTED = ("passes", "models", "evaluations")  # run cards name those that a run used; attacked prompts are small


def summary_lines(root: Path, runs: Path) -> list[str]:
    """A line for each kind of artifact: how many there are, their bytes on the disk, how many no run below `runs` was
    made with, and the days since the last one was written."""
    used = _used(runs)
    lines = [f"{root}", f"  {'kind':<12} {'number':>6} {'size':>10} {'unused':>6}  last written"]
    total = 0
    for kind in KINDS:
        found = _folders(root, kind)
        size = sum(map(_size, found))
        total += size
        unused = str(sum(folder.name not in used for folder in found)) if kind in COUNTED else ""
        changed = (place.stat().st_mtime for folder in found for place in (folder, folder / "parts") if place.is_dir())
        last = max(changed, default=None)
        when = "" if last is None else f"{(time.time() - last) / 86400:.1f} days ago"
        lines.append(f"  {kind:<12} {len(found):>6} {show_size(size):>10} {unused:>6}  {when}".rstrip())
    return [*lines, f"  {'together':<12} {'':>6} {show_size(total):>10}"]


def free(root: Path, wanted: Sequence[str], runs: Path) -> list[str]:
    """Delete what `wanted` names: kinds, fingerprints, or `unused`; returns a line for each kind of which something was
    deleted, and one for each folder that another process has. Raises UserError for a name that is none of these."""
    if not root.is_dir():
        raise UserError(f"{root} is no store: give the folder that paths.store names.")
    folders = {folder: kind for kind in KINDS for folder in _folders(root, kind)}
    names = {folder.name for folder in folders}
    for word in wanted:
        if word not in (*KINDS, UNUSED) and word not in names:
            raise UserError(
                f"--free {word}: no such artifact in {root}; give {', '.join(KINDS)}, {UNUSED} or one's name."
            )
    if UNUSED in wanted and not runs.is_dir():
        raise UserError(f"--free {UNUSED}: --runs {runs} is no folder, so that everything would count as unused.")
    spared = (
        names if UNUSED not in wanted else _used(runs) | {one.name for one in folders if folders[one] not in COUNTED}
    )
    lines, freed = [], dict.fromkeys(KINDS, (0, 0))
    for folder, kind in folders.items():
        if not {kind, folder.name} & set(wanted) and folder.name in spared:
            continue
        try:
            with FileLock(folder / "lock", timeout=0):
                # A newcomer makes a folder of its own. What a kill leaves of this one is freed as any other.
                aside = folder.rename(folder.with_name(f"{folder.name}.freed-{uuid.uuid4().hex[:8]}"))
                size = _size(aside)
                shutil.rmtree(aside)
        except Timeout:
            lines.append(f"Left: {folder}, which another process is writing.")
            continue
        freed[kind] = (freed[kind][0] + 1, freed[kind][1] + size)
    return lines + [f"Freed {show_size(size)}: {n} of {kind}." for kind, (n, size) in freed.items() if n]


def show_size(size: float) -> str:
    """Bytes in the largest unit of 1,024 that leaves at least one: `3.1 MiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def _folders(root: Path, kind: str) -> list[Path]:
    return sorted(path for path in root.glob(f"{kind}/*") if path.is_dir())


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def _used(runs: Path) -> set[str]:
    """The fingerprints in the run cards below a folder, and the models that its run folders link to."""
    used: set[str] = set()
    for path in runs.rglob("run_card.json"):
        for stage in read_json(path, "stages")["stages"].values():
            used |= set((stage.get("fingerprint") or "").split())
        used |= {(path.parent / name).resolve().parent.name for name in ("model", "start")}
    return used
