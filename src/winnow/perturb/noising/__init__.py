"""Noise on the words of an instruction: one file, one class and one YAML each."""

from __future__ import annotations

import pkgutil

from hydra.utils import get_class

from winnow.errors import UserError
from winnow.perturb.noising.base import Noising

__all__ = ["Noising", "noising_class", "noising_names"]

_NOT_NOISES = ("base", "words", "passages")


def noising_names() -> list[str]:
    """Every noise there is a file for, in alphabetical order."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name not in _NOT_NOISES)


def noising_class(name: str) -> type[Noising]:
    """The class of a noise: `replacement` is `winnow.perturb.noising.replacement.Replacement`; a name with a dot is the
    path of a class, `ideas.typos.Typos`. Raises UserError where there is none."""
    if "." not in name and name not in noising_names():
        raise UserError(
            f"Noise {name!r} is unknown: choose from {', '.join(noising_names())}, or give the path of a class."
        )
    try:
        found = get_class(name if "." in name else f"{__name__}.{name}.{name.capitalize()}")
    except (ImportError, ValueError) as error:
        raise UserError(f"Noise {name!r} cannot be imported: {' '.join(str(error).split())}") from None
    if not issubclass(found, Noising):
        raise UserError(f"Noise {name!r} is no Noising; derive it from winnow.perturb.noising.Noising.")
    return found
