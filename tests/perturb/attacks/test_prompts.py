"""Attacked prompts as an artifact: once, resumable, the same from one process and from two."""

from __future__ import annotations

import itertools
import json
import os
import random
from pathlib import Path

import editdistance
import pytest
from rapidfuzz.distance import Levenshtein
from six_attacks import CACHE, INSTRUCTIONS, KINDS, attack_of, record
from trials import context, fork

from winnow.distributed import join, rank
from winnow.errors import UserError
from winnow.perturb.attacks import prompts
from winnow.perturb.attacks.base import EMPTY_INSTRUCTION
from winnow.perturb.attacks.prompts import attacked_prompts, worker_pool
from winnow.store.artifacts import Store

RECORDS = [record(f"{text} Variant {i} of many.", i) for i, text in enumerate(INSTRUCTIONS * 6)]


def rows(table) -> list[dict]:
    return [{k: v for k, v in row.items() if k != "similarity"} for row in table.table.to_pylist()]


def test_made_once_and_lined_up_with_the_records(tmp_path, monkeypatch):
    """Copies of a record share one row; the second call computes nothing; order of the records does not matter."""
    attack, store = attack_of("checklist"), Store(tmp_path)
    records = [record("Name a river."), record("  "), record("Name a river.", 7)]
    table = attacked_prompts(attack, records, store, progress=False)
    prompt = table.prompts()[0]
    assert prompt.startswith("Name a river. ") and table.prompts() == [prompt, None, prompt]
    assert table.flags() == [None, EMPTY_INSTRUCTION, None] and len(table) == 3
    columns = table.table.to_pydict()
    assert columns["edit_distance"] == [11, None, 11] and columns["words_changed"] == [1, 0, 1]
    assert columns["success"] == [True, False, True] and columns["resources"] == ["offline"] * 3
    assert 0.3 < columns["similarity"][0] < 1 and columns["similarity"][1] is None
    monkeypatch.setattr(prompts, "_make", None)
    again = attacked_prompts(attack, records[::-1], store, progress=False)
    assert rows(again) == rows(table)[::-1] and again.fingerprint == table.fingerprint
    assert (table.origin, again.origin) == ("computed", "reused")


def test_a_similarity_belongs_to_its_record():
    """In one chunk, where the shorter text is encoded first, as alone. What is put behind a short text changes more."""
    attack, texts = attack_of("checklist"), [("a", "Name a river that flows through many lands."), ("b", "Go.")]
    alone = [prompts.rows_of(attack, [one])["similarity"][0] for one in texts]
    assert prompts.rows_of(attack, texts)["similarity"] == pytest.approx(alone, abs=1e-5)
    assert alone[0] > alone[1] + 0.01


def test_an_attack_that_fails_on_one_text_flags_it(tmp_path, monkeypatch):
    """The error is the flag, and the other record has its prompt; what the machine cannot do still ends the run."""
    attack, errors = attack_of("checklist"), {"Name a river.": IndexError("string index\nout of range")}

    def fails(record_id, instruction, losses=None):
        if instruction in errors:
            raise errors[instruction]
        return KINDS["checklist"].attack(attack, record_id, instruction, losses)

    monkeypatch.setattr(attack, "attack", fails, raising=False)
    records = [record("Name a river."), record("Name a lake.")]
    table = attacked_prompts(attack, records, Store(tmp_path / "one"), progress=False)
    assert table.flags() == ["attack_fails: IndexError: string index out of range", None]
    errors["Name a lake."] = RuntimeError("out of memory")
    with pytest.raises(RuntimeError):
        attacked_prompts(attack, records, Store(tmp_path / "two"), progress=False)


def test_edit_distance_is_textattacks():
    """`kitten` to `sitting` takes 3 edits, two substitutions and an insertion. TextAttack's constraints count with
    another package: both agree on every pair, also where letters have accents or take two units in UTF-16, or half of
    such a letter stands alone."""
    assert Levenshtein.distance("kitten", "sitting") == editdistance.eval("kitten", "sitting") == 3
    draw = random.Random(0)
    letters = "ab \u00e9e\u0301\U0001f600\ud83d\n"
    texts = [*INSTRUCTIONS, "", *("".join(draw.choices(letters, k=draw.randrange(40))) for _ in range(200))]
    for a, b in itertools.pairwise(texts):
        assert Levenshtein.distance(a, b) == editdistance.eval(a, b)


def test_goes_on_where_it_was_interrupted(tmp_path, monkeypatch):
    """Stopped in the third chunk of three: what was finished is on disk, and only the rest is made."""
    attack, store = attack_of("stresstest"), Store(tmp_path)
    whole = rows(attacked_prompts(attack, RECORDS, Store(tmp_path / "whole"), progress=False))
    seen: list[str] = []

    def stops(record_id, instruction, losses=None):
        if len(seen) == 2 * prompts.CHUNK:
            raise KeyboardInterrupt
        seen.append(record_id)
        return KINDS["stresstest"].attack(attack, record_id, instruction, losses)

    monkeypatch.setattr(attack, "attack", stops, raising=False)
    with pytest.raises(KeyboardInterrupt):
        attacked_prompts(attack, RECORDS, store, progress=False)
    first, seen[:] = list(seen), []
    monkeypatch.setattr(prompts, "CHUNK", 1000)
    table = attacked_prompts(attack, RECORDS, store, progress=False)
    assert len(first) == 32 and sorted(first + seen) == sorted(r.id for r in RECORDS)
    assert rows(table) == whole and table.origin == "resumed"


