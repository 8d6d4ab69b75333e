"""Several processes evaluate one model: one of them runs each request, and the numbers are those of one process."""

from __future__ import annotations

import json
import threading

import numpy as np
import pytest
import two_evaluations
from tiny import tiny_model
from trials import two

from winnow import distributed
from winnow.errors import UserError
from winnow.evaluation.model import _by_blocks


def in_group(monkeypatch, size: int, call) -> list:
    """What `call(rank)` returns or raises in each of `size` threads that stand for the processes of a group."""
    me, barrier, box, ends = threading.local(), threading.Barrier(size, timeout=10), [None] * size, [None] * size

    def from_all(value):
        box[me.rank] = value
        barrier.wait()
        found = list(box)
        barrier.wait()
        return found

    def run(rank: int) -> None:
        me.rank = rank
        try:
            ends[rank] = call(rank)
        except UserError as error:
            ends[rank] = error

    monkeypatch.setattr(distributed, "share", lambda items: items[me.rank :: size])
    monkeypatch.setattr(distributed, "from_all", from_all)
    threads = [threading.Thread(target=run, args=[rank]) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return ends


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_work_is_dealt_like_cards(monkeypatch, size):
    """Four items: process r of n takes items r, r + n, ...; with five processes one has nothing to do. All get the four
    results in the order of the items."""
    taken = {}

    def call(rank):
        return distributed.dealt("abcd", lambda own: taken.setdefault(rank, own).upper())

    assert in_group(monkeypatch, size, call) == [list("ABCD")] * size
    assert taken == {rank: "abcd"[rank::size] for rank in range(size)}


def test_an_error_of_one_process_ends_all(monkeypatch):
    def call(rank):
        def work(own):
            if rank == 1:
                raise UserError("broken here")
            return own

        return distributed.dealt("abcd", work)

    assert [str(end) for end in in_group(monkeypatch, 3, call)] == ["broken here"] * 3


def test_blocks_are_asked_at_once_and_come_back_in_order(monkeypatch):
    """Blocks 3 1 | 0 | 2 over two processes: the first asks for 3, 1 and 2 at once, the second for 0; over four the
    last asks for nothing. Result i is 10 i."""
    for size, expected in ((2, [[3, 1, 2], [0]]), (4, [[3, 1], [0], [2]])):
        asked = []

        monkeypatch.setattr("winnow.evaluation.model.join_in", lambda model: None)

        def call(_, asked=asked):
            return _by_blocks([[3, 1], [0], [2]], lambda own: asked.append(own) or [10 * i for i in own], None)

        assert in_group(monkeypatch, size, call) == [[0, 10, 20, 30]] * size
        assert sorted(asked) == sorted(expected)


@pytest.mark.slow
def test_two_processes_evaluate_as_one(tmp_path):
    """Requests of each kind, then the evaluate stage, in two gloo processes. Batches are those of one process, so
    numbers and texts are equal, not only close; without shared prompts likelihoods are in other batches, equal to
    rounding; with one model shared by both as well. Both processes run forward passes, neither as many as one alone.
    Weights that are broken in the second process alone end both with one sentence."""
    codes, output = two(two_evaluations.one_of_two, tmp_path / "two", log=tmp_path / "log")
    assert codes == [0, 0], output
    leader, follower = (json.loads((tmp_path / "two" / f"rank_{rank}.json").read_text()) for rank in range(2))
    models = {"tiny": tiny_model(), "windowed": two_evaluations.windowed()}
    answers = {name: two_evaluations.answers(model, 2) for name, model in models.items()}
    for name in ("tiny", "windowed", "shared tiny", "shared windowed"):
        alone, passes = answers[name.removeprefix("shared ")]
        alone = json.loads(json.dumps(alone))
        (found, own), (_, others) = leader["found"][name], follower["found"][name]
        assert alone["truncated"] == 2
        if "shared" not in name:  # where a process joins in besides
            assert 0 < own < passes and 0 < others < passes
        if "windowed" in name:
            for kind in ("loglikelihood", "loglikelihood_rolling"):
                assert np.allclose(found.pop(kind), alone.pop(kind), rtol=0, atol=1e-5)
        assert found == alone
    two_evaluations.stage(tmp_path / "one", 1)
    one, both = (json.loads((tmp_path / name / "results.json").read_text()) for name in ("one", "two"))
    assert both["models"]["base"]["metrics"] == one["models"]["base"]["metrics"] and one["headline"]
    samples = [next((tmp_path / name / "store").rglob("samples.jsonl")).read_text() for name in ("one", "two")]
    assert samples[0] == samples[1]
    assert "logits that are not a number" in leader["broken"] and follower["broken"] == leader["broken"]
