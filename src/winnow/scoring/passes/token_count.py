"""Tokens of prompt and answer: the pass that needs no backbone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa

from winnow.data.templates import Encoded
from winnow.scoring.protocols import Pass, columns_of


@dataclass(frozen=True)
class TokenCount(Pass):
    """Tokens of prompt and answer, from the tokenizer alone: the one pass that needs no backbone.

    Columns: `prompt_tokens`, `answer_tokens` (before any cut), `flag`.
    """

    version: ClassVar[int] = 1
    schema: ClassVar[pa.Schema] = columns_of(prompt_tokens=pa.int32(), answer_tokens=pa.int32())

    def columns(self, encoded: Sequence[Encoded]) -> dict[str, list]:
        """Columns of all records at once."""
        return {
            "id": [record.id for record in encoded],
            "prompt_tokens": [record.answer_start if record.flag is None else None for record in encoded],
            "answer_tokens": [record.answer_total for record in encoded],
            "flag": [record.flag for record in encoded],
        }
