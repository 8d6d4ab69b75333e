"""`winnow table` and `winnow dashboard`: the commands that look at what is already there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from omegaconf import OmegaConf

from winnow.errors import UserError

CONF = Path(__file__).resolve().parents[3] / "conf"


def table(words: Sequence[str]) -> None:
    """`winnow table noise/table1 [scale=paper] [runs=FOLDER] [to=FOLDER]`: write an experiment's table from its run
    folders.

    runs: the sweep's folder, by default where the experiment puts it. to: where the table goes, by default
    experiments/<paper>/<table>.
    """
    names, options = _options(words, {"scale": "paper", "runs": None, "to": None})
    known = experiments()
    if len(names) != 1 or names[0] not in known:
        raise UserError(
            f"winnow table wants one experiment, found {' '.join(names) or 'none'}: choose {', '.join(known)}."
        )
    from winnow.experiments.publish import publish

    settings = table_settings(names[0])
    if options["to"] is not None:
        settings["folder"] = options["to"]
    runs = options["runs"] or f"outputs/experiments/{names[0]}/{options['scale']}"
    if not Path(runs).is_dir():
        raise UserError(
            f"{runs}: no such folder; run `python -m winnow +experiment={names[0]} scale={options['scale']}` first, or "
            f"name the folder of its sweep with runs=..."
        )
    publish(settings, Path(runs), options["scale"])


def dashboard(words: Sequence[str]) -> None:
    """`winnow dashboard [FOLDER] [to=FILE]`: one page that compares all runs below a folder.

    `winnow dashboard --wandb ENTITY/PROJECT [group=GROUP]` builds a W&B workspace in its place.
    """
    if "--wandb" in words:
        from winnow.experiments.workspace import build_workspace

        names, options = _options([word for word in words if word != "--wandb"], {"group": None})
        if len(names) != 1:
            raise UserError("winnow dashboard --wandb wants ENTITY/PROJECT, for instance my-team/winnow.")
        print(f"The workspace is at {build_workspace(names[0], options['group'])}")
        return
    from winnow.experiments.dashboard import write_dashboard

    names, options = _options(words, {"to": None})
    if len(names) > 1:
        raise UserError(f"winnow dashboard wants one folder, found {' '.join(names)}.")
    print(f"The dashboard is {write_dashboard(Path(names[0] if names else 'outputs'), options['to'])}")


def experiments() -> list[str]:
    """Names of all experiments that are tables or figures of a paper."""
    found = sorted((CONF / "experiment").glob("*/*.yaml"))
    return [f"{path.parent.name}/{path.stem}" for path in found if "table" in OmegaConf.load(path)]


def table_settings(name: str) -> dict:
    """The resolved `table` of an experiment: common.yaml's with the experiment's own on top."""
    folder = CONF / "experiment"
    merged = OmegaConf.merge(OmegaConf.load(folder / "common.yaml"), OmegaConf.load(folder / f"{name}.yaml"))
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
