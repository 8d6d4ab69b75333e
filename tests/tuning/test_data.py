"""Global batches, micro-batches and what is supervised."""

from __future__ import annotations

import pytest
from tiny_tuning import tuner

from winnow.data.templates import Encoded
from winnow.errors import UserError
from winnow.tuning.data import MicroBatches, check_sizes, collate, digest, plan_steps
from winnow.tuning.examples import EpochRecords, supervised_tokens


def record(number: int, ids: list[int], answer_start: int, flag: str | None = None) -> Encoded:
    return Encoded(f"{number:016x}", ids, answer_start, len(ids) - answer_start, {}, flag)


def test_only_answer_tokens_are_targets_each_from_the_position_before():
    """Record a = prompt 5 6, answer 7 1; record b = prompt 8, answer 9 (right-padded to length 4).

    Flattened positions: a has 0..3, b has 4..7. a's answers stand at 2 and 3, predicted from 1 and 2; b's
    stands at 5, predicted from 4. The last hidden state of a record predicts nothing.
    """
    ids, mask, rows, targets = collate([record(0, [5, 6, 7, 1], 2), record(1, [8, 9], 1)])
    assert ids.tolist() == [[5, 6, 7, 1], [8, 9, 0, 0]]
    assert mask.tolist() == [[True] * 4, [True, True, False, False]]
    assert rows.tolist() == [1, 2, 4]
    assert targets.tolist() == [7, 1, 9]


def test_an_answer_at_the_very_start_loses_its_first_token():
    """With an empty prompt and no BOS nothing stands before token 5: of 3 answer tokens 2 can be
    predicted."""
    bare = record(0, [5, 6, 1], 0)
    assert supervised_tokens(bare) == 2
    _, _, rows, targets = collate([bare])
    assert (rows.tolist(), targets.tolist()) == ([0, 1], [6, 1])


def test_flagged_and_unsupervised_records_are_counted_and_the_rest_ordered_by_id():
    records = [
        record(3, [5, 6, 1], 1),
        record(2, [5, 6], 2, "empty_answer"),
        record(1, [7, 1], 1),
        record(0, [5], 0),  # one token, nothing before it
        record(4, [5, 6], 2, "prompt_fills_window"),
    ]
    found = EpochRecords(records)
    assert [r.id for r in found.first] == [f"{1:016x}", f"{3:016x}"]
    assert found.dropped == {"empty_answer": 1, "no_answer_token": 1, "prompt_fills_window": 1}


def test_the_records_of_a_run_are_told_apart():
    """Another id, other tokens or another beginning of the answer would train other weights."""
    records = [record(0, [5, 6, 7, 1], 2), record(1, [5, 6, 7, 1], 2), record(0, [5, 6, 8, 1], 2)]
    records += [record(0, [5, 6, 7, 1], 1), record(0, [5, 6, 7, 1], 2)]
    found = [digest([one]) for one in records]
    assert len(set(found)) == 4 and found[0] == found[4]


def flat(step) -> list[int]:
    return sorted(i for micro in step.micro_batches for i in micro)


def test_each_epoch_uses_every_record_once_in_another_order():
    """10 records in batches of 4: steps of 4, 4 and 2 records per epoch, 3 epochs, 9 steps."""
    steps = plan_steps(list(range(5, 15)), 4, 2, seed=0, epochs=3)
    assert [step.epoch for step in steps] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert [len(flat(step)) for step in steps] == [4, 4, 2] * 3
    for epoch in range(3):
        assert sorted(i for s in steps if s.epoch == epoch for i in flat(s)) == list(range(10))
    assert [flat(s) for s in steps[:3]] != [flat(s) for s in steps[3:6]]


def test_the_plan_depends_on_seed_and_epoch_only():
    """Fewer epochs or steps cut the plan off and change nothing before the cut; another seed changes it."""
    lengths = list(range(5, 15))
    whole = plan_steps(lengths, 4, 2, seed=0, epochs=3)
    assert plan_steps(lengths, 4, 2, seed=0, epochs=1) == whole[:3]
    assert plan_steps(lengths, 4, 2, seed=0, epochs=1, max_steps=5) == whole[:5]
    assert plan_steps(lengths, 4, 2, seed=1, epochs=3) != whole


@pytest.mark.parametrize("micro_batch_size", [1, 2, 4])
def test_micro_batches_cut_the_same_global_batch_by_length(micro_batch_size):
    lengths = [3, 9, 4, 8, 5, 7, 6, 2]
    steps = plan_steps(lengths, 4, micro_batch_size, seed=0, epochs=1)
    assert [flat(s) for s in steps] == [flat(s) for s in plan_steps(lengths, 4, 4, seed=0, epochs=1)]
    for step in steps:
        assert {len(micro) for micro in step.micro_batches} == {micro_batch_size}
        in_order = [lengths[i] for micro in step.micro_batches for i in micro]
        assert in_order == sorted(in_order, reverse=True)


@pytest.mark.parametrize("world", [1, 2])
def test_processes_share_a_step_and_fill_up_with_empty_micro_batches(world):
    """5 records, batch 4, micro-batch 1: steps of 4 and 1 micro-batches. The accumulation is 4 / world for
    both steps, so the second has 3 empty ones; all processes together see each record once per epoch."""
    records = [record(i, [2] * (2 + i) + [1], 1) for i in range(5)]
    steps = plan_steps([len(r.ids) for r in records], 4, 1, seed=0, epochs=1)
    shards = [MicroBatches(records, steps, world, rank) for rank in range(world)]
    assert [shard.per_step for shard in shards] == [4 // world] * world
    everything = [shard[k] for shard in shards for k in range(len(shard))]
    assert sum(len(m.ids) == 0 for m in everything) == 3
    assert sorted(int(m.mask.sum()) for m in everything if len(m.ids)) == [3, 4, 5, 6, 7]
    for micro in everything:  # each process knows the token count of the whole step
        together = [m for m in everything if m.step == micro.step]
        assert micro.step_tokens == sum(len(m.targets) for m in together)
    assert {(m.step, m.number) for m in everything} == {(s, k) for s in range(2) for k in range(4)}


def test_a_resumed_loader_gives_exactly_the_rest():
    records = [record(i, [2] * (2 + i) + [1], 1) for i in range(6)]
    steps = plan_steps([len(r.ids) for r in records], 2, 1, seed=0, epochs=1)
    whole = [(m.step, m.number) for m in MicroBatches(records, steps)]
    first = MicroBatches(records, steps)
    given = iter(first)
    for _ in range(4):
        next(given)
    second = MicroBatches(records, steps)
    second.load_state_dict(first.state_dict())
    assert len(second) == len(whole) == 6  # Lightning counts on to the full length
    assert [(m.step, m.number) for m in second] == whole[4:]
    assert second.state_dict() == {"steps": 3}


@pytest.mark.parametrize(("batch", "micro"), [(6, 4), (0, 1), (4, 0)])
def test_sizes_that_do_not_divide_are_refused(batch, micro):
    with pytest.raises(UserError, match="tuning.batch_size"):
        check_sizes(batch, micro)


def test_a_batch_deals_out_over_any_number_of_processes():
    """8 records, 4 at a time: 2 processes take 4 each, 3 take 3, 3 and 2, 4 take 2 each, and of 16 eight take one."""
    own = tuner(batch_size=8, micro_batch_size=4)
    assert [own.at_once(processes) for processes in (1, 2, 3, 4, 16)] == [4, 4, 3, 2, 1]
