"""What a tuned model is keyed by, beyond what test_start.py sees."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from composed import build

from winnow.data.records import Record
from winnow.stages.tune import Recipe
from winnow.tuning.adversary.none import NoAdversary

PLAIN = NoAdversary()


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


def test_other_noise_and_no_noise_do_not_look_at_it():
    """Fingerprints of models that did not read the column are what they were."""
    for noising in (None, build("noising/replacement")):
        assert meta(noising, {"dataset": "sst2"}) == meta(noising, {})
