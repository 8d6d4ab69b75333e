"""Every experiment at one scale, one after the other, and a table of what ran. `make experiments` calls it.

    python experiments/run_all.py                                     # scale=smoke: no network, no data of yours
    python experiments/run_all.py --only consistency/table1 anit            # some experiments, or all of a paper
    python experiments/run_all.py --nlu FOLDER --pools alpaca=FILE lima=FILE --eval FOLDER
    python experiments/run_all.py --again -- seed=0,1 hydra/launcher=joblib hydra.launcher.n_jobs=2

Each experiment is one command, `winnow experiment=<paper>/<table>`, with one store for all of them. What is
not given is stood in for: pools by the embedded pool, suites by the embedded one, NLU data sets by the sentences under
experiments/samples, which say nothing about those data sets; the tables therefore go to <out>/tables and not beside
the papers' numbers, unless --tables=experiments says so. The same for WINNOW_NLU, WINNOW_POOLS, WINNOW_EVAL.

An experiment whose jobs all finished is passed over when the same command comes again at the same commit, without
changes that are not committed, and its run folders are still there (--again runs it); one that was interrupted goes on
from the store. The exit status is 1 if a job failed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

from omegaconf import OmegaConf

from winnow.commands import experiments
from winnow.data.nlu import DATASETS
from winnow.data.nlu.reading import nlu_file
from winnow.errors import UserError
from winnow.pages.files import read_json, run_cards
from winnow.store.files import write_atomically
from winnow.sweeps.summary import FAILURE, failure
from winnow.tracking.run_card import git_state

REPOSITORY = Path(__file__).resolve().parents[1]
SAMPLES = REPOSITORY / "experiments" / "samples" / "nlu"
CONF = REPOSITORY / "conf"
SEARCHES = sorted(f"search/{path.stem}" for path in (CONF / "experiment" / "search").glob("*.yaml"))
SCALES = sorted(path.stem for path in (CONF / "scale").glob("*.yaml"))
POOLS = [*OmegaConf.load(CONF / "paths" / "default.yaml").pools, "file"]  # file: adg/chinese's, a pool of the user's
NLU = [name for name in DATASETS if name != "webnlg"]  # the data sets of ANIT's tables
CHINESE = ("cmmlu", "ceval-exam")  # folders of adg/chinese's tasks in a mirror
STAGES = ("score", "tune", "evaluate")
UNKNOWN = "+"  # ends the commit of what ran from files that are not committed


def main() -> None:
    given = arguments()
    out = Path(given.out).resolve()
    nlu, stand_ins = nlu_folder(given.nlu, out / "nlu")
    commit = state()
    state_file = out / f"all-{given.scale}.json"
    done = read_json(state_file) or {}
    names = chosen(given.only)
    for place, name in enumerate(names, 1):
        command = ["experiment=" + name, *overrides(name, given, out, nlu, stand_ins)]
        before = done.get(name)
        same = before and (before["command"], before["commit"]) == (command, commit) and not commit.endswith(UNKNOWN)
        if same and finished(before, out / name / given.scale) and not given.again:
            print(f"[{place}/{len(names)}] {name}: finished before, {before['jobs']} jobs", flush=True)
            continue
        done[name] = one(name, command, out, given.scale) | {"command": command, "commit": commit}
        write_atomically(state_file, json.dumps(done, indent=1))
        print(f"[{place}/{len(names)}] {line(name, done[name])}", flush=True)
    ran = {name: done[name] for name in names}
    page = table(ran, given.scale, stand_ins)
    write_atomically(out / f"all-{given.scale}.md", page)
    print(f"\n{page}")
    bad = [name for name, about in ran.items() if about["failed"] or about["exit"]]
    if bad:
        sys.exit(f"error: {len(bad)} of {len(ran)} experiments are not finished: {', '.join(bad)}; the same command "
                 f"repeats only these.")  # fmt: skip


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", default="smoke", choices=SCALES, help="default: smoke")
    parser.add_argument(
        "--only", nargs="+", default=[], help="experiments (consistency/table1) or papers (consistency)"
    )
    parser.add_argument("--nlu", default=os.environ.get("WINNOW_NLU"), help="folder with NLU data sets")
    pools = os.environ.get("WINNOW_POOLS", "").split()
    parser.add_argument("--pools", nargs="+", default=pools, help="local pools by data=: alpaca=FILE file=FILE")
    parser.add_argument("--eval", default=os.environ.get("WINNOW_EVAL"), help="folder with lm-eval data")
    parser.add_argument("--out", default="outputs/experiments", help="runs, store, logs, tables (default: %(default)s)")
    parser.add_argument("--tables", default=None, help="where tables go (default: <out>/tables)")
    parser.add_argument("--trials", type=int, default=2, help="of each Optuna search (default: 2)")
    parser.add_argument("--again", action="store_true", help="also what is finished already")
    parser.add_argument("overrides", nargs="*", help="for every experiment, after --")
    given = parser.parse_args()
    for word in given.pools:
        if word.partition("=")[0] not in POOLS:
            sys.exit(f"error: --pools {word}: no experiment has a pool of this name; choose {', '.join(POOLS)}.")
        if not Path(word.partition("=")[2]).is_file():
            sys.exit(f"error: --pools {word}: NAME=FILE with a file that exists was expected, as alpaca=pool.json.")
    for key in ("nlu", "eval"):
        folder = getattr(given, key)
        if folder and not Path(folder).is_dir():
            sys.exit(f"error: --{key} {folder}: no such folder.")
    return given


def chosen(only: Sequence[str]) -> list[str]:
    """The experiments that are named, or all; a paper's name stands for all of its experiments."""
    known = [*experiments(), *SEARCHES]
    for word in only:
        if not any(word in (name, name.split("/")[0]) for name in known):
            sys.exit(f"error: --only {word}: no such experiment or paper; choose from {', '.join(known)}.")
    return [name for name in known if not only or name in only or name.split("/")[0] in only]


