"""Suites, comparisons, and what an evaluation leaves alone."""

from __future__ import annotations

import json
import math
import random
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock, call

import datasets
import numpy as np
import pytest
import torch
from composed import CONF, config, template
from hydra.utils import instantiate
from shared_data import shared
from tiny import CHAT, answering, arc, suite_of, tiny_model, tiny_tokenizer, write_items
from tokenizer_kinds import tokenizer_of
from tokenizers import decoders, processors

from winnow.errors import UserError
from winnow.evaluation.harness import _left_as_found, compare, evaluate_model
from winnow.evaluation.model import HarnessModel
from winnow.stages.evaluate import _evaluated
from winnow.store.artifacts import Store
from winnow.store.describe import describe

ANSWERS = {"task": "embedded_answers", "num_fewshot": 0, "metrics": ["bits_per_byte"]}
HUMANEVAL = {"task": "humaneval", "num_fewshot": 0, "metrics": ["pass@1"]}


def entry(value: float, stderr: float | None = 0.1, n: int = 10) -> dict:
    return {"value": value, "stderr": stderr, "n": n, "higher_is_better": True}


SUITES = sorted(path for path in (CONF / "evaluation").glob("[!_]*.yaml") if path.stem != "heldout")  # it reads pools


@pytest.mark.parametrize("path", SUITES, ids=lambda path: path.stem)
def test_every_suite_is_built(path):
    """Each file builds a suite of its own name, whose settings can be stored, and whose tasks the harness knows."""
    from winnow.evaluation.catalogue import leaves

    suite = instantiate(config(f"evaluation={path.stem}").evaluation)
    assert suite.name == path.stem and json.dumps(describe(suite))
    assert all(spec.task in suite.conditions() or leaves(spec.task) for spec in suite.tasks)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"limit": 0}, "evaluation.limit=0"),
        ({"batch_size": 0}, "evaluation.batch_size=0"),
        ({"bootstrap_iters": 0}, "evaluation.bootstrap_iters=0 is too small"),
        ({"tasks": [ANSWERS, ANSWERS]}, "evaluation.tasks names embedded_answers more than once"),
        ({"headline": ["arc_easy/acc"]}, "evaluation.headline names 'arc_easy/acc'"),
        ({"averages": {"all": ["mmlu/acc"]}}, "evaluation.averages.all names 'mmlu/acc'"),
        ({"tasks": [{"task": "arc_easy"}]}, "evaluation.tasks"),
        ({"tasks": [{"task": "arc_easy", "metrics": "acc"}]}, r"the metrics of arc_easy are a list: \[acc\]"),
        ({"chat_template": True}, "chat_template=true does not fit the task embedded_answers"),
        ({"tasks": [ANSWERS | {"num_fewshot": 2}]}, "num_fewshot=2 does not fit the task embedded_answers"),
    ],
)
def test_wrong_settings_are_named(options, message):
    """One sentence that names the key and the value."""
    with pytest.raises(UserError, match=message):
        suite_of(**{"name": "test", "tasks": [ANSWERS], **options})


def test_the_builder_gets_no_arguments_of_loading(monkeypatch):
    """The task's file has `dataset_kwargs: {streaming: true}`, which `load_dataset` takes."""
    builder = Mock()
    monkeypatch.setattr("datasets.load_dataset_builder", builder)
    suite_of([{"task": "groundcocoa", "metrics": ["acc"]}]).check_data()
    assert builder.mock_calls == [call("harsh147/GroundCocoa", None), call().download_and_prepare()]


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({"task": "squadv2", "metrics": ["f1"]}, "'squadv2' is a Python class of lm-eval"),
        ({"task": "arc_eesy", "metrics": ["acc"]}, "'arc_eesy' is not known.*arc_easy"),
        ({"task": "embedded_choice", "metrics": ["f1"]}, "no metric 'f1': choose from acc, acc_norm"),
        ({"task": "mmlu", "metrics": ["acc_norm"]}, "no metric 'acc_norm': choose from acc in"),
        ({"task": "ai2_arc", "metrics": ["acc"]}, "'ai2_arc' stands for tasks .*: arc_challenge, arc_easy"),
    ],
)
def test_unknown_task_and_metric_are_named(backbone, tmp_path, monkeypatch, task, message):
    """Before anything is evaluated, and a stock task's before anything is tuned; the message says what there is."""
    if not task["task"].startswith("embedded"):
        with pytest.raises(UserError, match=message):
            suite_of([task], limit=1).check_data()
    monkeypatch.setattr(HarnessModel, "_loglikelihood_tokens", None)
    with pytest.raises(UserError, match=message):
        evaluate_model(backbone.model, backbone.tokenizer, suite_of([task], limit=1), template("plain"), tmp_path)


