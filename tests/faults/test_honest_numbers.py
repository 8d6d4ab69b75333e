"""A number that is none is told, never reported, ranked or written."""

from __future__ import annotations

import ast
import json
import math
from pathlib import Path

import numpy as np
import pytest
from composed import build, template
from lm_eval.api.instance import Instance
from tiny import suite_of

import winnow
from winnow.data.writers import write_subset
from winnow.errors import UserError
from winnow.evaluation.harness import evaluate_model
from winnow.evaluation.model import HarnessModel
from winnow.scoring.scores import NON_FINITE_SCORE, Scores
from winnow.store.files import read_json, write_json

CHOICE = {"task": "embedded_choice", "num_fewshot": 0, "metrics": ["acc"]}


@pytest.fixture
def broken(backbone):
    """The tiny backbone, whose logits are NaN from the first letter `e` of a text on."""
    backbone.model.get_input_embeddings().weight[backbone.tokenizer("e")["input_ids"][0]] = math.nan
    return backbone


@pytest.mark.fault(
    "a model whose likelihoods are not finite", promise="the evaluation ends, naming task and item", trials="1"
)
def test_a_likelihood_that_is_not_finite_ends_the_evaluation(broken, tmp_path):
    """argmax over NaN is always the first choice: an accuracy that says nothing. Task and item are named."""
    suite = suite_of([CHOICE], limit=2)
    with pytest.raises(UserError, match=r"Task 'embedded_choice', item 0: the model gives the log-likelihood nan"):
        evaluate_model(broken.model, broken.tokenizer, suite, template("plain"), tmp_path)


def test_a_text_whose_likelihood_is_not_finite_is_named(broken):
    """Perplexities are sums over windows of a text: of `yes`, which holds the letter, there is none."""
    model = HarnessModel(broken.model, broken.tokenizer, 2)
    requests = [
        Instance("loglikelihood_rolling", {}, (text,), i, ("mine", i, 1)) for i, text in enumerate(("no", "yes"))
    ]
    with pytest.raises(UserError, match="Task 'mine', item 1: the model gives the log-likelihood nan"):
        model.loglikelihood_rolling(requests, disable_tqdm=True)


@pytest.mark.fault(
    "a model whose logits are NaN while it answers",
    promise="the evaluation ends, naming the task",
    trials="2 ways of generating",
)
@pytest.mark.parametrize("known", [True, False], ids=["shared prompts", "the harness's way"])
def test_answers_of_a_broken_model_end_the_evaluation(broken, known):
    """The first token of NaN logits is token 0: both ways of generating refuse it, naming the task."""
    prompts = {"Say yes.": broken.tokenizer("Say yes.")["input_ids"]} if known else {}
    model = HarnessModel(broken.model, broken.tokenizer, 2, prompts=prompts)
    settings = {"until": ["\n"], "max_gen_toks": 4, "do_sample": False}
    request = Instance("generate_until", {}, ("Say yes.", settings), 0, metadata=("mine", 7, 1))
    with pytest.raises(UserError, match="not a number while it answers mine"):
        model.generate_until([request], disable_tqdm=True)
    assert not broken.model.get_output_embeddings()._forward_hooks  # the model is left as it was


def test_a_metric_that_is_none_is_left_out_with_its_reason(backbone, tmp_path, monkeypatch):
    """0 / 0 of a task's own aggregation is no value: the metric stands under `skipped`, and so does its average."""
    from winnow.evaluation import harness

    entry = {"value": math.nan, "stderr": None, "n": 2, "higher_is_better": True}
    monkeypatch.setattr(harness, "_metrics", lambda *_: ({"embedded_choice/acc": dict(entry)}, {}))
    suite = suite_of([CHOICE], limit=2, averages={"all": ["embedded_choice/acc"]})
    result = evaluate_model(backbone.model, backbone.tokenizer, suite, template("plain"), tmp_path)
    assert result["metrics"] == {}
    assert result["skipped"] == {
        "embedded_choice/acc": "it is nan over its 2 items",
        "average/all": "it needs embedded_choice/acc",
    }


@pytest.mark.fault("an infinite score", promise="flagged, never ranked", trials="2")
def test_an_infinite_score_is_flagged():
    """Of 2, inf, -inf and a flagged record the first alone has a score; flags that were there stay."""
    scores = Scores(np.array([2.0, np.inf, -np.inf, np.nan]), [None, None, None, "empty_answer"], {}, True)
    assert scores.flag == [None, NON_FINITE_SCORE, NON_FINITE_SCORE, "empty_answer"]
    assert np.array_equal(scores.score, [2.0, np.nan, np.nan, np.nan], equal_nan=True)


@pytest.mark.fault(
    "NaN or infinity on its way into a JSON file", promise="refused; the file that was there stays", trials="3 numbers"
)
@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_json_has_no_such_number(tmp_path, number):
    """The writer refuses it, and leaves what was there."""
    path = tmp_path / "a.json"
    write_json(path, {"a": 1.5})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"a": [number]})
    assert read_json(path, "a") == {"a": 1.5} and list(tmp_path.iterdir()) == [path]


def test_all_json_files_go_through_the_writer():
    """No module but the writers' own hands the text of `json.dumps` to a file without `allow_nan=False`."""
    home, found = Path(winnow.__file__).parent, []
    for path in home.rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(call, ast.Call) and ast.unparse(call.func).endswith(
                ("write_atomically", "write_text", ".write")
            ):
                inner = [one for one in ast.walk(call) if isinstance(one, ast.Call)]
                dumps = [one for one in inner if ast.unparse(one.func) in ("json.dumps", "json.dump")]
                found += [f"{path}: {ast.unparse(one)}" for one in dumps if "allow_nan=False" not in ast.unparse(one)]
    assert not found


def test_a_subset_has_null_where_the_pool_has_a_number_that_json_lacks(tmp_path):
    """Python's own JSON reads NaN; other readers refuse the whole file."""
    pool = tmp_path / "pool.jsonl"
    pool.write_text('{"instruction": "Say a", "input": "", "output": "a", "score": NaN, "more": [Infinity, 1]}\n')
    path = write_subset(build("data/file", source=str(pool)), [0], tmp_path)

    def refuse(word: str):
        raise AssertionError(word)

    row = json.loads(path.read_text(), parse_constant=refuse)
    assert (row["score"], row["more"], row["output"]) == (None, [None, 1], "a")


@pytest.mark.fault(
    "`{}`, rubbish or a folder in place of a JSON file of ours",
    promise="one sentence with the file and the cure",
    trials="6 kinds",
)
@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"{}", "lacks models, headline"),
        (b"[]", "lacks models, headline"),
        (b"", "cannot be read"),
        (b"\xff\xfe", "cannot be read"),
        (b"[" * 100_000, "cannot be read"),
        (None, "cannot be read .Is a directory"),
    ],
)
def test_a_file_of_ours_that_is_not_what_we_wrote(tmp_path, content, told):
    """One sentence with the file and the cure."""
    path = tmp_path / "results.json"
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    with pytest.raises(UserError, match=f"results.json {told}.*; delete it and run the stage that writes it again"):
        read_json(path, "models", "headline")