def nlu_folder(given: str | None, folder: Path) -> tuple[Path, list[str]]:
    """(a folder that has every NLU data set, those of them that are samples): links to the given one's and, for what
    it lacks, to the samples."""
    folder.mkdir(parents=True, exist_ok=True)
    stand_ins = []
    for name in NLU:
        found = _own_folder(name, given) if given else None
        if found is None:
            stand_ins.append(name)
        link = folder / DATASETS[name].folders[0]
        link.unlink(missing_ok=True)
        link.symlink_to((found or _own_folder(name, SAMPLES)).resolve(), target_is_directory=True)
    return folder, stand_ins


def _own_folder(name: str, top: str | Path) -> Path | None:
    """The folder with the data set's files for tuning and testing below `top`; None if there is none."""
    try:
        files = [nlu_file(name, top, split) for split in ("train", "test")]
    except UserError:
        return None
    own = files[0].parent
    return own if own != Path(top) and files[1].parent == own else None


def overrides(name: str, given: argparse.Namespace, out: Path, nlu: Path, stand_ins: Sequence[str]) -> list[str]:
    """What the experiment is told besides its name."""
    paper = name.split("/")[0]
    pools = dict(word.split("=", 1) for word in given.pools)
    words = [
        f"scale={given.scale}",
        f"paths.store={_quoted(out / 'store')}",
        f"hydra.sweep.dir={_quoted(out / name / given.scale)}",
        "tracking=none",
        "trainer.enable_progress_bar=false",
    ]
    if paper == "search":
        words.append(f"hydra.sweeper.n_trials={given.trials}")
    else:
        tables = Path(given.tables or out / "tables").resolve()
        words.append(f"table.folder={_quoted(tables / name)}")
    if asks_nlu(name):
        words.append(f"paths.nlu={_quoted(nlu)}")
        if stand_ins and paper != "search":
            told = f"sentences written for this project stand in for {' '.join(stand_ins)}"
            words.append(f"table.data={_quoted(told)}")
    elif name == "adg/chinese":
        words.append(f"data.path={_quoted(Path(pools['file']).resolve())}" if "file" in pools else "data=embedded")
    else:
        own = {key: Path(file).resolve() for key, file in pools.items() if key != "file"}
        words += [f"++paths.pools.{key}={_quoted(file)}" for key, file in own.items()]
    if given.eval and (name != "adg/chinese" or all((Path(given.eval) / one).is_dir() for one in CHINESE)):
        words.append(f"paths.eval={_quoted(Path(given.eval).resolve())}")
    return [*words, *given.overrides]


def asks_nlu(name: str) -> bool:
    return name.startswith("anit/") or name in ("search/anit", "verdict/noise", "verdict/robust")


def _quoted(value: Path | str) -> str:
    """As Hydra reads a text with blanks or commas in it."""
    return "'" + str(value).replace("\\", "\\\\").replace("'", "\\'") + "'"


def one(name: str, command: Sequence[str], out: Path, scale: str) -> dict:
    """Run an experiment as a process of its own; its output goes to <out>/logs."""
    log = out / "logs" / f"{name.replace('/', '-')}-{scale}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = os.environ | ({} if scale == "paper" else {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"})
    began = time.time()
    with log.open("w", encoding="utf-8") as stream:
        words = [sys.executable, "-m", "winnow", *command]
        ended = subprocess.run(words, stdout=stream, stderr=subprocess.STDOUT, env=environment, cwd=REPOSITORY)
    about = {"exit": ended.returncode, "seconds": round(time.time() - began, 1), "log": str(log)}
    return about | jobs_since(out / name / scale, began)