def test_compare():
    """delta = tuned - base for the metrics of both: 0.5 - 0.25 = 0.25; without a tuned model there is none."""
    tasks = [{"task": "arc_easy", "metrics": ["acc"]}, HUMANEVAL]
    suite = suite_of(tasks, name="test", headline=["arc_easy/acc", "humaneval/pass@1"])
    base = {"metrics": {"arc_easy/acc": entry(0.25)}, "samples": "base.jsonl"}
    tuned = {"metrics": {"arc_easy/acc": entry(0.5)}, "samples": None}
    result = compare({"base": base, "tuned": tuned}, suite)
    assert result["delta"] == {"arc_easy/acc": 0.25}
    assert result["headline"] == ["arc_easy/acc"]  # humaneval was left out, so there is nothing to show
    assert result["suite"] == "test" and result["models"] == {"base": base, "tuned": tuned}
    assert json.dumps(result)
    alone = compare({"base": base}, suite)
    assert alone["delta"] == {} and list(alone["models"]) == ["base"]


def test_averages():
    """Mean of 0.2 and 0.6 is 0.4 with error sqrt(0.03^2 + 0.04^2)/2 = 0.025; a mean of means uses the first.

    An average that lacks a member is left out with its reason, never taken over fewer tasks. One of a member without an
    error has none, and is not better when it is higher if a member is not.
    """
    from winnow.evaluation.harness import _add_averages

    tasks = [{"task": name, "metrics": ["acc"]} for name in ("a", "b", "c")]
    averages = {"ab": ["a/acc", "b/acc"], "all": ["average/ab", "b/acc"], "abc": ["a/acc", "c/acc"]}
    result = {"metrics": {"a/acc": entry(0.2, 0.03, 5), "b/acc": entry(0.6, 0.04, 7)}, "skipped": {"c": "why"}}
    _add_averages(result, suite_of(tasks, averages=averages))
    assert result["metrics"]["average/ab"] == entry(pytest.approx(0.4), pytest.approx(0.025), 12)
    assert result["metrics"]["average/all"]["value"] == pytest.approx(0.5)
    means = {"a1": ["a/acc"], "b1": ["b/acc"], "all": ["average/a1", "average/b1"]}
    _add_averages(result, suite_of(tasks, averages=means))
    assert result["metrics"]["average/all"]["n"] == 12
    assert result["skipped"] == {"c": "why", "average/abc": "it needs c/acc"}
    assert "average/abc" not in result["metrics"]
    result["metrics"] |= {"b/acc": entry(0.6, None), "c/acc": entry(0.1) | {"higher_is_better": False}}
    _add_averages(result, suite_of(tasks, averages={"ab": ["a/acc", "b/acc"], "bc": ["b/acc", "c/acc"]}))
    assert result["metrics"]["average/ab"]["stderr"] is None
    assert [result["metrics"][f"average/{name}"]["higher_is_better"] for name in ("ab", "bc")] == [True, False]


def test_code_tasks_are_left_out_loudly(backbone, tmp_path, caplog):
    """Without permission nothing runs; the reason stands in the results and in the log."""
    suite = suite_of([HUMANEVAL], averages={"all": ["humaneval/pass@1"]})
    result = evaluate_model(backbone.model, backbone.tokenizer, suite, template("plain"), tmp_path)
    assert result["metrics"] == {} and set(result["skipped"]) == {"humaneval", "average/all"}
    assert "allow_code_execution=true" in result["skipped"]["humaneval"]
    assert "leaves out humaneval" in caplog.text


def test_humaneval_with_permission(backbone, tmp_path, monkeypatch):
    """The first completion is the canonical one and the second is empty, so pass@1 is 1/2."""
    solutions = iter([True, False])
    answering(monkeypatch, lambda doc: doc["canonical_solution"] if next(solutions) else "")
    suite = suite_of([HUMANEVAL], mirror=str(shared("data/eval")), limit=2, allow_code_execution=True)
    result = evaluate_model(backbone.model, backbone.tokenizer, suite, template("plain"), tmp_path)
    assert result["metrics"]["humaneval/pass@1"]["value"] == 0.5


