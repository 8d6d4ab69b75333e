"""Small real parts for tests: a tiny Llama with fixed weights, and a byte-level tokenizer built in place. What loads
torch is imported where it is used: of pytest-xdist's three processes one only hands out the tests."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from winnow.quiet import quiet

quiet()

from composed import config  # noqa: E402  (after quiet)

import winnow.config  # noqa: E402

if TYPE_CHECKING:
    from winnow.backbone.loading import Backbone

winnow.config.compose = config  # what `build` takes its options from


def pytest_collection_finish():
    """From here on the garbage collector passes over the million objects of the imported libraries."""
    gc.freeze()


@pytest.fixture(scope="session")
def tokenizer():
    """One token per byte, a chat template, BOS that is not added by itself."""
    from tiny import tiny_tokenizer

    return tiny_tokenizer()


@pytest.fixture
def backbone(tokenizer) -> Backbone:
    """A fresh tiny backbone."""
    from tiny import tiny_model

    from winnow.backbone.loading import Backbone

    return Backbone(tiny_model(), tokenizer, {"name": "tiny", "tokenizer": "bytes"}, "tiny")


@pytest.fixture(scope="session")
def tiny_folder(tokenizer, tmp_path_factory) -> Path:
    """The tiny backbone saved as a local model folder, for everything that loads one by name."""
    from tiny import tiny_model

    folder = tmp_path_factory.mktemp("backbone") / "tiny"
    tiny_model().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
