"""Distortion beta: by hand on three sentences, its limits, and its bounds."""

from __future__ import annotations

import io
import json
import math
from functools import partial
from itertools import product

import pytest
import torch
from composed import build

from winnow.data.nlu.instructions import INSTRUCTIONS, STYLES
from winnow.data.records import Record
from winnow.errors import UserError
from winnow.perturb import distortion as module
from winnow.perturb.distortion import RuleDistortion
from winnow.tuning.examples import distortion_of

embedding = partial(build, "distortion/embedding")
openai = partial(build, "distortion/openai")


def record(instruction: str, number: int) -> Record:
    return Record(f"{number:016x}", number, instruction, "", "yes", (), "", {})


RAW = ["find all names in it", "list the colours", "say which topic fits the text"]


def test_rule_by_hand():
    """Word distances: one replaced = 1; two dropped of three, none added = 2; `a b` added before = 2, one replaced = 1,
    together 3. Min 1, max 3: (0 + 1/2 + 1) / 3 = 0.5."""
    noisy = ["find all lemons in it", "list", "a b say which topic fits the ocean"]
    assert RuleDistortion()(RAW, noisy) == pytest.approx(0.5)


def test_rule_with_equal_distances_among_others():
    """One word replaced, and three of each of two others: d = 1, 3, 3, min 1, max 3: (0 + 1 + 1) / 3 = 0.6667."""
    raw = ["find all names in it", "say which topic fits", "list the colours of it"]
    noisy = ["find all lemons in it", "a b c fits", "list a b c it"]
    assert RuleDistortion()(raw, noisy) == pytest.approx(0.6667, abs=5e-5)


def words(n: int) -> str:
    """n different words that no list of noise words and no prepared text holds."""
    return " ".join(f"w{i}x" for i in range(n))


@pytest.mark.parametrize("name", ["truncation", "insertion", "replacement", "padding", "opposite", "shuffling"])
def test_each_noise_on_several_instructions_by_hand(name):
    """Raw instructions of 5, 10 and 20 words at omega 0.2: m = 1, 2, 4.

    Truncation, insertion and padding change the length by m, replacement m words in place: d = m, and eq. 1 gives 0,
    (2 - 1) / (4 - 1) and 1, of mean 4/9. Opposite, on 40, 50 and 70 words: no word of the prepared text of at most 40
    words stands in the raw one, so that d = n: 0, 1/3 and 1, again 4/9. Shuffling moves a block of m words over k: the
    shorter one is deleted and inserted again, d = 2 min(m, k); k is drawn, so eq. 1 is evaluated from it."""
    sizes = (40, 50, 70) if name == "opposite" else (5, 10, 20)
    noising, raw = build(f"noising/{name}", omega=0.2, phi=1.0, seed=0), [words(n) for n in sizes]
    noisy = [noising.noisy(text, f"record {i}", raw={"dataset": "sst2"}) for i, text in enumerate(raw)]
    wanted = 4 / 9
    if name == "shuffling":
        found = []
        for text, moved, m in zip(raw, noisy, (1, 2, 4), strict=True):
            one, other = text.split(), moved.split()
            # From the front the words behind the block come first, from the rear those before it stay.
            first = next(i for i, (a, b) in enumerate(zip(one, other, strict=True)) if a != b)
            last = next(i for i in range(len(one), 0, -1) if one[i - 1] != other[i - 1])
            found.append(2 * min(m, last - first - m))
        assert len(set(found)) > 1
        wanted = sum((d - min(found)) / (max(found) - min(found)) for d in found) / 3
    assert RuleDistortion()(raw, noisy) == pytest.approx(wanted)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("dataset", INSTRUCTIONS)
def test_the_instructions_of_a_data_set_need_no_fall_back(dataset, style, caplog):
    """Eight instructions of unlike lengths: under each omega of ANIT's sweep m is not the same for all, so that eq. 1
    is evaluated and lies inside (0, 1)."""
    raw = list(INSTRUCTIONS[dataset][style])
    for name, omega in product(("truncation", "insertion", "replacement", "padding"), (0.1, 0.2, 0.3, 0.4, 0.5)):
        noising = build(f"noising/{name}", omega=omega, phi=1.0, seed=0)
        noisy = [noising.noisy(text, f"record {i}", raw={"dataset": dataset}) for i, text in enumerate(raw)]
        assert 0 < RuleDistortion()(raw, noisy) < 1
    assert "min-max normalisation says nothing" not in caplog.text


def test_beta_of_an_epoch_is_that_of_its_noise():
    """Two records of 5 and 10 words under truncation, m = 1 and 2: (0 + 1) / 2 in every epoch. Under an epoch's own
    words a measure sees the raw instructions and other noisy ones."""
    records = [record(words(n), number) for number, n in enumerate((5, 10))]
    beta = distortion_of(records, build("noising/truncation", omega=0.2, phi=0.5, seed=0), RuleDistortion())
    assert [beta(0), beta(1)] == [0.5, 0.5]
    seen = []
    measure = distortion_of(
        records, build("noising/replacement", omega=0.2, seed=0), lambda raw, noisy: seen.append((raw, noisy)) or 0.0
    )
    assert measure(0) == measure(1) == 0.0
    assert seen[0][0] == seen[1][0] == [one.instruction for one in records] and seen[0][1] != seen[1][1]


def test_nothing_to_noise_is_said():
    """One word cannot be shuffled: no pair, no distortion."""
    with pytest.raises(UserError, match="noising=shuffling can change none of the 1 selected"):
        distortion_of([record("go", 0)], build("noising/shuffling"), RuleDistortion())(0)


def test_the_service_is_asked_for_the_papers_model():
    assert openai().model == "text-embedding-3-large"


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


def test_openai_is_asked_in_parts(monkeypatch):
    """Three texts, two a request, each sent once: a, b and c are (1, 0), (1, 1) and (1, 2), so that the mean of
    1 - 1 / sqrt 2 and 1 - 1 / sqrt 5 comes out."""
    sent = []

    def urlopen(request, timeout):
        sent.append(json.loads(request.data)["input"])
        rows = [{"index": i, "embedding": [1.0, float("abc".index(text))]} for i, text in enumerate(sent[-1])]
        return io.BytesIO(json.dumps({"data": rows}).encode())

    monkeypatch.setattr(module, "_OPENAI_TEXTS", 2)
    monkeypatch.setattr(module.urllib.request, "urlopen", urlopen)
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    assert openai()(["a", "a"], ["b", "c"]) == pytest.approx(1 - (1 / math.sqrt(2) + 1 / math.sqrt(5)) / 2)
    assert sent == [["a", "b"], ["c"]]


def test_openai_without_key_or_network(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(UserError, match="OPENAI_API_KEY"):
        openai()(["a"], ["b"])
    monkeypatch.setenv("OPENAI_API_KEY", "k")

    class Broken(io.BytesIO):
        def read(self, *size):
            raise ConnectionResetError("reset by peer")

    def asked(answer):
        monkeypatch.setattr(module.urllib.request, "urlopen", lambda request, timeout: answer())
        return openai()(["a"], ["b"])

    def unreached():
        raise module.urllib.error.URLError("no network")

    for answer, told in [
        (unreached, "no network"),
        (Broken, "reset by peer"),
        (lambda: io.BytesIO(b'{"data": [{"embedding": [1.0]}]}'), "'index'"),
        (lambda: io.BytesIO(b"[]"), "list indices"),
    ]:
        with pytest.raises(UserError, match=f"{told}.*distortion=embedding"):
            asked(answer)
