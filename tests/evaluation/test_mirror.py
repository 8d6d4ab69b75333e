"""Stock tasks on local data."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import yaml
from composed import build, config, template
from hydra.utils import instantiate
from shared_data import shared
from tiny import arc, tiny_model, write_items

from winnow.errors import UserError
from winnow.evaluation.catalogue import leaves
from winnow.evaluation.harness import evaluate_model
from winnow.evaluation.items import asked_texts
from winnow.evaluation.mirror import data_folder, mirrored_files, write_overlay
from winnow.evaluation.suite import Suite
from winnow.store.describe import describe


def suite(mirror, *tasks, **options) -> Suite:
    specs = [{"task": task, "num_fewshot": shots, "metrics": metrics} for task, shots, metrics in tasks]
    return build("evaluation/none", name="test", tasks=specs, mirror=str(mirror), **options)


@pytest.mark.parametrize(
    ("task", "folder"),
    [
        ("arc_challenge", "arc_challenge"),
        ("arc_easy", "arc_easy"),
        ("hellaswag", "hellaswag"),
        ("mmlu_anatomy", "mmlu/anatomy"),
        ("truthfulqa_mc2", "truthfulqa_mc"),
        ("gsm8k", "gsm8k"),
        ("commonsense_qa", "commonsense_qa"),
        ("nq_open", "nq_open"),
        ("bbh_cot_fewshot_navigate", "bbh/navigate"),
        ("humaneval", "humaneval"),
        ("mbpp", "mbpp"),
        ("ifeval", "ifeval"),
    ],
)
def test_folder_of_a_task(task, folder):
    """The places that docs/evaluation.md promises."""
    (leaf,) = leaves(task)
    assert data_folder(leaf) == folder


def test_a_mirror_that_no_task_reads_is_no_part_of_the_suite(tmp_path):
    """A folder of no data set, and a suite whose only task is our own: as without a folder. One such task
    beside a stock one is enough for the template to count."""
    own, stock = ("embedded_choice", 0, ["acc"]), ("arc_easy", 0, ["acc"])
    assert suite(tmp_path, own).identity["mirror"] is None
    assert [suite(tmp_path, *tasks).uses_template for tasks in ((own, stock), (stock,))] == [True, False]


def test_groups_have_their_leaves():
    """MMLU has 57 subjects and BIG-Bench Hard 27 tasks."""
    assert len(leaves("mmlu")) == 57 and len(leaves("bbh")) == 27


def test_overlay_names_only_other_data(tmp_path):
    """HellaSwag's stock YAML names a train split; with a validation file only, that split must be null."""
    (task,) = leaves("hellaswag")
    file = tmp_path / "hellaswag" / "validation.jsonl"
    file.parent.mkdir()
    file.write_text("{}\n")
    files = mirrored_files(task, tmp_path)
    assert files == {"validation": file}
    written = yaml.safe_load(write_overlay(task, files, tmp_path / "tasks", tmp_path / "cache").read_text())
    assert written == {
        "include": str(task.path),
        "task": "hellaswag",
        "dataset_path": "json",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": {"validation": str(file)}, "cache_dir": str(tmp_path / "cache")},
        "training_split": None,
    }


def test_examples_of_the_evaluated_split_have_a_name(tmp_path):
    """ARC-Easy with a test file alone: the harness leaves an item out of its own examples if it knows their split. The
    path has brackets, which the data sets library would read as a pattern."""
    (task,) = leaves("arc_easy")
    file = tmp_path / "a[1]" / "test.jsonl"
    written = yaml.safe_load(write_overlay(task, {"test": file}, tmp_path / "tasks", tmp_path / "cache").read_text())
    assert written["fewshot_split"] == "test"
    assert written["dataset_kwargs"]["data_files"] == {"test": str(tmp_path / "a[[]1]" / "test.jsonl")}