def test_mbpp_prompt_and_score(backbone, tmp_path, monkeypatch):
    """One example, the problem with task_id 2, precedes the question; both answers define f, the second wrongly."""
    folder = tmp_path / "mirror" / "mbpp"
    folder.mkdir(parents=True)

    def problem(number: int, code: str) -> str:
        tests = ["assert f(1) == 2", "assert f(2) == 3", "assert f(3) == 4"]
        row = {"task_id": number, "text": f"Problem {number}.", "code": code, "test_list": tests, "test_setup_code": ""}
        return json.dumps(row) + "\n"

    (folder / "prompt.jsonl").write_text("".join(problem(i, f"code {i}") for i in (1, 2, 3, 4)))
    (folder / "test.jsonl").write_text("".join(problem(i, "x") for i in (11, 12)))
    replies = iter(["f = lambda x: x + 1", "f = lambda x: x"])
    prompts = answering(monkeypatch, lambda doc: next(replies))
    task = {"task": "mbpp", "num_fewshot": 1, "metrics": ["pass@1"]}
    suite = suite_of([task], mirror=str(folder.parent), allow_code_execution=True)
    result = evaluate_model(backbone.model, backbone.tokenizer, suite, template("plain"), tmp_path / "out")
    assert result["metrics"]["mbpp/pass@1"]["value"] == 0.5
    assert "[BEGIN]\ncode 2\n[DONE]" in prompts[0] and "Problem 1." not in prompts[0]
    assert prompts[0].endswith("[BEGIN]\n") and "Problem 11." in prompts[0]


def test_bos_follows_the_tokenizer(backbone):
    """The tiny tokenizer adds no BOS, and the harness adds none; one that adds it (id 1) gets exactly one."""
    assert HarnessModel(backbone.model, backbone.tokenizer, 1).tok_encode("ab")[0] != 1
    adding = tiny_tokenizer()
    adding.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|bos|> $A", special_tokens=[("<|bos|>", 1)]
    )
    ids = HarnessModel(backbone.model, adding, 1).tok_encode("ab")
    assert ids[0] == 1 and ids.count(1) == 1 and len(ids) == 3


def test_the_window_is_the_backbones_own(backbone):
    """A scaling that changes with a batch's longest text counts up to where it begins to; MPT's key is read."""
    config = backbone.model.config
    assert HarnessModel(backbone.model, backbone.tokenizer, 1).max_length == 2048
    config.rope_scaling = {"rope_type": "longrope", "original_max_position_embeddings": 512}
    assert HarnessModel(backbone.model, backbone.tokenizer, 1).max_length == 512
    config.max_seq_len = 128
    assert HarnessModel(backbone.model, backbone.tokenizer, 1).max_length == 128


def test_a_chat_template_is_told_the_templates_date(backbone, tmp_path, monkeypatch):
    """A stock task's prompts are the same on every day; another date is another evaluation, and so is told apart."""
    tokenizer, asked = tiny_tokenizer(), []
    tokenizer.chat_template = "{{ strftime_now('%Y-%m-%d') }}" + CHAT
    write_items(tmp_path, "arc_easy", test=[arc("Odd?")])
    tasks = [{"task": "arc_easy", "num_fewshot": 0, "metrics": ["acc"]}]
    suite = suite_of(tasks, mirror=str(tmp_path), chat_template=True)

    def answer(self, requests, **_):
        asked.extend(request.args[0] for request in requests)
        return [(-1.0, False) for _ in requests]

    monkeypatch.setattr(HarnessModel, "loglikelihood", answer)
    evaluate_model(backbone.model, tokenizer, suite, template("plain", date="2031-01-02"), tmp_path / "out")
    assert len(asked) == 2 and all(prompt.startswith("2031-01-02<|bos|>user\nQuestion: Odd?") for prompt in asked)

    monkeypatch.setattr("winnow.stages.evaluate.compute_once", lambda *_: False)
    source = type("Source", (str,), {"tokenizer": tokenizer})("tiny")
    runner = SimpleNamespace(source=source, store=Store(tmp_path / "store"))

    def artifact(own, **changes) -> str:
        record = SimpleNamespace(fingerprint=None)
        return _evaluated(record, "base", None, runner, own, template("plain", **changes)).fingerprint

    assert artifact(suite) == artifact(suite, bos=True) != artifact(suite, date="2031-01-02")
    tokenizer.chat_template = CHAT  # writes no date
    assert artifact(suite) == artifact(suite, date="2031-01-02")
    plain = replace(suite, chat_template=False)
    assert artifact(plain) == artifact(plain, date="2031-01-02")
    own = suite_of([ANSWERS])  # in the run's template
    assert artifact(own) != artifact(own, bos=True) and artifact(own) != artifact(replace(own, limit=3))
    tokenizer.chat_template = None
    plain.check_tokenizer(tokenizer)
    with pytest.raises(UserError, match="the tokenizer has no chat template"):
        suite.check_tokenizer(tokenizer)


