"""Parts built from the shipped configuration files, so that tests see what users see."""

from __future__ import annotations

from pathlib import Path

from winnow.config import build
from winnow.config import compose as config

CONF = Path(__file__).resolve().parents[1] / "conf"

__all__ = ["CONF", "build", "config", "template"]


def template(name: str, **changes):
    """A template as `template=name` gives it, with some keys replaced."""
    return build(f"template/{name}", **changes)
