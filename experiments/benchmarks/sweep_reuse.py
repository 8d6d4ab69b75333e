"""What one store saves a sweep: 12 jobs together, the same 12 with an empty store each, and the sweep once more.

    python experiments/benchmarks/sweep_reuse.py [POOL] [--limit 60] [--steps 3] [--items 16] [--folder FOLDER]

The sweep is `winnow -m method=ifd,perplexity,consistency selection.ratio=0.1,0.2 seed=0,1` with all five
stages, on the packaged backbone. The methods share passes in part: `ifd` reads the answers with and without their
prompts, `perplexity` needs the first of these two passes alone, and `consistency` has one of its own, drawn anew for
each seed. What no two jobs have in common is the tuning and the evaluation of the tuned model. Both sides are one
process each, so that the time to start Python counts once on both; cold, each job has its own store below
`paths.store`.

All counts are from the run cards and the store: a pass or an evaluation that a card names is `computed` by the first
job that names it in its store, `reused` by the others, and a forward is one record read by one pass, whatever the pass
does with it. `again` is the same command with the same store and new run folders.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import save

SWEEP = ["method=ifd,perplexity,consistency", "selection.ratio=0.1,0.2", "seed=0,1"]
JOBS = 12
STAGES = ("score", "select", "tune", "evaluate", "report")


def main() -> None:
    given = arguments()
    folder = Path(given.folder or tempfile.mkdtemp(prefix="sweep_reuse-"))
    settings = [
        *(["data=file", f"data.path={Path(given.pool).resolve()}"] if given.pool else []),
        f"data.limit={given.limit}",
        f"tuning.max_steps={given.steps}",
        f"evaluation.limit={given.items}",
        *given.set,
        "trainer=cpu",
        "trainer.enable_progress_bar=false",
        "tracking=none",
    ]
    warm = ["stages=[score]", "data.limit=4", *given.set, *settings[-3:], f"paths.run={folder / 'warm'}"]
    warm.append(f"paths.store={folder / 'warm' / 'store'}")
    # Unpacks the backbone, which neither side should pay.
    subprocess.run([sys.executable, "-m", "winnow", *warm], check=True, stdout=subprocess.DEVNULL)
    shared = folder / "shared"
    found = {
        "cold": sweep(settings, folder / "cold", str(folder / "stores") + "/${hydra:job.num}"),
        "shared": sweep(settings, folder / "first", str(shared)),
        "again": sweep(settings, folder / "second", str(shared)),
    }
    kept = [word if not word.startswith("data.path=") else f"data.path={Path(given.pool).name}" for word in settings]
    numbers = {"jobs": JOBS, "sweep": SWEEP, "settings": kept, "threads": os.environ.get("OMP_NUM_THREADS")} | found
    for side in ("shared", "again"):
        seconds = found["cold"]["seconds"] / found[side]["seconds"]
        numbers[f"cold_over_{side}"] = {"seconds": round(seconds, 2)}
        if side == "shared":
            numbers["cold_over_shared"] |= {
                key: round(found["cold"][key]["computed"] / found[side][key]["computed"], 2)
                for key in ("passes", "forwards", "tunings", "evaluations")
            }
    if given.dry:
        print(json.dumps(numbers, indent=1))
    else:
        save("sweep_reuse", numbers)
    if not given.folder:
        shutil.rmtree(folder)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pool", nargs="?", help="a file that data=file reads (default: the embedded pool)")
    parser.add_argument("--limit", type=int, default=60, help="records (default: 60)")
    parser.add_argument("--steps", type=int, default=3, help="optimizer steps of a tuning (default: 3)")
    parser.add_argument("--items", type=int, default=16, help="items of each evaluation task (default: 16)")
    parser.add_argument("--folder", help="for runs and stores, kept (default: a temporary one)")
    parser.add_argument("--set", nargs="+", default=[], help="further overrides for all jobs, such as another backbone")
    parser.add_argument("--dry", action="store_true", help="print the numbers and keep no results file")
    return parser.parse_args()


def sweep(settings: list[str], runs: Path, store: str) -> dict:
    """Run the 12 jobs through the command line and count what they did."""
    words = [sys.executable, "-m", "winnow", "-m", *SWEEP, *settings, f"paths.store={store}", f"hydra.sweep.dir={runs}"]
    print(" ".join(words[1:]), file=sys.stderr, flush=True)
    began = time.perf_counter()
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - began
    cards = [json.loads((runs / str(number) / "run_card.json").read_text(encoding="utf-8")) for number in range(JOBS)]
    return {"seconds": round(seconds, 1)} | counted(cards)


# What was there before a sweep began, so that its first job can reuse it too.
_SEEN: set[tuple[str, str, str]] = set()


def counted(cards: list[dict]) -> dict:
    """Passes, forwards, tunings and evaluations, computed and from the store, and seconds of each stage."""
    kinds = ("passes", "forwards", "tunings", "evaluations")
    counts = {kind: {"computed": 0, "reused": 0} for kind in kinds}

    def count(kind: str, card: dict, fingerprint: str, size: int | None = None) -> bool:
        key = (card["config"]["paths"]["store"], kind, fingerprint)
        how = "reused" if key in _SEEN else "computed"
        _SEEN.add(key)
        counts[kind][how] += 1
        if size is not None:
            counts["forwards"][how] += size
        return how == "computed"

    for card in cards:
        for stage, kind in (("score", "passes"), ("tune", "tunings"), ("evaluate", "evaluations")):
            new = False
            for fingerprint in (card["stages"][stage]["fingerprint"] or "").split():
                size = card["data"]["n_records"] - card["data"]["duplicates"] if kind == "passes" else None
                new = count(kind, card, fingerprint, size) or new
            status = card["stages"][stage]["status"]
            assert status == ("computed" if new else "reused"), (card["config"]["method"], stage, status)
    seconds = {stage: round(sum(card["stages"][stage]["seconds"] for card in cards), 1) for stage in STAGES}
    return counts | {"seconds_of_stages": seconds}


if __name__ == "__main__":
    main()