def test_no_item_is_its_own_example(backbone, tmp_path, monkeypatch):
    """Three items without a training split, and two examples: those of an item are the other two."""
    items = [arc(f"Is {number} odd?") | {"id": str(number)} for number in (1, 3, 5)]
    write_items(tmp_path, "arc_easy", test=items)
    asked = []

    def answer(self, requests, **_):
        asked.extend((request.doc["question"], request.args[0]) for request in requests)
        return [(-1.0, False) for _ in requests]

    monkeypatch.setattr(HarnessModel, "loglikelihood", answer)
    suite = suite_of([{"task": "arc_easy", "num_fewshot": 2, "metrics": ["acc"]}], mirror=str(tmp_path))
    evaluate_model(backbone.model, backbone.tokenizer, suite, template("plain"), tmp_path / "out")
    assert len(asked) == 6  # two choices of each
    for question, prompt in asked:
        assert [prompt.count(item["question"]) for item in items] == [1, 1, 1], prompt
        assert prompt.rindex("Question: ") == prompt.index(f"Question: {question}")


def test_a_task_is_known_by_what_it_asks(tmp_path, monkeypatch):
    """An edited prompt of our own task is another evaluation; of another task it is not."""
    monkeypatch.setattr("winnow.evaluation.suite.OWN_TASKS", tmp_path)
    for name in ("embedded_answers", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "task.yaml").write_text(f"task: {name}\ndoc_to_text: one\n")
    first = describe(suite_of([ANSWERS]))
    (tmp_path / "other" / "task.yaml").write_text("task: other\ndoc_to_text: two\n")
    assert describe(suite_of([ANSWERS])) == first
    (tmp_path / "embedded_answers" / "task.yaml").write_text("task: embedded_answers\ndoc_to_text: two\n")
    assert describe(suite_of([ANSWERS])) != first


def test_an_evaluation_is_known_by_the_embedded_records_and_the_harness(tmp_path, monkeypatch):
    """Other held-out records, or another release of lm-eval: another evaluation."""
    found = [describe(suite_of([ANSWERS]))]
    (tmp_path / "heldout.jsonl").write_text("{}\n")
    monkeypatch.setattr("winnow.evaluation.suite.HELDOUT", tmp_path / "heldout.jsonl")
    found.append(describe(suite_of([ANSWERS])))
    monkeypatch.setattr("winnow.evaluation.suite.version", lambda name: f"another {name}")
    found.append(describe(suite_of([ANSWERS])))
    assert len({json.dumps(one) for one in found}) == 3


def test_a_task_that_draws_draws_by_the_suites_seed(backbone):
    """GPQA shuffles its choices with Python's generator when it is loaded; others draw from NumPy's."""
    found = []
    for state in (1, 2):
        random.seed(state), np.random.seed(state)
        with _left_as_found(backbone.model, 7):
            found.append((random.random(), np.random.rand()))
    assert found[0] == found[1]


@pytest.mark.parametrize("device", ["cuda:1", "cpu"])
def test_the_random_state_of_its_own_gpu_is_kept(device, monkeypatch):
    """Of two GPUs torch would keep both states, and warn of it at length. A process on a CPU may have no GPU of its
    number."""
    monkeypatch.setenv("LOCAL_RANK", "1")
    asked = Mock(return_value=nullcontext())
    monkeypatch.setattr(torch.random, "fork_rng", asked)
    model = Mock(parameters=lambda: iter([SimpleNamespace(device=torch.device(device))]))
    with _left_as_found(model, 7):
        assert asked.call_args == call([torch.device(device)] if device != "cpu" else [])


def test_code_keeps_its_first_blanks():
    """Llama's decoder drops a blank at the beginning of what it decodes, and a line of code may begin with it."""
    tokenizer = tokenizer_of("SentencePiece-like, Prepend")
    core = tokenizer.backend_tokenizer
    core.decoder = decoders.Sequence([core.decoder, decoders.Strip(" ", 1, 0)])
    model = HarnessModel.__new__(HarnessModel)
    model.tokenizer = tokenizer
    ids = tokenizer("\n    return 1", add_special_tokens=False)["input_ids"]
    behind = ids[len(tokenizer("\n", add_special_tokens=False)["input_ids"]) :]
    assert tokenizer.decode(behind) == "   return 1" and model.tok_decode(behind) == "    return 1"


