"""The commands besides a run, `winnow table` and so on: each reads finished runs, and `store` the store."""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

from omegaconf import DictConfig, OmegaConf

from winnow.config import CONF, choices, instead
from winnow.errors import UserError
from winnow.reproduce.collect import jobs_below, scale_of
from winnow.sweeps.summary import table_name


def table(words: Sequence[str]) -> None:
    """`winnow table consistency/table1 [scale=paper] [runs=FOLDER] [to=FOLDER]`: write an experiment's table.

    runs: the sweep's folder, by default the experiment's own. scale: by default `paper`, or with runs=... the scale of
    the jobs below it. to: the folder of the table, by default experiments/<paper>/<table>.
    """
    parser = _parser(table)
    parser.add_argument("words", nargs="*", metavar="WORD")
    names, options = _options(parser.parse_args(words).words, "scale", "runs", "to")
    known = experiments()
    if len(names) != 1 or names[0] not in known:
        found = " ".join(names)
        raise UserError(f"winnow table wants one experiment, found {found or 'none'}{instead(found, known, '')}")
    from winnow.reproduce.publish import publish

    settings = table_settings(names[0])
    if options["to"] is not None:
        settings["folder"] = options["to"]
    scale = options["scale"] or (None if options["runs"] else "paper")
    runs = options["runs"] or f"outputs/experiments/{names[0]}/{scale}"
    if not Path(runs).is_dir():
        raise UserError(
            f"{runs}: there is no such folder; run `winnow experiment={names[0]} "
            f"scale={scale or 'paper'}` first, or name the folder of its sweep with runs=..."
        )
    publish(settings, Path(runs), _scale(names[0], Path(runs), scale))


def dashboard(words: Sequence[str]) -> None:
    """`winnow dashboard [FOLDER] [to=FILE]`: one page that compares all runs below a folder, by default outputs.

    `winnow dashboard --wandb ENTITY/PROJECT [group=GROUP]` builds a workspace and a report in W&B in its place.
    """
    parser = _parser(dashboard)
    parser.add_argument("words", nargs="*", metavar="WORD")
    parser.add_argument("--wandb", action="store_true", help="in W&B: give ENTITY/PROJECT, and perhaps group=")
    given = parser.parse_args(words)
    if given.wandb:
        from winnow.compare.workspace import build, report, workspace

        names, options = _options(given.words, "group")
        if len(names) != 1:
            raise UserError("winnow dashboard --wandb wants ENTITY/PROJECT, for instance my-team/winnow.")
        print(f"The workspace is at {build(workspace, names[0], options['group'])}")
        print(f"The report is at {build(report, names[0], options['group'])}")
        return
    names, options = _options(given.words, "to")
    if len(names) > 1:
        raise UserError(f"winnow dashboard wants one folder, found {' '.join(names)}.")
    from winnow.compare.dashboard import write_dashboard

    print(f"The dashboard is {write_dashboard(Path(names[0] if names else 'outputs'), options['to'])}")


def compare(words: Sequence[str]) -> None:
    """`winnow compare RUN RUN ... [--against random|best|base|METHOD] [--out FOLDER]`: paired tests of the methods that
    have runs below the folders."""
    parser = _parser(compare)
    parser.add_argument("runs", nargs="+", type=Path, help="run folders, or folders of sweeps")
    parser.add_argument("--against", help="random, best, base or a method; by default random, else best")
    parser.add_argument("--out", type=Path, help="folder of the page and its JSON; by default the first folder")
    options = parser.parse_args(words)
    from winnow.compare.verdicts import summary_lines, write_verdicts

    out = options.out or options.runs[0]
    print("\n".join(summary_lines(write_verdicts(options.runs, options.against, out))))
    print(f"The page is {out / 'verdicts.html'}")


def lds(words: Sequence[str]) -> None:
    """`winnow lds FOLDER ... [--out FOLDER]`: does a score predict what its records are worth? From the runs below the
    folders (`experiment=verdict/lds` makes them); the table and its JSON go to `--out`, by default the first folder."""
    parser = _parser(lds)
    parser.add_argument("runs", nargs="+", type=Path, help="run folders, or folders of sweeps")
    parser.add_argument("--out", type=Path, help="where the table and its JSON go; by default the first folder")
    given = parser.parse_args(words)
    from winnow.compare.lds import write_lds

    print(write_lds(given.runs, given.out or given.runs[0]))


def card(words: Sequence[str]) -> None:
    """`winnow card [METHOD ...] --runs FOLDER ... [--out FOLDER]`: what the score of each method is like, from the runs
    below the folders (`experiment=verdict/card` makes them); page and JSON go to `--out`, else the first folder."""
    parser = _parser(card)
    parser.add_argument("methods", nargs="*", help="methods; by default all that have runs")
    parser.add_argument("--runs", nargs="+", type=Path, required=True, help="run folders, or folders of sweeps")
    parser.add_argument("--out", type=Path, help="where the page and its JSON go; by default the first folder")
    given = parser.parse_args(words)
    from winnow.compare.scorecard import write_scorecards

    print(write_scorecards(given.runs, given.methods, given.out or given.runs[0]))


def audit(words: Sequence[str]) -> None:
    """`winnow audit RUN [--ratings FILE]`: what the attacks of a run did to its prompts, and a sheet that a person can
    rate (`experiment=aifd/audit` makes such a run); with the filled sheet, what its ratings say."""
    from winnow.compare.attack_audit import write_audit

    parser = _parser(audit)
    parser.add_argument("run", type=Path, help="the folder of a run of aifd or aioec")
    parser.add_argument("--ratings", type=Path, help="the sheet audit.csv with its column rating filled")
    given = parser.parse_args(words)
    print(write_audit(given.run, given.ratings))


