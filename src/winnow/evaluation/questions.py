"""A model's answers to a list of questions, written out for a judge: `winnow answer`.

Questions and answers are JSON Lines in the form of the Vicuna test set, which the consistency paper has judged by
AlpacaEval 2.0: `question_id`, `text`, `category`, and for an answer `question_id`, `text`, `answer_id`, `model_id`,
`metadata`. Who judges them is not our business: a judge is a model behind an API, or a person.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import OmegaConf

from winnow.backbone.causal_model import positions
from winnow.backbone.memory import on_device
from winnow.data.records import Record
from winnow.errors import UserError
from winnow.evaluation.greedy import greedy_answers
from winnow.evaluation.nlu import prompt_ids
from winnow.store.files import read_json, read_lines, write_lines
from winnow.store.run_folder import earlier_output
from winnow.tuning.saving import load_tuned


def read_questions(path: Path) -> list[dict[str, Any]]:
    """The questions of a file, each with `question_id` and `text`. Raises UserError at the first line that has not."""
    if not path.is_file():
        raise UserError(f"{path} does not exist: give a file of questions, JSON Lines with question_id and text.")
    questions = []
    for number, row in read_lines(path):
        if "question_id" not in row or not isinstance(row.get("text"), str):
            raise UserError(f"{path}, line {number}: question_id and text (a text) were expected; mend the line.")
        questions.append(row)
    if not questions:
        raise UserError(f"{path} holds no question; JSON Lines with question_id and text were expected.")
    return questions


def answer_rows(
    questions: Sequence[Mapping[str, Any]], answers: Sequence[str], model_id: str, metadata: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """A line for each answer. answer_id: a hash of model, question and answer, so that the same answer keeps it."""
    rows = []
    for question, text in zip(questions, answers, strict=True):
        key = json.dumps([model_id, question["question_id"], text])
        rows.append(
            {
                "question_id": question["question_id"],
                "text": text,
                "answer_id": hashlib.sha256(key.encode()).hexdigest()[:22],
                "model_id": model_id,
                "metadata": {**metadata, "category": question.get("category")},
            }
        )
    return rows


def answer_questions(run: Path, questions: Path, model: str, out: Path, max_tokens: int, batch_size: int = 8) -> Path:
    """Write the greedy answers of a run's model under the run's template, and return the file.

    run: a finished run's folder. model: `tuned`, or `base` for its backbone. Raises UserError for a folder without a
    run card or without a tuned model, and for a question that leaves too little room for an answer.
    """
    asked = read_questions(questions)
    card = run / "run_card.json"
    if not card.is_file():
        raise UserError(f"{run} is no folder of a run: it has no {card.name}; name the folder that a run wrote to.")
    config = OmegaConf.create(read_json(card, "config", cure="run it again")["config"])
    folder = earlier_output(run, "model", "tune").resolve() if model == "tuned" else None
    source, template = instantiate(config.backbone), instantiate(config.template)
    backbone = source.load()
    backbone = backbone if folder is None else load_tuned(backbone, folder)
    records = [Record(str(i), i, one["text"], "", "", (), "", {}) for i, one in enumerate(asked)]
    prompts = [tuple(ids) for ids in prompt_ids(records, template, backbone.tokenizer)]
    longest, limit = max(map(len, prompts)) + max_tokens, positions(backbone.model.config)
    if limit is not None and longest > limit:
        raise UserError(
            f"{questions}: the longest question and --max-tokens={max_tokens} make {longest} tokens, but the backbone "
            f"reads {limit}; lower --max-tokens or shorten the question."
        )
    moved = on_device(backbone.model, OmegaConf.to_container(config.trainer))
    texts = greedy_answers(moved, backbone.tokenizer, prompts, [], max_tokens, batch_size)
    about = {"template": template.name, "max_tokens": max_tokens, "temperature": 0.0}
    rows = answer_rows(asked, texts, f"{run.resolve().name}/{model}", about)
    write_lines(out, rows)
    return out
