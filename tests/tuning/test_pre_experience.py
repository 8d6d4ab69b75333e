"""The sample on which a model is tuned a little before it scores."""

from __future__ import annotations

import numpy as np
from composed import template
from tiny_passes import TRAINER, Loaded, make_records
from tiny_tuning import tuner

from winnow.scoring.runner import PassRunner
from winnow.store.artifacts import Store
from winnow.tuning.pre_experience import PreExperience


def test_the_sample_by_hand():
    """Clusters of 8, 2 and 1 prompts, 2 of each. Of the perplexities 1 to 8 the quartiles are 2.75 and 6.25: 3, 4, 5
    and 6 lie between, of which every second. Between the quartiles 3 and 7 of 1 and 9 lies none. One is fewer than 2,
    and taken as it is."""
    vectors = np.repeat([[0.0, 0.0], [50.0, 0.0], [0.0, 50.0]], [8, 2, 1], axis=0)
    perplexity = np.array([8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0, 1.0, 9.0, 5.0])
    order = np.array([10, 0, 1, 8, 2, 3, 4, 9, 5, 6, 7])
    found = PreExperience(tuner(), clusters=3, per_cluster=2, low=25, high=75, seed=0).sample(
        vectors[order], perplexity[order]
    )
    assert order[found].tolist() == [10, 2, 4]


def test_only_what_can_be_tuned_on_is_in_the_sample(backbone, tmp_path, monkeypatch):
    """22 of 24 records have a prompt and an answer that fit. Each is a cluster of its own, which is taken whole."""
    picked, records, alpaca = [], make_records(), template("alpaca")
    monkeypatch.setattr("winnow.tuning.pre_experience.tune_once", lambda *given: picked.extend(given[3]) or tmp_path)
    runner = PassRunner(Loaded(backbone), Store(tmp_path), TRAINER)
    PreExperience(tuner(), clusters=100, per_cluster=10, low=25, high=75, seed=0).prepare(runner, records, alpaca)
    encoded = alpaca.encode(records, backbone.tokenizer)
    usable = [record for record, one in zip(records, encoded, strict=True) if one.flag is None]
    assert picked == usable and len(usable) == 22
