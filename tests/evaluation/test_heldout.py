"""Held-out answers of pools: which records are asked, and that they go through the harness."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
from composed import build, config, template
from tiny import tiny_model

from winnow.errors import UserError
from winnow.evaluation.harness import evaluate_model
from winnow.evaluation.heldout import by_kind, heldout, heldout_suite
from winnow.store.describe import describe


def pool(folder, name: str, count: int, **options):
    """`count` records without two of the same text; the last one has no answer."""
    rows = [{"instruction": f"{name} {i}", "output": f"answer {i}" if i < count - 1 else " "} for i in range(count)]
    path = folder / f"{name}.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return build("data/file", path=path, **options)


def suite(pools, besides, **changes):
    given = {"name": "heldout", "own": 6, "others": 3, "sample_seed": 0, "tasks": [], "headline": [], "averages": {}}
    given |= {"limit": None, "batch_size": 2, "mirror": None, "seed": 0, "bootstrap_iters": 10}
    given |= {"allow_code_execution": False, "chat_template": False, "kinds": {}, "start": None, "target": None}
    return heldout_suite(pools=pools, besides=besides, **given | changes)


def test_no_record_of_the_runs_pool_is_asked(tmp_path):
    """20 records, 8 of them drawn for the pool: 6 of the other 11 with an answer are asked, 3 of the other kind."""
    small, whole, other = (pool(tmp_path, *one) for one in (("a", 20), ("a", 20), ("b", 5)))
    small = build("data/file", path=tmp_path / "a.jsonl", sample=8)
    found = suite({"b": other, "a": whole}, small)
    assert {task: len(records) for task, records in found.pools.items()} == {"a_answers": 6, "b_answers": 3}
    asked = {record.id for record in found.pools["a_answers"]}
    assert len(asked) == 6 and not asked & {record.id for record in small.records}
    assert describe(found)["pools"]["class"].endswith("HeldOutPools")  # what stored evaluations of it are called
    for place in ("start", "target"):
        other = suite({"a": whole}, build("data/file", path=tmp_path / "b.jsonl"), **{place: small}, others=11)
        assert not {record.id for record in other.pools["a_answers"]} & {record.id for record in small.records}
    assert list(found.headline) == ["a_answers/bits_per_byte", "b_answers/bits_per_byte"]  # its own kind first
    assert all(record.output.strip() for records in found.pools.values() for record in records)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"turns": (("oracle", "x"),)}, "cannot be asked .*no form for the role oracle"),
        ({"output": ""}, "empty_answer"),
    ],
)
def test_a_record_that_cannot_be_asked_is_told_before_anything_runs(changes, told, tokenizer, tmp_path):
    own = suite({"a": pool(tmp_path, "a", 20)}, pool(tmp_path, "b", 3))
    own.check_prompts(template("alpaca"), tokenizer)
    own.pools["a_answers"][-1] = replace(own.pools["a_answers"][-1], **changes)
    with pytest.raises(UserError, match=told):
        own.check_prompts(template("alpaca"), tokenizer)


def test_a_column_makes_a_pool_of_each_kind(tmp_path):
    """Three open and four closed questions, one row without a kind: two tasks, of the rows of their kind."""
    kinds = ["Open QA"] * 3 + ["closed_qa"] * 4 + [None]
    rows = [{"instruction": f"b {i}", "output": f"answer {i}", "category": kind} for i, kind in enumerate(kinds)]
    (tmp_path / "b.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    other, own = build("data/file", path=tmp_path / "b.jsonl"), pool(tmp_path, "a", 3)
    found = suite({"b": other}, own, kinds={"b": "category"}).pools
    assert list(found) == ["b_closed_qa_answers", "b_open_qa_answers"]
    assert len({one.fingerprint for one in (other, *by_kind("b", other, "category").values())}) == 3
    assert {record.raw["category"] for record in found["b_open_qa_answers"]} == {"Open QA"}
    with pytest.raises(UserError, match=r"evaluation\.kinds\.b=kind: no row of .* has a value"):
        suite({"b": other}, own, kinds={"b": "kind"})
    with pytest.raises(UserError, match="evaluation.kinds names 'c', which is no pool: choose from b"):
        suite({"b": other}, own, kinds={"c": "category"})


def test_the_values_of_a_column_are_told_apart(tmp_path):
    """0 and False are values too; C and C++ would be one pool."""

    def kinds(*values):
        rows = [{"instruction": f"b {i}", "output": "x", "kind": value} for i, value in enumerate(values)]
        (tmp_path / "b.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
        return list(by_kind("b", build("data/file", path=tmp_path / "b.jsonl"), "kind"))

    assert kinds(0, 1, "", None, 0) == ["b_0", "b_1"] and kinds(False, True) == ["b_false", "b_true"]
    with pytest.raises(UserError, match=r"the values 'C' and 'C\+\+' give one name, b_c; write them"):
        kinds("C", "C++")


def test_the_draw_belongs_to_the_seed_and_the_record(tmp_path):
    """The order of the file plays no part, fewer are the first of more, another seed draws others, and a pool that is
    too small is an error with both numbers: 19 records have an answer."""
    whole = pool(tmp_path, "a", 20)
    ids = [record.id for record in heldout(whole, 10, 0, ())]
    turned = build("data/file", path=tmp_path / "a.jsonl")
    turned.records.reverse()
    assert [record.id for record in heldout(turned, 4, 0, ())] == ids[:4]
    assert [record.id for record in heldout(whole, 10, 1, ())] != ids
    with pytest.raises(UserError, match="has 19 records with an answer .* wants 20"):
        heldout(whole, 20, 0, ())


def test_what_is_asked_is_part_of_the_identity(tmp_path):
    """Another pool of the run leaves other records out, another seed draws others: another evaluation. So is another
    order, of which a limit takes the first. A speed does not change it."""
    whole = pool(tmp_path, "a", 20)
    few, more = (build("data/file", path=tmp_path / "a.jsonl", sample=size) for size in (4, 12))
    one = describe(suite({"a": whole}, few))
    assert one == describe(suite({"a": whole}, few, batch_size=4)) != describe(suite({"a": whole}, more))
    assert one != describe(suite({"a": whole}, few, sample_seed=1))
    turned = suite({"a": whole}, few)
    turned.pools["a_answers"].reverse()
    assert one != describe(turned)


def test_uniform_model_through_the_harness(tokenizer, tmp_path):
    """A zero output matrix gives each of 259 tokens, one a byte, the probability 1/259: log2(259) = 8.0167 bits per
    byte in each pool."""
    model = tiny_model()
    model.lm_head.weight.zero_()
    pools = {"a": pool(tmp_path, "a", 12), "b": pool(tmp_path, "b", 12)}
    besides = build("data/file", path=tmp_path / "a.jsonl", sample=3)
    result = evaluate_model(model, tokenizer, suite(pools, besides), template("alpaca"), tmp_path / "out")
    assert {key: (one["n"], one["higher_is_better"]) for key, one in result["metrics"].items()} == {
        "a_answers/bits_per_byte": (6, False),
        "b_answers/bits_per_byte": (3, False),
    }
    for one in result["metrics"].values():
        assert one["value"] == pytest.approx(math.log2(259), abs=1e-4) and one["stderr"] == pytest.approx(0, abs=1e-4)


def test_the_option_builds_it():
    """conf/evaluation/heldout.yaml with the embedded pool in place of its three: the run's pool is left out."""
    pools = [f"data@evaluation.pools.{name}=embedded" for name in ("alpaca", "dolly", "flan_cot")]
    assert config("evaluation=heldout", "data@target=embedded").evaluation.target.limit is None
    assert config("evaluation=heldout").evaluation.target is None
    built = build("evaluation/heldout", *pools, "data.limit=100", own=5, others=7)
    first = {record.id for record in build("data/embedded", limit=100).records}
    asked = [record.id for records in built.pools.values() for record in records]
    assert len(asked) == 15 and not first & set(asked)
