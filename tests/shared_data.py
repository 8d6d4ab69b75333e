"""Where tests find the development data, which is no part of the repository."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def shared(path: str) -> Path:
    """A file or folder of the development data; skips the test where it is absent.

    The data is looked for in the folder that WINNOW_SHARED names, else in `../shared` beside the repository.
    """
    beside = Path(__file__).resolve().parents[2] / "shared"
    found = Path(os.environ.get("WINNOW_SHARED", beside)) / path
    if not found.exists():
        pytest.skip(f"development data {found} is absent (set WINNOW_SHARED to the folder that holds it)")
    return found