def test_a_window_that_the_answer_fills_is_told_before_anything_runs():
    """IFEval's answers may have 1,280 tokens; GPT-2 has 1,024 positions."""
    tasks = [{"task": "ifeval", "metrics": ["prompt_level_strict_acc"]}]
    assert suite_of(tasks).generates() == {"ifeval": 1280}
    assert suite_of([ANSWERS]).generates() == {}


def test_leaves_everything_as_found(backbone, tokenizer, tmp_path):
    """Between two stages an evaluation must not move their random draws, nor the model's mode or tokenizer."""
    backbone.model.train()
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    expected = (random.random(), np.random.rand(), torch.rand(1).item())
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    tokenizer_before = (tokenizer.pad_token, tokenizer.padding_side, len(tokenizer))
    evaluate_model(backbone.model, tokenizer, suite_of([ANSWERS], limit=1), template("plain"), tmp_path)
    assert (random.random(), np.random.rand(), torch.rand(1).item()) == expected
    assert backbone.model.training
    assert (tokenizer.pad_token, tokenizer.padding_side, len(tokenizer)) == tokenizer_before


def test_bf16_is_normalised_in_fp32(backbone, tmp_path):
    """A uniform bf16 model still costs log2(259) = 8.0167 bits a byte; log-probabilities kept in bf16, with
    steps of 1/32 near 5.56 nats, would give ln 259 as 5.5625 and so 8.0250."""
    model = backbone.model.bfloat16()
    model.lm_head.weight.zero_()
    result = evaluate_model(model, backbone.tokenizer, suite_of([ANSWERS], limit=2), template("plain"), tmp_path)
    assert result["metrics"]["embedded_answers/bits_per_byte"]["value"] == pytest.approx(math.log2(259), abs=1e-3)


def test_answer_beyond_the_window_is_refused(backbone, tmp_path):
    """A 64-token window cannot score an answer of 315 bytes; the sentence says so."""
    backbone.model.config.max_position_embeddings = 64
    with pytest.raises(UserError, match="does not fit the model's window of 64"):
        evaluate_model(backbone.model, backbone.tokenizer, suite_of([ANSWERS], limit=1), template("plain"), tmp_path)


def test_no_tasks(backbone, tmp_path):
    """evaluation=none: nothing is run and nothing is reported."""
    result = evaluate_model(backbone.model, backbone.tokenizer, suite_of([]), template("plain"), tmp_path)
    assert result["metrics"] == {} and result["samples"] is None


def test_ifeval_resources_are_named(backbone, tmp_path, monkeypatch):
    """A missing package, then a missing sentence splitter: each message ends in the command that gets it."""
    import winnow.evaluation.loading as loading

    suite = suite_of([{"task": "ifeval", "metrics": ["prompt_level_strict_acc"]}], mirror=str(tmp_path))
    monkeypatch.setattr(loading.importlib.util, "find_spec", lambda name: None if name == "immutabledict" else object())
    with pytest.raises(UserError, match="pip install immutabledict"):
        evaluate_model(backbone.model, backbone.tokenizer, suite, template("plain"), tmp_path / "out")
    monkeypatch.setattr(loading.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr("nltk.data.path", [])
    with pytest.raises(UserError, match="nltk.downloader punkt_tab"):
        evaluate_model(backbone.model, backbone.tokenizer, suite, template("plain"), tmp_path / "out")


def test_nothing_is_written_outside_the_work_folder(tokenizer, tmp_path, monkeypatch):
    """HellaSwag's stock task rewrites its documents, which the data library would keep in the user's cache: here its
    places, and the working folder, are empty folders.

    The work folder keeps the samples and the task file; the converted data is gone.
    """
    mirror = str(shared("data/eval").resolve())
    for name, place in list(vars(datasets.config).items()):
        if isinstance(place, Path):
            monkeypatch.setattr(datasets.config, name, tmp_path / "home" / name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    suite = suite_of([{"task": "hellaswag", "num_fewshot": 1, "metrics": ["acc"]}], limit=2, mirror=mirror)
    result = evaluate_model(tiny_model(), tokenizer, suite, template("plain"), Path("out"))
    assert result["metrics"]["hellaswag/acc"]["n"] == 2
    written = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert written == {"work/out/samples.jsonl", "work/out/tasks/hellaswag.yaml"}