def jobs_since(folder: Path, began: float) -> dict:
    """What the jobs of a sweep's folder did that were started since: number, failures with their reasons, and how many
    of their stages were computed or came from the store."""
    failures, done, replaced = {}, [], set()
    stages = {stage: {"computed": 0, "reused": 0} for stage in STAGES}
    for file in folder.rglob(FAILURE) if folder.is_dir() else ():
        if file.stat().st_mtime >= began - 1:
            failures[file.parent.name] = failure(file)
    for file in run_cards(folder) if folder.is_dir() else ():
        card = read_json(file)
        if datetime.fromisoformat(card["started"]).timestamp() < began - 1 or file.parent.name in failures:
            continue
        if card["status"] != "finished":
            failures[file.parent.name] = card["error"] or card["status"]
            continue
        done.append(str(file.parent.relative_to(folder)))
        replaced |= stand_ins_of(card)
        for stage in STAGES:
            how = card["stages"].get(stage, {}).get("status")
            if how in stages[stage]:
                stages[stage][how] += 1
    about = {"jobs": len(done) + len(failures), "failed": len(failures), "failures": failures, "stages": stages}
    return about | {"finished": done, "stand_ins": sorted(replaced)}


def stand_ins_of(card: Mapping) -> set[str]:
    """The `data=` and `evaluation=` of a job's command in whose place it had the embedded pool or suite."""
    choices, config = card["hydra"]["choices"], card["config"]
    start = (config.get("start") or {}).get("pool") or {}
    found = set()
    for group, used in (
        ("data", config["data"].get("source")),
        ("data@start.pool", start.get("source")),
        ("data@target", (config.get("target") or {}).get("source")),
        ("evaluation", (config.get("evaluation") or {}).get("name")),
    ):
        own = choices.get(group)
        if used == "embedded" and own not in (None, "embedded"):
            found.add(f"{group.split('@')[0]}={own}")
    return found


def finished(about: Mapping, folder: Path) -> bool:
    """Whether all jobs of an experiment ended well and still have their run folders below `folder`."""
    cards = [folder / job / "run_card.json" for job in about.get("finished", ())]
    there = bool(cards) and all((read_json(card) or {}).get("status") == "finished" for card in cards)
    return there and about["failed"] == about["exit"] == 0


def line(name: str, about: Mapping) -> str:
    told = f"{name}: {about['jobs']} jobs, {about['failed']} failed, {about['seconds']:.0f} s"
    if about["exit"]:
        told += f", exit status {about['exit']}, see {about['log']}"
    return "\n    ".join([told, *(f"{job}: {why}" for job, why in about["failures"].items())])


def table(ran: Mapping[str, Mapping], scale: str, stand_ins: Sequence[str]) -> str:
    """The experiments as a Markdown table."""
    heads = ("experiment", "jobs", "failed", "seconds", *(f"{stage}: computed + reused" for stage in STAGES), "commit")
    rows = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    for name, about in ran.items():
        ways = [f"{about['stages'][stage]['computed']} + {about['stages'][stage]['reused']}" for stage in STAGES]
        cells = (name, about["jobs"], about["failed"], f"{about['seconds']:.0f}", *ways, about["commit"])
        rows.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    jobs, failed, seconds = (sum(about[key] for about in ran.values()) for key in ("jobs", "failed", "seconds"))
    rows.append(f"| all | {jobs} | {failed} | {seconds:.0f} | | | | |")
    notes = [f"Scale {scale}: the numbers of these runs say nothing about a paper."] if scale != "paper" else []
    if stand_ins and any(asks_nlu(name) for name in ran):
        notes.append(f"Sentences written for this project stood in for {', '.join(stand_ins)}.")
    replaced = {word for about in ran.values() for word in about.get("stand_ins", ())}
    if "data=embedded" in ran.get("adg/chinese", {"command": ()})["command"]:
        replaced.add("the pool of adg/chinese")
    if replaced:
        notes.append(f"The embedded pool and suite stood in for {', '.join(sorted(replaced))}.")
    return "\n".join([f"# All experiments at scale={scale}", "", *rows, "", *notes]) + "\n"


def state() -> str:
    """The commit, with a + where files differ from it: nobody can say what has been run then."""
    git = git_state(REPOSITORY)
    return f"{str(git['commit'] or 'none')[:7]}{'' if git['dirty'] is False else UNKNOWN}"


if __name__ == "__main__":
    main()
