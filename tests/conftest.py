"""Small real parts for tests: a tiny Llama with fixed weights, and a byte-level tokenizer built in place."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest

from winnow.quiet import quiet

quiet()

from composed import config  # noqa: E402  (after quiet)
from tiny import tiny_model, tiny_tokenizer  # noqa: E402  (after quiet)

import winnow.config  # noqa: E402
from winnow.backbone.loading import Backbone  # noqa: E402

winnow.config.compose = config  # what `build` takes its options from


def pytest_collection_finish():
    """The garbage collector passes over a million objects of the imported libraries no more."""
    gc.freeze()


@pytest.fixture(scope="session")
def tokenizer():
    """One token per byte, a chat template, BOS that is not added by itself."""
    return tiny_tokenizer()


@pytest.fixture
def backbone(tokenizer) -> Backbone:
    """A fresh tiny backbone."""
    return Backbone(tiny_model(), tokenizer, {"name": "tiny", "tokenizer": "bytes"}, "tiny")


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory) -> Path:
    """The tiny backbone saved as a local model folder, for everything that loads one by name."""
    folder = tmp_path_factory.mktemp("backbone") / "tiny"
    tiny_model().save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder
