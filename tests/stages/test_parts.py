"""What is checked of a configuration before anything long begins."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from composed import config

from winnow.backbone import memory
from winnow.errors import UserError
from winnow.stages.parts import build_parts


def test_memory_is_asked_for_the_passes_of_the_stages_alone(tiny_folder, tmp_path, monkeypatch):
    """A selection without passes needs none, where the scores do not fit."""
    words = [f"backbone.name={tiny_folder}", "backbone.dtype=fp32", f"paths.store={tmp_path}", f"paths.run={tmp_path}"]
    words += ["method=ifd", "template.max_length=64"]
    monkeypatch.setattr(memory.psutil, "virtual_memory", lambda: SimpleNamespace(total=1000, available=1))
    build_parts(config(*words, "stages=[select]"))
    with pytest.raises(UserError, match="needs at least"):
        build_parts(config(*words, "stages=[score]"))
