"""What the runner asks of a pass.

A pass is a small frozen description (what a fingerprint needs) that can encode records and build the
LightningModule whose `predict_step` does the work. Adding a pass means adding one such pair.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Protocol

import pyarrow as pa
import pytorch_lightning as pl

from winnow.backbone.loading import Backbone
from winnow.data.records import Record
from winnow.data.templates import Encoded, Template


class Pass(Protocol):
    """What the runner asks of a pass.

    schema: the columns, `id` first and `flag` among them. settings(): everything besides data, backbone and
    template that the columns depend on, with a `version` that is raised whenever the numbers would change.
    A pass with an `attack` is given records whose instruction the attack has rewritten.
    """

    schema: ClassVar[pa.Schema]

    def settings(self) -> dict: ...

    def encode(self, records: Sequence[Record], template: Template, tokenizer) -> list[Encoded]: ...

    def module(self, backbone: Backbone) -> pl.LightningModule: ...

    def collate(self, batch: Sequence[Encoded]) -> dict[str, Any]: ...

    def flagged(self, encoded: Encoded) -> dict[str, Any]: ...
