"""Records, a source and a runner for the tests of passes."""

from __future__ import annotations

import random
from pathlib import Path

import pyarrow as pa
from composed import template

from winnow.data.records import Record, record_id
from winnow.scoring.runner import PassRunner, PassTable
from winnow.store.artifacts import Store
from winnow.store.describe import Identified

TRAINER = {"accelerator": "cpu", "devices": 1, "enable_progress_bar": False}
WORDS = ["alpha", "beta", "gamma", "delta", "12", "?", "né", "🙂"]


class Loaded(Identified):
    """A source that hands out a backbone which is there already, and counts how often it is asked for."""

    def __init__(self, backbone):
        self.backbone, self.identity, self.tokenizer, self.loads = backbone, backbone.identity, backbone.tokenizer, 0

    def load(self):
        self.loads += 1
        return self.backbone


def record(instruction: str, given: str, output: str, row: int = 0) -> Record:
    return Record(record_id(instruction, given, output), row, instruction, given, output, (), "test", {})


def make_records(count: int = 24) -> list[Record]:
    """Records of very different lengths, every third with an input; row 5 has no answer, row 7 is too long for the
    window, and row 9 has neither instruction nor input."""
    draw, made = random.Random(3), []
    for row in range(count):
        instruction = "long " * 200 if row == 7 else " ".join(draw.choices(WORDS, k=draw.randint(1, 10)))
        given = " ".join(draw.choices(WORDS, k=draw.randint(1, 6))) if row % 3 == 0 else ""
        output = "" if row == 5 else " ".join(draw.choices(WORDS, k=draw.randint(1, 20)))
        if row == 9:
            instruction = given = ""
        made.append(record(instruction, given, output, row))
    return made


def sharper(backbone):
    """The tiny model with a head 8 times as large: as it is, next words differ by thousandths of a nat."""
    backbone.model.get_output_embeddings().weight.mul_(8)
    return backbone


def compute(backbone, records, folder: Path, pass_, budget: int = 512, shape=None) -> PassTable:
    """The columns of one pass under the alpaca template, or under `shape`."""
    runner = PassRunner(Loaded(backbone), Store(folder), TRAINER, tokens_per_batch=budget)
    return runner.compute(pass_, records, shape or template("alpaca"))


def columns(schema: pa.Schema, **given) -> PassTable:
    """A pass table of the records r0, r1, ... with these columns, None for one not given; others are null."""
    given = {name: values for name, values in given.items() if values is not None}
    rows = len(next(iter(given.values())))
    ids = [f"r{i}" for i in range(rows)]
    full = {"id": ids, "skipped": [0] * rows, "prompt_tokens": [3] * rows, "flag": [None] * rows} | given
    return PassTable(pa.table({name: full.get(name, [None] * rows) for name in schema.names}, schema=schema), ids)
