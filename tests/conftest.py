"""Small real parts for tests: a tiny Llama with fixed weights, and a byte-level tokenizer built in place."""

from __future__ import annotations

from pathlib import Path

import pytest

from winnow.quiet import quiet

quiet()

from tiny import tiny_model, tiny_tokenizer  # noqa: E402  (after quiet)

from winnow.backbone.loading import Backbone  # noqa: E402


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
