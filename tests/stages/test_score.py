"""What a run says on the screen, and what its device holds."""

from __future__ import annotations

import weakref
from types import SimpleNamespace

import pytest
from composed import template
from tiny import tiny_model
from tiny_passes import TRAINER, Loaded, record

from winnow.backbone.loading import Backbone
from winnow.errors import UserError
from winnow.scoring.passes.likelihood import Likelihood
from winnow.scoring.protocols import Method
from winnow.scoring.runner import PassRunner
from winnow.stages.score import score, unscored
from winnow.store.artifacts import Store
from winnow.store.describe import Identified
from winnow.tracking.run_card import StageRecord


class Epoch(Identified):
    """A source that makes a model at each loading, when no earlier one may be left. made: of all epochs."""

    def __init__(self, number: int, tokenizer, made: list[weakref.ref]) -> None:
        self.identity, self.tokenizer, self.made = {"epoch": number}, tokenizer, made

    def load(self) -> Backbone:
        assert all(model() is None for model in self.made)
        model = tiny_model()
        self.made.append(weakref.ref(model))
        return Backbone(model, self.tokenizer, self.identity, "tiny")


class OfEpochOne(Likelihood):
    checkpoint = 1


class Epochs(Method):
    name = "epochs"

    def __init__(self, sources: list[Epoch]) -> None:
        self.passes = self.target_passes = {"zero": Likelihood("clean"), "one": OfEpochOne("clean")}
        self.preparation = SimpleNamespace(prepare=lambda *_: sources)

    def score(self, tables, records):
        raise UserError("all passes are done")


def test_one_epoch_of_a_warm_up_is_held_at_a_time(backbone, tmp_path):
    """Two epochs over the target, and then over the pool: 4 loadings, and the backbone below is asked for by none."""
    made: list[weakref.ref] = []
    sources, base = [Epoch(number, backbone.tokenizer, made) for number in (0, 1)], Loaded(backbone)
    pool, target = (SimpleNamespace(records=[record("Say it.", "", text)], source="test") for text in ("a", "b"))
    runner = PassRunner(base, Store(tmp_path), TRAINER)
    with pytest.raises(UserError, match="all passes are done"):
        score(StageRecord(), tmp_path, pool, Epochs(sources), runner, template("alpaca"), None, target, {})
    assert len(made) == 4 and base.loads == 0


def test_records_without_a_score_are_counted_with_their_reasons():
    """Six reasons, one of them of two records, and one record with a score: five reasons are shown."""
    flags = ["empty_answer", "a", "b", "c", None, "empty_answer", "d", "e"]
    expected = "7 of 8 records have no score: empty_answer (2); a (1); b (1); c (1); d (1); and 1 more."
    assert unscored(flags) == expected
    assert unscored([None, "a"]) == "1 of 2 records have no score: a (1)."
    assert unscored([None, None]) is None
