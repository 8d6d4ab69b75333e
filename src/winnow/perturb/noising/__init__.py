"""Noise on the words of an instruction: one file, one class and one YAML each."""

from __future__ import annotations

import pkgutil

from hydra.utils import get_class

from winnow.errors import UserError
from winnow.perturb.noising.base import Noising

__all__ = ["Noising", "noising_names", "noising_of"]

_NOT_NOISES = ("base", "words", "passages")


def noising_names() -> list[str]:
    """Every noise there is a file for, in alphabetical order."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name not in _NOT_NOISES)


def noising_of(name: str, **settings) -> Noising:
    """The noise `name` with the given omega, phi and seed, found by its file: `replacement` is
    `winnow.perturb.noising.replacement.Replacement`. Raises UserError for a name without a file."""
    if name not in noising_names():
        raise UserError(f"Noise {name!r} is unknown: choose from {', '.join(noising_names())}.")
    return get_class(f"{__name__}.{name}.{name.capitalize()}")(**settings)