def test_missing_data_is_named(tokenizer, tmp_path):
    """The message names the task and the very file that is expected; a mirror that is no folder is named too."""
    with pytest.raises(UserError, match=r"'arc_easy'.*arc_easy/test\.jsonl; add it, .* evaluation.headline"):
        evaluate_model(
            tiny_model(), tokenizer, suite(tmp_path, ("arc_easy", 0, ["acc"])), template("plain"), tmp_path / "out"
        )
    with pytest.raises(UserError, match="nowhere is not a folder"):
        describe(suite(tmp_path / "nowhere", ("arc_easy", 0, ["acc"])))


def test_evaluated_items_are_no_silent_examples(tmp_path, caplog):
    """MMLU names `dev` for its examples; ARC-Easy names none, and the harness takes what is left."""
    for folder in ("mmlu/anatomy", "arc_easy"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "test.jsonl").write_text("{}\n")
    with pytest.raises(UserError, match=r"'mmlu_anatomy' has no examples .*anatomy/dev\.jsonl; add it, or set num_few"):
        suite(tmp_path, ("mmlu_anatomy", 5, ["acc"])).check_data()
    for shots in (0, None):
        suite(tmp_path, ("mmlu_anatomy", shots, ["acc"])).check_data()
    assert not caplog.records
    suite(tmp_path, ("arc_easy", 5, ["acc"])).check_data()
    assert "The examples of arc_easy are evaluated items" in caplog.text
    caplog.clear()
    (task,) = leaves("arc_easy")
    own = replace(task, config=task.config | {"fewshot_config": {"samples": [{}]}})  # as the MATH tasks
    assert mirrored_files(own, tmp_path, 5) and not caplog.records


def test_a_broken_line_is_found_before_anything_is_tuned(tmp_path):
    """The check reads the evaluated file to its end."""
    own = suite(tmp_path, ("arc_easy", 0, ["acc"]))
    (tmp_path / "arc_easy").mkdir()
    for text, told in (
        ("{}\n{}\n", None),
        ("{}\n{", "line 2: no JSON"),
        ("[]\n", "line 1: an object"),
        ("", "is empty"),
    ):
        (tmp_path / "arc_easy" / "test.jsonl").write_text(text)
        if told is None:
            own.check_data()
        else:
            with pytest.raises(UserError, match=told):
                own.check_data()


def test_settings_follow_the_data_not_its_place(tmp_path):
    """A copy of a mirror has the same settings; one changed byte gives others, and another split, a data set of other
    tasks does not."""
    for name, text in (("a", "1\n"), ("b", "1\n"), ("c", "2\n")):
        (tmp_path / name / "arc_easy").mkdir(parents=True)
        (tmp_path / name / "arc_easy" / "test.jsonl").write_text(text)
    a, b, c = (describe(suite(tmp_path / name, ("arc_easy", 0, ["acc"]))) for name in "abc")
    assert a == b != c and json.dumps(a)
    (tmp_path / "b" / "hellaswag").mkdir()  # which no task of the suite reads
    (tmp_path / "b" / "hellaswag" / "validation.jsonl").write_text("1\n")
    assert describe(suite(tmp_path / "b", ("arc_easy", 0, ["acc"]))) == a
    (tmp_path / "b" / "arc_easy" / "test.jsonl").rename(tmp_path / "b" / "arc_easy" / "train.jsonl")
    assert describe(suite(tmp_path / "b", ("arc_easy", 0, ["acc"]))) != a


def items(mirror, task: str, split: str | None = None, limit: int | None = None, seed: int = 0):
    return build("data/suite", task=task, path=str(mirror), split=split, limit=limit, seed=seed)


