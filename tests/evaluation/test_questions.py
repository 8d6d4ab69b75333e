"""The answers of a run's model to a list of questions, as a judge reads them."""

from __future__ import annotations

import hashlib
import json

import pytest
from composed import config
from omegaconf import OmegaConf
from tiny import tiny_model, tiny_tokenizer

from winnow.commands import answer
from winnow.errors import UserError
from winnow.evaluation.questions import answer_rows, read_questions
from winnow.store.files import write_lines

QUESTIONS = [{"question_id": 1, "text": "Hi?", "category": "generic"}, {"question_id": 7, "text": "Why?"}]


@pytest.fixture
def questions(tmp_path):
    path = tmp_path / "questions.jsonl"
    path.write_text("\n\n".join(json.dumps(one) for one in QUESTIONS) + "\n")
    return path


def test_rows_have_the_published_form():
    """question_id as given; answer_id the first 22 digits of SHA-256 over [model, question, answer] as JSON."""
    first, second = answer_rows(QUESTIONS, ["a", "b"], "run/tuned", {"max_tokens": 5})
    wanted = hashlib.sha256(b'["run/tuned", 7, "b"]').hexdigest()[:22]
    assert second["answer_id"] == wanted and second["metadata"] == {"max_tokens": 5, "category": None}
    assert first["question_id"] == 1 and first["text"] == "a" and first["model_id"] == "run/tuned"
    assert list(first) == ["question_id", "text", "answer_id", "model_id", "metadata"]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ('{"question_id": 1, "text": "a"}\n{"question_id"', "line 2: no JSON"),
        ('{"question_id": 1}', "line 1: question_id and text"),
        ('{"text": "a"}', "line 1: question_id and text"),
        ("\n", "holds no question"),
    ],
)
def test_bad_files_are_named(tmp_path, content, told):
    (tmp_path / "q.jsonl").write_text(content)
    with pytest.raises(UserError, match=told):
        read_questions(tmp_path / "q.jsonl")
    with pytest.raises(UserError, match="does not exist"):
        read_questions(tmp_path / "absent.jsonl")


def test_a_question_may_hold_any_line_separator(tmp_path):
    """U+2028 and U+0085 end no line of JSON, and half a surrogate pair is written as JSON reads it."""
    row = {"question_id": 1, "text": "a\u2028b\u0085c\ud83d"}
    write_lines(tmp_path / "q.jsonl", [row])
    assert read_questions(tmp_path / "q.jsonl") == [row]


def test_the_command_answers_with_the_runs_backbone_and_template(tmp_path, questions, monkeypatch):
    """A run card is enough for `base`. The prompt is the run's template around the question: seen by what is asked of
    the model. A run without a tuned model is told apart."""
    tiny_model().save_pretrained(tmp_path / "backbone")
    tiny_tokenizer().save_pretrained(tmp_path / "backbone")
    run, asked = tmp_path / "run", []
    run.mkdir()
    cfg = config(
        f"backbone.name={tmp_path / 'backbone'}",
        "backbone.dtype=fp32",
        "template=plain",
        "trainer=cpu",
        "paths.run=run",
    )
    parts = {key: OmegaConf.to_container(cfg, resolve=True)[key] for key in ("backbone", "template", "trainer")}
    (run / "run_card.json").write_text(json.dumps({"config": parts}))

    def greedy(model, tokenizer, prompts, until, max_tokens, batch_size):
        asked.extend(tokenizer.decode(list(ids)) for ids in prompts)
        return [f"answer {i} of {max_tokens}" for i in range(len(prompts))]

    monkeypatch.setattr("winnow.evaluation.questions.greedy_answers", greedy)
    answer([str(run), str(questions), "--model", "base", "--max-tokens", "3"])
    rows = [json.loads(line) for line in (run / "answers-base.jsonl").read_text().splitlines()]
    assert [row["text"] for row in rows] == ["answer 0 of 3", "answer 1 of 3"]
    assert [row["question_id"] for row in rows] == [1, 7] and rows[0]["model_id"] == "run/base"
    assert len(asked) == 2 and "Hi?" in asked[0] and "Why?" in asked[1]
    with pytest.raises(UserError, match="--max-tokens=9999 make .* tokens, but the backbone reads .*; lower --max-tok"):
        answer([str(run), str(questions), "--model", "base", "--max-tokens", "9999"])
    with pytest.raises(UserError, match="the stage `tune` makes it"):
        answer([str(run), str(questions)])
    with pytest.raises(UserError, match="is no folder of a run"):
        answer([str(tmp_path), str(questions)])
