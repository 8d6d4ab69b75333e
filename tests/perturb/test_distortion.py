"""Distortion beta: by hand on three sentences, its limits, and its bounds."""

from __future__ import annotations

import io
import json
import math
from functools import partial

import pytest
import torch
from composed import build

from winnow.errors import UserError
from winnow.perturb import distortion as module
from winnow.perturb.distortion import RuleDistortion

embedding = partial(build, "distortion/embedding")
openai = partial(build, "distortion/openai")

RAW = ["find all names in it", "list the colours", "say which topic fits the text"]


def test_rule_by_hand():
    """Word distances: one replaced = 1; two dropped of three, none added = 2; `a b` added before = 2, one replaced = 1,
    together 3. Min 1, max 3: (0 + 1/2 + 1) / 3 = 0.5."""
    noisy = ["find all lemons in it", "list", "a b say which topic fits the ocean"]
    assert RuleDistortion()(RAW, noisy) == pytest.approx(0.5)


def test_rule_counts_words_not_characters():
    """A changed letter changes a word: distances 1, 1 and 0, normalised 1, 1, 0: 2/3."""
    noisy = ["find all names in its", "fist the colours", RAW[2]]
    assert RuleDistortion()(RAW, noisy) == pytest.approx(2 / 3)


def test_equal_distances_are_taken_relative_to_the_length(caplog):
    """One word replaced everywhere, of 5, 3 and 6 words: (1/5 + 1/3 + 1/6) / 3 = 0.7/3, with a warning."""
    noisy = ["find all lemons in it", "list the lemons", "say which lemon fits the text"]
    assert RuleDistortion()(RAW, noisy) == pytest.approx(0.7 / 3)
    assert "min-max normalisation says nothing" in caplog.text


def test_the_degenerate_case_stays_within_one():
    """Ten words for one: d / n would be 10; it counts as 1. Nothing changed at all: 0."""
    assert RuleDistortion()(["go"], ["a b c d e f g h i j"]) == 1.0
    assert RuleDistortion()(RAW, RAW) == 0.0


def test_lists_must_be_aligned():
    for raw, noisy in (([], []), (RAW, RAW[:2])):
        with pytest.raises(ValueError, match="as many of each"):
            RuleDistortion()(raw, noisy)


def test_cosines_by_hand(monkeypatch):
    """Vectors (1,0) -> (0,1): 1 - 0 = 1; (1,0) -> (1,1): 1 - 1/sqrt 2; (1,0) -> (-1,0): 2, counted as 1."""
    vectors = {"a": (1.0, 0.0), "b": (0.0, 3.0), "c": (2.0, 2.0), "d": (-1.0, 0.0)}
    monkeypatch.setattr(module.SentenceEncoder, "load", lambda self: None)
    monkeypatch.setattr(module, "text_vectors", lambda _, texts, *sizes: torch.tensor([vectors[t] for t in texts]))
    found = embedding()(["a", "a", "a"], ["b", "c", "d"])
    assert found == pytest.approx((1 + 1 - 1 / math.sqrt(2) + 1) / 3)


@pytest.mark.slow
def test_the_sentence_encoder_sees_meaning():
    """0 for the same text, whatever stands beside it in the batch; a paraphrase is nearer than another topic."""
    encoder = embedding(batch_size=2)
    assert encoder(RAW, RAW) == pytest.approx(0, abs=1e-6)
    near = encoder(["Find the named entities in the text."], ["Extract all named entities from this text."])
    far = encoder(["Find the named entities in the text."], ["A slice of apple keeps bread fresh for a week."])
    assert 0 < near < 0.4 < far <= 1
    together = encoder(
        ["Find the named entities in the text.", RAW[0]], ["Extract all named entities from this text.", RAW[0]]
    )
    assert together == pytest.approx(near / 2, abs=1e-5)


def test_openai_is_asked_for_what_it_documents(monkeypatch):
    """One request with model and texts, the key in the header; the answer is ordered by `index`. Nothing is sent."""
    sent = []

    def urlopen(request, timeout):
        sent.append((request, timeout))
        rows = [{"index": i, "embedding": [1.0, float(i)]} for i in range(2)]
        return io.BytesIO(json.dumps({"data": rows[::-1]}).encode())

    monkeypatch.setattr(module.urllib.request, "urlopen", urlopen)
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    beta = openai(model="m", timeout=5)(["a"], ["b"])
    assert beta == pytest.approx(1 - 1 / math.sqrt(2))  # (1, 0) and (1, 1)
    (request, timeout), *others = sent
    assert not others and timeout == 5 and request.get_header("Authorization") == "Bearer k"
    assert json.loads(request.data) == {"model": "m", "input": ["a", "b"]}


def test_openai_without_key_or_network(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(UserError, match="OPENAI_API_KEY"):
        openai()(["a"], ["b"])
    monkeypatch.setenv("OPENAI_API_KEY", "k")

    def urlopen(request, timeout):
        raise module.urllib.error.URLError("no network")

    monkeypatch.setattr(module.urllib.request, "urlopen", urlopen)
    with pytest.raises(UserError, match="no network.*distortion=embedding"):
        openai()(["a"], ["b"])
