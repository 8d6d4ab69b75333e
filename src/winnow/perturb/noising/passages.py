"""Unrelated texts for in-context padding, by kind of task: they look like its texts and say nothing about it.
Written for this project; persons and places are invented."""

from __future__ import annotations

import json
from pathlib import Path

_TEXTS = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))
PASSAGES: dict[str, tuple[str, ...]] = {kind: tuple(texts) for kind, texts in _TEXTS.items()}
