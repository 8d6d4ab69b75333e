"""The target: a second pool, over which a method's target passes run; and records that a method makes of its own."""

from __future__ import annotations

from dataclasses import replace

import pytest
from composed import build, config, template
from hydra.utils import instantiate
from tiny_passes import TRAINER, Loaded, record

from winnow import pipeline
from winnow.data.records import Pool
from winnow.errors import UserError
from winnow.scoring.methods.baselines import Oracle
from winnow.scoring.passes.token_count import TokenCount
from winnow.scoring.protocols import Method, check_method
from winnow.scoring.runner import PassRunner
from winnow.scoring.scores import Scores
from winnow.stages.score import score, scores_identity
from winnow.store.artifacts import Store
from winnow.tracking.run_card import StageRecord


class Longer(Method):
    """Answer tokens beyond the target's mean; the second pass counts the answers written twice."""

    def __init__(self) -> None:
        self.name = "longer"
        self.passes = {"count": TokenCount(), "twice": TokenCount()}
        self.target_passes = {"wanted": TokenCount()}

    def records_for(self, name, tables, records):
        if name == "count":
            return records
        assert list(tables) == ["count"]  # of the passes before it
        return [replace(one, id=one.id + "2", output=one.output * 2) for one in records]

    def score(self, tables, records):
        assert len(tables["wanted"]) == 1
        beyond = tables["count"].numbers("answer_tokens") - tables["wanted"].numbers("answer_tokens").mean()
        return Scores(beyond, [None] * len(records), {"twice": tables["twice"].numbers("answer_tokens")}, True)


def pool(*outputs: str) -> Pool:
    records = [record("do", "", output, row) for row, output in enumerate(outputs)]
    return Pool(records, "alpaca", "jsonl", "test", [])


def test_target_passes_run_over_the_target_and_a_pass_over_its_own_records(backbone, tmp_path):
    """A byte is a token: answers of 2 and 5 tokens, the target's one answer has 4: 2 - 4 = -2 and 5 - 4 = 1. Written
    twice they have 4 and 10. Another target gives another identity, no target the identity without one."""
    method, own, shape = Longer(), pool("ab", "abcde"), template("alpaca")
    check_method(method)
    runner = PassRunner(Loaded(backbone), Store(tmp_path / "store"), TRAINER)
    given = (tmp_path, own, method, runner, shape, None)
    score(StageRecord(), *given, pool("abcd"), {})
    table = Scores.read(tmp_path / "scores.parquet")
    assert table["score"].to_pylist() == [-2, 1] and table["twice"].to_pylist() == [4, 10]
    identities = [scores_identity(method, None, own, one, runner, shape) for one in (pool("abcd"), pool("abc"), None)]
    assert identities[0] != identities[1] and "target" not in identities[2]
    assert identities[0]["passes"].keys() == {"count", "twice", "wanted"}
    runner.computed.clear()
    with pytest.raises(UserError, match=r"data@target: no record of test serves method=longer; 1 of 1 .*: empty"):
        score(StageRecord(), tmp_path, pool("new"), *given[2:], pool(""), {})
    assert len(runner.computed) == 1  # not the pool's


def test_one_name_for_two_passes_is_refused():
    method = Longer()
    method.target_passes = {"count": TokenCount()}
    with pytest.raises(UserError, match="method=longer: count is a pass and a target pass"):
        check_method(method)


def test_a_method_without_its_target_is_refused_before_anything_is_read(tmp_path):
    (tmp_path / "pool.jsonl").write_text("not read")
    cfg = config(f"paths.run={tmp_path / 'run'}", "tracking=none", "data=file", f"data.path={tmp_path / 'pool.jsonl'}")
    cfg.method = {"_target_": f"{__name__}.Longer"}
    with pytest.raises(UserError, match="method=longer needs a target, .*data@target=file target.path=FILE"):
        pipeline.run(cfg)


def test_the_train_split_of_an_nlu_data_set_is_a_target(tmp_path):
    """AG News' class 3 is Business; the test file beside it is what an evaluation asks, and is not read."""
    for split, title in (("train", "Shares rise"), ("test", "Shares fall")):
        (tmp_path / f"{split}.csv").write_text(f'"3","{title}","On Friday."\n')
    target = instantiate(config("method=rds", "data@target=agnews", f"target.path={tmp_path}").target)
    (record,) = target.records
    assert "Shares rise" in record.input and record.output == "Business"


@pytest.mark.parametrize("method", [Oracle("oracle", 0), build("method/column", column="defect.a")])
def test_a_column_that_the_scores_are_made_of_is_part_of_their_identity(backbone, tmp_path, method):
    """The records' texts stay what they are."""
    runner = PassRunner(Loaded(backbone), Store(tmp_path), TRAINER)
    own = pool("ab")
    pools = [
        replace(own, records=[replace(one, raw={"defect": {"a": kind}}) for one in own.records]) for kind in (1, 1, 2)
    ]
    first, same, other = (scores_identity(method, None, one, None, runner, template("alpaca")) for one in pools)
    assert first == same != other and "column" in first
