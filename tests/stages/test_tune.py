"""What a selection and a tuned model are keyed by, beyond what test_start.py and test_pipeline.py see."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from composed import build

from winnow.data.records import Record
from winnow.stages.select import selection_identity
from winnow.stages.tune import Recipe
from winnow.tuning.adversary.none import NoAdversary

PLAIN, OTHER = NoAdversary(), build("adversary/fgm")  # they stand for any part


def meta(noising, *raws: dict) -> dict:
    records = [Record(f"r{i}", i, "one two three", "", "x", (), "test", raw) for i, raw in enumerate(raws)]
    runner = SimpleNamespace(source=PLAIN)
    return Recipe(PLAIN, None, runner, PLAIN, PLAIN, noising, lambda: None).identity(records, None)


@pytest.mark.parametrize("name", ["padding", "opposite"])
def test_noise_that_reads_the_data_set_is_keyed_by_it(name):
    """Same ids, other data sets: other noised words, so another model. Without the column the key is what it was."""
    noising = build(f"noising/{name}")
    bare = meta(noising, {}, {})
    assert set(bare) == {"version", "records", "tuner", "adversary", "backbone", "template", "noising"}
    sst2 = meta(noising, {"dataset": "sst2"}, {"dataset": "sst2"})
    conll = meta(noising, {"dataset": "sst2"}, {"dataset": "conll03"})
    assert sst2["noising_reads"] != conll["noising_reads"] and "noising_reads" not in bare
    assert meta(noising, {"dataset": "sst2", "x": 1}, {"dataset": "sst2"}) == sst2


def test_every_part_and_every_record_counts():
    """Another tuner, backbone, template, adversary, measure of distortion or record is another model; another order of
    the records is not."""
    records = [Record(f"r{i}", i, "one two three", "", "x", (), "test", {}) for i in range(3)]
    own = {"tuner": PLAIN, "source": PLAIN, "template": PLAIN, "adversary": build("adversary/nrm"), "measure": PLAIN}

    def key(records, **changes) -> dict:
        tuner, source, template, adversary, measure = (own | changes).values()
        noising, runner = build("noising/replacement"), SimpleNamespace(source=source)
        return Recipe(tuner, None, runner, template, adversary, noising, lambda: measure).identity(records, None)

    found = [key(records), key(records[1:]), *(key(records, **{name: OTHER}) for name in own)]
    assert all(one not in found[:i] for i, one in enumerate(found)) and key(records[::-1]) == found[0]


def test_a_selection_is_keyed_by_its_vectors_and_whether_repeats_stay():
    """The backbone and the template of the selection's own passes count, and `data.duplicates`; the ratio does not for
    a method that takes all."""
    selection = {ratio: build("selection/k_center", ratio=ratio) for ratio in (0.1, 0.2)}

    def key(ratio=0.1, all_=False, keep=False, made="one") -> dict:
        method, pool = SimpleNamespace(takes_all=all_, filters=[]), SimpleNamespace(keep_duplicates=keep)
        runner = SimpleNamespace(made_with=lambda pass_, template: made)
        return selection_identity({}, method, selection[ratio], pool, runner, None)

    found = [key(), key(ratio=0.2), key(all_=True), key(keep=True), key(made="other")]
    assert all(one not in found[:i] for i, one in enumerate(found)) and key(0.2, all_=True) == found[2]


def test_other_noise_and_no_noise_do_not_look_at_it():
    """Fingerprints of models that did not read the column are what they were."""
    for noising in (None, build("noising/replacement")):
        assert meta(noising, {"dataset": "sst2"}) == meta(noising, {})
