"""Examples that differ from epoch to epoch."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from tiny_tuning import CPU, difference, tiny_backbone, tiny_records, tuner

from winnow.errors import UserError
from winnow.store.describe import Free
from winnow.tuning.adversary.none import NoAdversary
from winnow.tuning.data import MicroBatches, Step
from winnow.tuning.examples import EpochRecords

SETTINGS = {"mode": "full", "epochs": 3, "batch_size": 4, "micro_batch_size": 2, "checkpoint_every_steps": 1}


def longer(record, epoch: int):
    """The record with `epoch` words put before its prompt."""
    begin, end = record.spans["instruction"]
    return replace(
        record,
        ids=[7] * epoch + record.ids,
        answer_start=record.answer_start + epoch,
        spans={"instruction": (begin + epoch, end + epoch)},
    )


def flagged(record):
    return replace(record, ids=[], answer_start=0, flag="prompt_fills_window")


def noised(epoch: int) -> list:
    return [longer(record, epoch) for record in tiny_records(10)]


def tune(folder, of=noised, raw=None, noising="longer", adversary=None, **settings):
    examples = EpochRecords(raw or tiny_records(10), of, of and {"name": noising})
    return tuner(**{**SETTINGS, **settings}).fit(tiny_backbone(), examples, folder, adversary, trainer_args=CPU)


class Lengths(NoAdversary):
    """Keeps the number of real tokens of each micro-batch, and stops after some."""

    def __init__(self, stop: Free[int | None] = None) -> None:
        self.seen, self.stop = [], stop

    def loss(self, loss_of, embeds, mask):
        if len(self.seen) == self.stop:
            raise KeyboardInterrupt
        self.seen.append(int(mask.sum()))
        return loss_of(embeds)


def test_each_epoch_trains_on_its_own_form(tmp_path):
    """10 records, batches of 4: 3 steps per epoch, the last of 2 records. Each record is longer by `epoch` tokens: with
    T tokens in epoch 0 there are T + 10 in epoch 1 and T + 20 in epoch 2. Answers stay what they are."""
    adversary = Lengths()
    result = tune(tmp_path, adversary=adversary)
    tokens = sum(len(record.ids) for record in tiny_records(10))
    assert [sum(adversary.seen[k : k + 5]) for k in (0, 5, 10)] == [tokens, tokens + 10, tokens + 20]
    assert result["steps"] == 9 and result["noising"] == {"name": "longer"}
    assert json.loads((tmp_path / "tuning.json").read_text()) == result


def test_the_same_form_in_every_epoch_is_the_plain_run(tmp_path):
    plain = tune(tmp_path / "plain", None)
    same = tune(tmp_path / "same", lambda epoch: tiny_records(10))
    assert plain["train_loss"] == same["train_loss"] and plain["noising"] is None
    assert difference(tmp_path / "plain", tmp_path / "same") == 0
    tune(tmp_path / "noised")
    assert difference(tmp_path / "plain", tmp_path / "noised") > 1e-5


def test_a_step_counts_its_own_epochs_answer_tokens():
    """Record 3 has 4 answer tokens, cut to 2 in epoch 1; record 2 has 3: T is 7, then 5."""
    records = tiny_records(10)

    def of(epoch):
        return [replace(r, ids=r.ids[:-2]) if epoch and r is records[3] else r for r in records]

    data = MicroBatches(of, [Step(0, [[2], [3]]), Step(1, [[2], [3]])])
    assert [data[k].step_tokens for k in range(4)] == [7, 7, 5, 5]
    assert [len(data[k].targets) for k in range(4)] == [3, 4, 3, 2]


def test_stopped_and_resumed_in_a_later_epoch(tmp_path):
    """15 micro-batches: stopped at the 9th, in the second epoch. The rest is the rest of the uninterrupted run."""
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        tune(tmp_path / "parts", adversary=Lengths(stop=8))
    report = tune(tmp_path / "parts", adversary=Lengths())
    expected = tune(tmp_path / "whole", adversary=Lengths())
    assert report["resumed_from"] == 4 and report["train_loss"] == expected["train_loss"]
    assert difference(tmp_path / "parts", tmp_path / "whole") < 1e-6


def test_checkpoints_of_another_noising_are_refused(tmp_path):
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        tune(tmp_path, adversary=Lengths(stop=8))
    with pytest.raises(UserError, match="'longer'.* then, .*'shuffle'.* now"):
        tune(tmp_path, noising="shuffle")


def test_where_noise_leaves_nothing_the_record_stays_raw(tmp_path):
    """Record 1 fills the window when noised, record 2 cannot be trained on in its raw form: 9 of 10 records, and one
    fallback in each of the epochs 0 and 1."""
    raw = tiny_records(10)
    raw[2] = flagged(raw[2])

    def with_one_flagged(epoch):
        return [flagged(r) if i == 1 else r for i, r in enumerate(noised(epoch))]

    kept = {record.id: record for record in EpochRecords(raw, with_one_flagged)(1)}
    assert kept[raw[1].id] == raw[1] and raw[2].id not in kept and kept[raw[3].id] == longer(raw[3], 1)
    result = tune(tmp_path, with_one_flagged, raw, epochs=2)
    assert (result["records"], result["dropped"]) == (9, {"prompt_fills_window": 1})
    assert result["noise_fallbacks"] == {"0": 1, "1": 1}


def test_an_epoch_has_the_records_of_the_pool_in_their_order():
    """Taken by position, another order would train on one record twice and on another not at all."""
    raw = tiny_records(4)
    with pytest.raises(RuntimeError, match="the records of epoch 1 are not those that are tuned on, in their order"):
        EpochRecords(raw, lambda epoch: raw[::-1] if epoch else raw)(1)


def test_an_epoch_is_made_once_and_only_one_is_kept():
    """Positions are asked for in order; coming back to an earlier epoch makes it again."""
    made = []

    def of(epoch):
        made.append(epoch)
        return noised(epoch)

    records = EpochRecords(tiny_records(10), of)
    for epoch in (0, 0, 1, 1, 2, 0):
        assert [len(r.ids) for r in records(epoch)] == [len(r.ids) for r in noised(epoch)]
    assert made == [0, 1, 2, 0]


def test_the_instruction_of_each_form_is_known():
    """Record 1 has a prompt of 3 tokens, instruction 1 to 2; one word before it in epoch 1 moves that to 2 to 3."""
    data = MicroBatches(noised, [Step(0, [[1]]), Step(1, [[1]])])
    assert [torch.where(data[k].regions["instruction"][0])[0].tolist() for k in range(2)] == [[1, 2], [2, 3]]
