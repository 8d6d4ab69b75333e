"""The base classes: what they bring, and what is told in one sentence before a model is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pytest
import pytorch_lightning as pl
from composed import config, template
from tiny_passes import TRAINER, Loaded, make_records

from winnow import pipeline
from winnow.errors import UserError
from winnow.scoring.passes.likelihood import Likelihood
from winnow.scoring.passes.token_count import TokenCount
from winnow.scoring.protocols import Method, Pass, check_method, check_pass, padded
from winnow.scoring.runner import PassRunner
from winnow.scoring.scores import Scores
from winnow.store.artifacts import Store

SCHEMA = pa.schema([("id", pa.string()), ("x", pa.float32()), ("flag", pa.string())])


@dataclass(frozen=True)
class Fixed(Pass):
    """`x` is the number that it is given."""

    x: float = 1.0
    schema: ClassVar[pa.Schema] = SCHEMA

    def columns(self, encoded):
        rows = len(encoded)
        return {"id": [one.id for one in encoded], "x": [self.x] * rows, "flag": [None] * rows}


def elsewhere() -> type[Pass]:
    """Another pass of the same name."""

    @dataclass(frozen=True)
    class Fixed(Pass):
        x: float = 1.0
        schema: ClassVar[pa.Schema] = SCHEMA

        def columns(self, encoded):
            rows = len(encoded)
            return {"id": [one.id for one in encoded], "x": [-self.x] * rows, "flag": [None] * rows}

    return Fixed


def test_two_passes_of_one_name_share_no_columns(backbone, tmp_path):
    """The one writes 1, the other -1; with one key the second would get the first one's."""
    runner = PassRunner(Loaded(backbone), Store(tmp_path), TRAINER)
    found = [runner.compute(kind(), make_records(4), template("alpaca")) for kind in (Fixed, elsewhere())]
    assert [table.numbers("x").tolist() for table in found] == [[1.0] * 4, [-1.0] * 4]


def test_defaults(backbone):
    """Three tokens of prompt and answer: columns of a batch; a flagged record has nulls; its cost is its own tokens."""
    encoded = template("alpaca").encode(make_records(2), backbone.tokenizer)
    batch = padded(encoded)
    assert batch["input_ids"].shape == (2, max(len(one.ids) for one in encoded))
    assert [one["tokens"] for one in batch["columns"]] == [len(one.ids) for one in encoded]
    assert Fixed().flagged(encoded[0]) == {"x": None} and Fixed().cost(encoded[0], 3) == len(encoded[0].ids) - 3
    assert Fixed().label == "fixed" and Likelihood("direct").label == "likelihood direct"
    assert Likelihood().runs_model and not TokenCount().runs_model


def test_floats_stay_floats():
    """By the array's type, not by the column's name: 1.5 tokens a word is a number like any other; counts are whole;
    NaN and None are null."""
    records = make_records(2)
    components = {"mean_tokens": np.array([1.5, np.nan]), "words": np.array([3, 4]), "own": [1.5, None]}
    table = Scores(np.array([0.5, 1.0]), [None, None], components, True).table(records, {})
    assert table["mean_tokens"].to_pylist() == [1.5, None] and table["words"].to_pylist() == [3, 4]
    assert table.schema.field("words").type == pa.int64() and table["own"].to_pylist() == [1.5, None]


def test_a_score_that_is_no_number_has_a_reason():
    """NaN without a reason is flagged, as an infinite one is; a score beside a reason is a fault of the method."""
    scores = Scores(np.array([np.nan, 1.0, np.nan]), [None, None, "empty_answer"], {}, True)
    assert scores.flag == ["non_finite_score", None, "empty_answer"]
    with pytest.raises(RuntimeError, match=r"row 1: score 1\.0 with flag empty_answer"):
        Scores(np.array([np.nan, 1.0]), [None, "empty_answer"], {}, True)


class Bare(Method):
    def __init__(self, name="bare", **given) -> None:
        self.name, self.given = name, given
        vars(self).update(given)

    def score(self, tables, records): ...


class Nothing:
    name = "nothing"


class Scoreless(Method):
    name = "scoreless"


@dataclass(frozen=True)
class Columnless(Pass):
    schema: ClassVar[pa.Schema] = SCHEMA


@dataclass(frozen=True)
class Schemaless(Pass):
    def module(self, backbone) -> pl.LightningModule: ...


@dataclass(frozen=True)
class Flagless(Schemaless):
    schema: ClassVar[pa.Schema] = pa.schema([("id", pa.string()), ("x", pa.float32())])


class Forgetful(Bare):
    def __init__(self, beta=1.0) -> None:
        super().__init__()


@pytest.mark.parametrize(
    ("method", "told"),
    [
        (Nothing(), "Nothing is no Method; derive it from winnow.scoring.protocols.Method"),
        (Scoreless(), "Scoreless does not define `score`"),
        (Bare(name=None), "Bare has no name"),
        (Bare(passes={"one": Nothing()}), "pass one: Nothing is no Pass"),
        (Bare(passes={"one": Columnless()}), "Columnless must define `step`, or `columns`"),
        (Bare(passes={"one": Schemaless()}), "Schemaless has no `schema`"),
        (Bare(passes={"one": Flagless()}), r"Flagless has the columns \['id', 'x'\]"),
        (Bare(attacks={"one": Nothing()}), "attack one: Nothing is no PromptAttack"),
        (Bare(filters=["x"]), "filters by 'x'"),
        (Forgetful(), "Forgetful does not keep its argument beta"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else "",
)
def test_what_could_not_be_run_is_one_sentence(method, told):
    if isinstance(method, Bare):
        method.given = {}  # what is wrong with it is looked at where it is used
    with pytest.raises(UserError, match=told):
        check_method(method)


def test_the_check_comes_before_any_model(tmp_path, monkeypatch):
    """A run with such a method ends before its pool is read or a backbone loaded."""
    monkeypatch.setattr(PassRunner, "backbone", property(lambda self: pytest.fail("a model was loaded")))
    cfg = config(f"method._target_={__name__}.Scoreless", f"paths.run={tmp_path / 'run'}", "tracking=none")
    cfg.method = {"_target_": f"{__name__}.Scoreless"}
    with pytest.raises(UserError, match="does not define `score`"):
        pipeline.run(cfg)


def test_a_whole_pass_passes_the_check():
    check_pass("here", Fixed())
