"""Instructions for each data set, written for this project: detailed, concise, and opposite ones for the noise.

A detailed instruction explains task, types and answer; a concise one names the task. A data set has eight of each, of
unlike lengths, so that the distances by which its distortion is measured differ. An opposite instruction asks for
something else, or for the contrary, of the same text.
"""

from __future__ import annotations

import json
from pathlib import Path

STYLES = ("detailed", "concise")

_TEXTS = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))
# Tuples, because the evaluation hashes their repr.
INSTRUCTIONS: dict[str, dict[str, tuple[str, ...]]] = {
    name: {style: tuple(own[style]) for style in STYLES} for name, own in _TEXTS.items()
}
OPPOSITE: dict[str, tuple[str, ...]] = {name: tuple(own["opposite"]) for name, own in _TEXTS.items()}