def answer(words: Sequence[str]) -> None:
    """`winnow answer RUN QUESTIONS [--model tuned|base] [--max-tokens N] [--out FILE]`: a run's answers to the
    questions of a file, one JSON line each in Vicuna's form, for a judge; by default RUN/answers-MODEL.jsonl."""
    from winnow.evaluation.questions import answer_questions

    parser = _parser(answer)
    parser.add_argument("run", type=Path, help="folder of a finished run")
    parser.add_argument("questions", type=Path, help="JSON Lines with question_id and text")
    parser.add_argument("--model", choices=("tuned", "base"), default="tuned", help="of the run, or its backbone")
    parser.add_argument("--max-tokens", type=int, default=512, help="limit of an answer")
    parser.add_argument("--out", type=Path, help="file of the answers")
    given = parser.parse_args(words)
    out = given.out or given.run / f"answers-{given.model}.jsonl"
    print(f"The answers are {answer_questions(given.run, given.questions, given.model, out, given.max_tokens)}")


def store(words: Sequence[str]) -> None:
    """`winnow store [FOLDER] [--free WHAT ...] [--runs FOLDER]`: what a store holds, and its size on the disk.

    --free deletes: a kind (passes, prompts, models, evaluations), a fingerprint, or `unused`, all that no run below
    --runs was made with, but for attacked prompts; what a stage uses counts when the stage has ended. What another
    process is writing stays. A run computes again what it misses.
    """
    parser, home = _parser(store), Path("outputs")
    parser.add_argument("folder", nargs="?", type=Path, default=home / "store", help="by default outputs/store")
    parser.add_argument("--free", nargs="+", default=[], metavar="WHAT", help="kinds, fingerprints, or unused")
    parser.add_argument("--runs", type=Path, help="the runs that count; by default outputs")
    given = parser.parse_args(words)
    from winnow.store import contents

    if contents.UNUSED in given.free and given.runs is None and given.folder != home / "store":
        raise UserError(f"--free unused: give --runs FOLDER, below which all runs with the store {given.folder} lie.")
    place = given.folder, given.runs or home
    print("\n".join([*contents.free(given.folder, given.free, place[1]), *contents.summary_lines(*place)]))


def publish(words: Sequence[str]) -> None:
    """`winnow publish RUN [--push OWNER/NAME]`: the subset and the tuned model of a run as folders for the Hugging Face
    hub, in RUN/publish; nothing is sent without `--push`."""
    from winnow.hub import publish as publish_run

    parser = _parser(publish)
    parser.add_argument("run", type=Path, help="the folder of a run")
    parser.add_argument("--push", metavar="OWNER/NAME", help="send them to the hub, as a private data set and model")
    given = parser.parse_args(words)
    for folder in publish_run(given.run, given.push):
        print(f"{folder} is ready{'' if given.push is None else f' and was sent as {given.push}'}.")


def _parser(command: Callable) -> argparse.ArgumentParser:
    """A parser whose help is the docstring of the command."""
    return argparse.ArgumentParser(
        prog=f"winnow {command.__name__}",
        description=inspect.cleandoc(command.__doc__ or ""),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def _scale(name: str, runs: Path, scale: str | None) -> str:
    """The scale of an experiment's jobs below a folder, checked against `scale`. Raises UserError where no job has it,
    and where the jobs have several scales and `scale` is None."""
    scales = sorted({scale_of(config) for _, _, config in jobs_below(runs) if table_name(config.get("table")) == name})
    if not scales:
        raise UserError(f"{runs} holds no job of {name}; name the folder of its sweep with runs=...")
    if scale is not None and scale not in scales:
        raise UserError(f"{runs}: the jobs of {name} have scale={', '.join(scales)}, none has scale={scale}.")
    if scale is None and len(scales) > 1:
        raise UserError(f"{runs} holds jobs of several scales; choose one with scale=: {', '.join(scales)}.")
    return scale or scales[0]


def experiments() -> list[str]:
    """Names of all experiments that are tables or figures of a paper."""
    # Their text is enough: to parse all files takes half a second.
    files = {one: CONF / "experiment" / f"{one}.yaml" for one in choices("experiment")}
    return [one for one, file in files.items() if "\ntable:" in file.read_text(encoding="utf-8")]


def table_settings(name: str) -> dict:
    """The resolved `table` of an experiment."""
    whole = OmegaConf.create({"table": _with_bases(f"/experiment/{name}").table})
    return OmegaConf.to_container(whole, resolve=True)["table"]


def _with_bases(name: str) -> DictConfig:
    """An experiment's own keys on top of those of the experiments that its defaults name."""
    # Hydra's composition would read all groups: a third of a second for each.
    own = OmegaConf.load(CONF / f"{name[1:]}.yaml")
    bases = [one for one in own.get("defaults", []) if isinstance(one, str) and one.startswith("/experiment/")]
    return cast(DictConfig, OmegaConf.merge(*map(_with_bases, bases), own))


def _options(words: Sequence[str], *known: str) -> tuple[list[str], dict[str, str | None]]:
    """(names, options): `key=value` words are options, by default None; the others are names."""
    names: list[str] = []
    options: dict[str, str | None] = dict.fromkeys(known)
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or (key not in known and Path(word).exists()):
            names.append(word)
        elif key in known:
            options[key] = value
        else:
            raise UserError(f"{word}: unknown option; choose {', '.join(f'{key}=' for key in known)}.")
    return names, options