def test_items_that_are_not_asked_are_a_target(tmp_path):
    """ARC-Easy asks test and names validation before train. Of the two validation items the second is asked in another
    case. Its prompt is `Question: {question}\\nAnswer:` and the answer the text of the right choice."""
    write_items(
        tmp_path, "arc_easy", validation=[arc("Is ice cold?"), arc("is SNOW white")], test=[arc("Is snow white?")]
    )
    words = ("data@target=suite", "target.task=arc_easy", f"paths.eval={tmp_path}")
    pool = instantiate(config("method=rds", *words).target)
    assert [(one.instruction, one.output) for one in pool.records] == [("Question: Is ice cold?\nAnswer:", "yes")]
    assert pool.records[0].raw["split"] == "validation" and pool.source == "arc_easy"
    assert [(bad.file, bad.row, bad.reason) for bad in pool.quarantined] == [
        ("arc_easy/validation", 1, "the evaluation asks it")
    ]


def test_the_texts_that_are_asked(tmp_path):
    """Of ARC-Easy the texts of its test rows, and nothing of the training split."""
    write_items(tmp_path, "arc_easy", train=[arc("Is ice cold?")], test=[arc("Is snow white?")])
    asked = list(asked_texts(suite(tmp_path, ("arc_easy", 0, ["acc"]))))
    assert asked == ["Is snow white?", "no", "yes", "A", "B", "B"]


def test_overlap_with_data_that_is_not_to_be_had_is_said(monkeypatch, caplog):
    """A run whose evaluation lies in the store needs no hub, so none of its items is compared."""

    def refuse(*_args, **_options):
        raise ConnectionError("no route to the hub")

    monkeypatch.setattr("datasets.load_dataset", refuse)
    own = build("evaluation/none", name="test", tasks=[{"task": "arc_easy", "metrics": ["acc"]}], mirror=None)
    assert list(asked_texts(own)) == []
    assert "Overlap with arc_easy is not counted" in caplog.text and "no route to the hub" in caplog.text


def test_fewer_items_are_drawn_and_are_a_part_of_more(tmp_path):
    """2 of 8 items are among 5 of them; another seed draws another pair."""
    write_items(tmp_path, "arc_easy", train=[arc(f"Is {i} odd?") for i in range(8)], test=[arc("Is ice cold?", "A")])
    rows = [{one.row for one in items(tmp_path, "arc_easy", limit=limit).records} for limit in (2, 5, 8)]
    assert [len(one) for one in rows] == [2, 5, 8] and rows[0] < rows[1] < rows[2]
    assert {one.row for one in items(tmp_path, "arc_easy", limit=2, seed=1).records} != rows[0]


def test_what_one_task_of_a_group_asks_is_no_item_of_another(tmp_path):
    """Both parts of ARC: each has a training item of its own, and one that the other part asks."""
    for task, own, asked, others in (("arc_easy", "ice", "snow", "coal"), ("arc_challenge", "fire", "coal", "snow")):
        write_items(
            tmp_path, task, train=[arc(f"Is {own} hot?"), arc(f"Is {others} white?")], test=[arc(f"Is {asked} white?")]
        )
    pool = items(tmp_path, "ai2_arc")
    assert {one.instruction.split()[2] for one in pool.records} == {"ice", "fire"}
    assert [bad.reason for bad in pool.quarantined] == ["the evaluation asks it"] * 2


def test_items_of_few_shot_examples_and_of_beginnings(tmp_path):
    """MMLU's few-shot split `dev` is all that it does not ask: an item answered by letter.
    Winogrande's choices are beginnings: `The cup fell, so the` + ` cup` is followed by `broke.`"""
    subject = {"question": "1 + 1?", "choices": ["1", "2", "3", "4"], "answer": 1}
    write_items(tmp_path, "mmlu/anatomy", dev=[subject], test=[subject | {"question": "2 + 2?"}])
    pool = items(tmp_path, "mmlu_anatomy")
    assert [one.output for one in pool.records] == ["B"] and pool.records[0].raw["split"] == "dev"
    sentence = {"sentence": "The cup fell, so the _ broke.", "option1": "floor", "option2": "cup", "answer": "2"}
    asked = sentence | {"sentence": "The egg fell, so the _ broke."}
    write_items(tmp_path, "winogrande", train=[sentence], validation=[asked])
    (record,) = items(tmp_path, "winogrande").records
    assert (record.instruction, record.output) == ("The cup fell, so the cup", "broke.")


