"""`winnow table`, `dashboard` and `compare`: the commands that look at what is already there."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from winnow.config import CONF, choices
from winnow.errors import UserError
from winnow.reproduce.collect import AGAIN, run_cards
from winnow.store.files import read_json
from winnow.sweeps.summary import FAILURE


def table(words: Sequence[str]) -> None:
    """`winnow table consistency/table1 [scale=paper] [runs=FOLDER] [to=FOLDER]`: write an experiment's table.

    runs: the sweep's folder, by default where the experiment puts it. scale: with runs=... by default that of the jobs
    there, paper without. to: where the table goes, by default experiments/<paper>/<table>.
    """
    names, options = _options(words, {"scale": None, "runs": None, "to": None})
    known = experiments()
    if len(names) != 1 or names[0] not in known:
        raise UserError(
            f"winnow table wants one experiment, found {' '.join(names) or 'none'}: choose {', '.join(known)}."
        )
    from winnow.reproduce.publish import publish

    settings = table_settings(names[0])
    if options["to"] is not None:
        settings["folder"] = options["to"]
    wanted = options["scale"] or (None if options["runs"] else "paper")
    runs = options["runs"] or f"outputs/experiments/{names[0]}/{wanted}"
    if not Path(runs).is_dir():
        raise UserError(
            f"{runs}: no such folder; run `python -m winnow experiment={names[0]} scale={wanted or 'paper'}` first, "
            f"or name the folder of its sweep with runs=..."
        )
    publish(settings, Path(runs), _scale(names[0], Path(runs), wanted))


def dashboard(words: Sequence[str]) -> None:
    """`winnow dashboard [FOLDER] [to=FILE]`: one page that compares all runs below a folder.

    `winnow dashboard --wandb ENTITY/PROJECT [group=GROUP]` builds a W&B workspace in its place.
    """
    if "--wandb" in words:
        from winnow.compare.workspace import build_workspace

        names, options = _options([word for word in words if word != "--wandb"], {"group": None})
        if len(names) != 1:
            raise UserError("winnow dashboard --wandb wants ENTITY/PROJECT, for instance my-team/winnow.")
        print(f"The workspace is at {build_workspace(names[0], options['group'])}")
        return
    from winnow.compare.dashboard import write_dashboard

    names, options = _options(words, {"to": None})
    if len(names) > 1:
        raise UserError(f"winnow dashboard wants one folder, found {' '.join(names)}.")
    print(f"The dashboard is {write_dashboard(Path(names[0] if names else 'outputs'), options['to'])}")


def compare(words: Sequence[str]) -> None:
    """`winnow compare RUN RUN ... [--against random|best|base|METHOD] [--out FOLDER]`: which method beats which, by
    paired tests over the runs below the folders; the page and its JSON go to `--out`, by default the first folder."""
    from winnow.compare.verdicts import told_lines, write_verdicts

    parser = argparse.ArgumentParser(prog="winnow compare")
    parser.add_argument("runs", nargs="+", type=Path, help="run folders, or folders of sweeps")
    parser.add_argument("--against", help="random, best, base or a method; by default random where there is one")
    parser.add_argument("--out", type=Path, help="where the page and its JSON go; by default the first folder")
    given = parser.parse_args(words)
    out = given.out or given.runs[0]
    print("\n".join(told_lines(write_verdicts(given.runs, given.against, out))))
    print(f"The page is {out / 'verdicts.html'}")


def _scale(name: str, runs: Path, wanted: str | None) -> str:
    """The scale of an experiment's jobs below a folder: the wanted one, or the only one. Raises UserError where none
    has it, or where there are several to choose from."""
    found = set()
    for path in run_cards(runs):
        found.add(_scale_of(read_json(path, "config", cure=AGAIN)["config"], name))
    for path in runs.rglob(FAILURE):  # a job that failed early has no run card
        config = path.parent / ".hydra" / "config.yaml"
        if not (path.parent / "run_card.json").is_file() and config.is_file():
            found.add(_scale_of(OmegaConf.load(config), name))
    there = sorted(found - {None})
    if not there:
        raise UserError(f"{runs}: no job of {name} lies there; name the folder of its sweep with runs=...")
    if wanted is not None and wanted not in there:
        raise UserError(f"{runs}: the jobs of {name} there have scale={', '.join(there)}, none has scale={wanted}.")
    if wanted is None and len(there) > 1:
        raise UserError(f"{runs}: jobs of several scales lie there; say which with scale=, one of {', '.join(there)}.")
    return wanted or there[0]


def _scale_of(config: Mapping[str, Any], name: str) -> str | None:
    """The scale of a job's configuration, None if it is not of the experiment."""
    own = config.get("table") or {}
    return config["scale"]["name"] if f"{own.get('paper')}/{own.get('name')}" == name else None


def experiments() -> list[str]:
    """Names of all experiments that are tables or figures of a paper."""
    return [one for one in choices("experiment") if "table" in OmegaConf.load(CONF / "experiment" / f"{one}.yaml")]


def table_settings(name: str) -> dict:
    """The resolved `table` of an experiment: _common.yaml's with the experiment's own on top."""
    folder = CONF / "experiment"
    merged = OmegaConf.merge(OmegaConf.load(folder / "_common.yaml"), OmegaConf.load(folder / f"{name}.yaml"))
    whole = OmegaConf.create({"table": merged.table})
    return OmegaConf.to_container(whole, resolve=True)["table"]


def _options(words: Sequence[str], known: dict[str, str | None]) -> tuple[list[str], dict[str, str | None]]:
    """(names, options): `key=value` words are options, the others names."""
    names, options = [], dict(known)
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            names.append(word)
        elif key in known:
            options[key] = value
        else:
            raise UserError(f"{word}: unknown option; choose {', '.join(f'{key}=' for key in known)}.")
    return names, options
