"""GraNd: the norm of a record's gradient ("Deep Learning on a Data Diet", NeurIPS 2021, arXiv 2107.07075)."""

from __future__ import annotations

from collections.abc import Sequence

from winnow.data.records import Record
from winnow.scoring.passes.gradient import LoraGradient
from winnow.scoring.protocols import Method, Preparation
from winnow.scoring.runner import PassTable
from winnow.scoring.scores import Scores


class GradientNorm(Method):
    """|g|, g the gradient of the mean answer loss with respect to adapters. Large is good: the record teaches much.

    preparation: of the model that has the adapters.
    """

    def __init__(self, name: str, preparation: Preparation) -> None:
        self.name, self.preparation = name, preparation
        self.passes = {"gradient": LoraGradient()}

    def score(self, tables: dict[str, PassTable], records: Sequence[Record]) -> Scores:
        table = tables["gradient"]
        return Scores(
            score=table.numbers("norm"),
            flag=table.flags(),
            components={name: table.numbers(name) for name in ("answer_tokens", "prompt_tokens")},
            higher_is_better=True,
            descriptions={
                "score": "norm of the gradient of the mean answer loss, nats per token",
                "answer_tokens": "answer tokens before any cut",
            },
        )