@pytest.fixture
def quick_start(monkeypatch):
    """Workers have the imports when they start; test_workers_end_with_their_leader starts them as users do."""
    monkeypatch.setattr(prompts, "get_context", lambda _: context())


@pytest.mark.slow
def test_one_process_or_two_make_the_same_prompts(tmp_path, monkeypatch, quick_start):
    """Two attacks in this process, and in two others that serve both and load the attacks' resources anew."""
    monkeypatch.setattr(prompts, "CHUNK", 3)
    with worker_pool(2) as pool:
        for name in ("deepwordbug", "textbugger"):
            attack, stores = attack_of(name, cache=CACHE), [Store(tmp_path / folder) for folder in ("alone", "pool")]
            alone = attacked_prompts(attack, RECORDS[:12], stores[0], progress=False)
            made = attacked_prompts(attack, RECORDS[:12], stores[1], progress=False, pool=pool)
            assert rows(made) == rows(alone)
            similarity = alone.table["similarity"].to_pylist()
            assert made.table["similarity"].to_pylist() == pytest.approx(similarity, abs=1e-5)


@pytest.mark.slow
def test_a_dead_worker_is_one_sentence(tmp_path, quick_start):
    shared = {"search": "random", "resources": "offline", "seed": 0, "query_budget": 200, "cache": CACHE}
    deadly = Deadly(name="stresstest", **shared)
    with pytest.raises(UserError, match="attack.processes=1"), worker_pool(2) as pool:
        attacked_prompts(deadly, RECORDS, Store(tmp_path), progress=False, pool=pool)


class Deadly(KINDS["stresstest"]):
    """Takes its process with it."""

    def attack(self, record_id, instruction, losses=None):
        import os

        os._exit(1)


def test_greedy_needs_someone_to_ask(tmp_path):
    with pytest.raises(ValueError, match="answer_loss"):
        attacked_prompts(attack_of("checklist", search="greedy"), RECORDS, Store(tmp_path), progress=False)


def test_greedy_prompts_belong_to_what_gave_the_losses(tmp_path):
    """Those of another backbone are others in the store; a random search asks for no loss."""

    def key(search: str, backbone: str) -> str:
        attack, losses = attack_of("checklist", search=search), lambda _, texts: list(map(float, range(len(texts))))
        records, settings = [record("Name a river.")], {"progress": False}
        return attacked_prompts(attack, records, Store(tmp_path), losses, {"name": backbone}, **settings).fingerprint

    assert key("greedy", "one") != key("greedy", "other") and key("random", "one") == key("random", "other")


def make_share(folder: Path) -> None:
    """What each task of a Slurm job runs; it writes down what it made."""
    made, real = [], prompts.rows_of
    join()
    prompts.rows_of = lambda attack, texts, asks=None: made.extend(one for one, _ in texts) or real(attack, texts, asks)
    table = attacked_prompts(attack_of("checklist"), RECORDS, Store(folder / "store"), progress=False)
    (folder / f"rank_{rank()}.json").write_text(json.dumps({"made": made, "prompts": table.prompts()}))


@pytest.mark.slow
def test_every_task_of_a_slurm_job_makes_its_share(tmp_path):
    """Two processes with the variables of `srun --ntasks=2`: each record is made by one of them, half by each, and both
    then have all prompts, the same as one process makes."""
    job = {"SLURM_JOB_ID": str(os.getpid()), "SLURM_JOB_NAME": "winnow", "SLURM_NODELIST": "127.0.0.1"}
    job |= {"SLURM_NTASKS": "2", "SLURM_STEP_NUM_TASKS": "2", "SLURM_NTASKS_PER_NODE": "2", "SLURM_NODEID": "0"}
    logs = [tmp_path / f"log_{task}" for task in range(2)]
    tasks = [
        fork(make_share, tmp_path, log=log, SLURM_PROCID=str(task), SLURM_LOCALID=str(task), **job)
        for task, log in enumerate(logs)
    ]
    for task in tasks:
        task.join(300)
    assert [task.exitcode for task in tasks] == [0, 0], [log.read_text() for log in logs]
    one, two = (json.loads((tmp_path / f"rank_{task}.json").read_text()) for task in range(2))
    unique = {record.id for record in RECORDS}
    assert not set(one["made"]) & set(two["made"]) and set(one["made"]) | set(two["made"]) == unique
    assert abs(len(one["made"]) - len(two["made"])) <= 1
    alone = attacked_prompts(attack_of("checklist"), RECORDS, Store(tmp_path / "alone"), progress=False)
    assert one["prompts"] == two["prompts"] == alone.prompts()
