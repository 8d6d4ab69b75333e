"""Reading the files of run folders, and filling the templates that become pages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jinja2

from winnow.pages.card import show_change, show_measure, show_number, show_seconds
from winnow.store import files
from winnow.store.run_folder import OUTPUTS, earlier_output

KEYS = {  # that each file has, whatever the settings
    "run_card.json": ("status", "stages", "config", "git"),
    "selection.json": ("decisions",),
    "tuning.json": ("steps", "train_loss"),
    "results.json": ("models",),
    "detection.json": ("overall",),
    "diversity.json": ("classes",),
}


def read_json(path: Path) -> Any:
    """The content of a file of a run folder, None where there is none. Raises UserError for anything but an object with
    the file's `KEYS`, and for a file with another checksum than the one beside it."""
    return files.read_json(sound(path), *KEYS.get(path.name, ())) if path.exists() else None


def sound(path: Path) -> Path:
    """The path of a file of a run folder. Raises UserError where the checksum beside it is another; a folder of an
    older version has none."""
    if path.with_name(path.name + files.SUM).exists():
        stage = next((stage for stage, own in OUTPUTS.items() if any(map(path.match, own))), "report")
        return earlier_output(path.parent, path.name, stage)
    return path


def run_cards(folder: Path) -> list[Path]:
    """The run cards below a folder, without the copies that W&B stores."""
    return sorted(path for path in folder.rglob("run_card.json") if not path.match("wandb/*run-*/files/*"))


def render(template: str, content: Mapping[str, Any], **filters: Callable) -> str:
    """The template, a path below the package such as `pages/report.html.j2`, filled with `content`.

    HTML escapes every text; Markdown escapes none. A name that `content` lacks is an error."""
    environment = _environment(template.endswith(".html.j2"), tuple(filters.items()))
    return environment.get_template(template).render(content)


@cache
def _environment(html: bool, filters: tuple[tuple[str, Callable], ...]) -> jinja2.Environment:
    """Kept, because it keeps the templates that it has compiled."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parents[1]),
        autoescape=html,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    formats = {"number": show_number, "measure": show_measure, "change": show_change, "seconds": show_seconds}
    environment.filters.update(formats, words=lambda name: str(name).replace("_", " "), **dict(filters))
    return environment