def test_items_that_are_asked_are_refused_in_one_sentence(tmp_path):
    """HellaSwag asks validation, and has no other file here; the embedded suite has its test items alone."""
    write_items(tmp_path, "arc_easy", train=[arc("Is ice cold?")], test=[arc("Is ice cold?")])
    own = {"ind": 1, "activity_label": "Ice", "ctx_a": "A", "ctx_b": "b", "endings": ["c", "d"], "label": "0"}
    write_items(tmp_path, "hellaswag", validation=[own])
    for task, split, message in (
        ("arc_easy", None, "'arc_easy' has no item to give: of the first one, the evaluation asks it"),
        ("arc_easy", "test", "split test of task 'arc_easy' is what the evaluation asks; choose train"),
        ("arc_easy", "dev", "split dev of task 'arc_easy' is not there; choose train"),
        ("hellaswag", None, "'hellaswag' has the split validation alone, which the evaluation asks"),
        ("embedded_choice", None, "'embedded_choice' has the split test alone"),
    ):
        with pytest.raises(UserError, match=message):
            items(tmp_path, task, split)
    with pytest.raises(UserError, match="nowhere is no folder"):
        items(tmp_path / "nowhere", "arc_easy")


def test_multiple_choice_equals_the_harness_model(tokenizer, tmp_path, monkeypatch):
    """Same tasks, same items: our shared-prompt scoring against lm-eval's own forward passes, answer by answer.

    HellaSwag has no train split here, so its one example comes from the evaluated split.
    """
    both = ["acc_norm", "acc"]
    tasks = [("hellaswag", 1, both), ("arc_easy", 0, both), ("truthfulqa_mc2", 0, ["acc"])]
    chosen = suite(shared("data/eval"), *tasks, limit=3)
    ours = evaluate_model(tiny_model(), tokenizer, chosen, template("plain"), tmp_path / "ours")
    monkeypatch.setattr("winnow.evaluation.model.can_share_prompts", lambda model: False)
    stock = evaluate_model(tiny_model(), tokenizer, chosen, template("plain"), tmp_path / "stock")
    for mine, theirs in zip(_samples(ours), _samples(stock), strict=True):
        assert all(mine[key] == theirs[key] for key in ("task", "doc_id", "prompt_hash"))
        a, b = ([value for value, _ in row["filtered_resps"]] for row in (mine, theirs))
        assert a == pytest.approx(b, rel=1e-5, abs=1e-3)
    assert ours["metrics"].keys() == {f"{task}/{metric}" for task, _, metrics in tasks for metric in metrics}
    assert all(entry["n"] == 3 for entry in ours["metrics"].values())


def test_groups_and_generation(tokenizer, tmp_path):
    """A limit of 1 leaves one item for each of MMLU's 57 subjects; the group's accuracy is their plain mean.

    GSM8K's two filters keep their names; a 2,048-token window cannot hold five examples of one token per byte.
    """
    tasks = [("gsm8k", 5, ["exact_match,strict-match", "exact_match,flexible-extract"]), ("mmlu", 0, ["acc"])]
    result = evaluate_model(
        tiny_model(), tokenizer, suite(shared("data/eval"), *tasks, limit=1), template("plain"), tmp_path
    )
    group = result["metrics"]["mmlu/acc"]
    subjects = [value["value"] for key, value in result["subtasks"].items() if key.endswith("/acc") and value["n"] == 1]
    assert group["n"] == len(subjects) == 57
    assert group["value"] == pytest.approx(sum(subjects) / 57)
    assert list(result["metrics"]) == [
        "gsm8k/exact_match,strict-match",
        "gsm8k/exact_match,flexible-extract",
        "mmlu/acc",
    ]
    assert result["truncated_requests"] >= 1


def _samples(result) -> list[dict]:
    with open(result["samples"], encoding="utf-8") as file:
        return [json.loads(line) for line in file]
