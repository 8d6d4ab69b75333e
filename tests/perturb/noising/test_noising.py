"""The six noises: exact word counts, never the raw words, and draws that hang on the record alone."""

from __future__ import annotations

import itertools
import math
import random
import subprocess
import sys
import tracemalloc
from collections import Counter
from dataclasses import replace
from fractions import Fraction

import pytest
from composed import build

from winnow.data.nlu.datasets import DATASETS
from winnow.data.nlu.instructions import INSTRUCTIONS, OPPOSITE
from winnow.data.records import Record
from winnow.errors import UserError
from winnow.perturb.noising import Noising, noising_class, noising_names
from winnow.perturb.noising.passages import PASSAGES
from winnow.perturb.noising.words import WORDS
from winnow.store.describe import describe

NAMES = ["insertion", "opposite", "padding", "replacement", "shuffling", "truncation"]
WORDY = [name for name in NAMES if name != "opposite"]
OMEGAS = [0.1, 0.2, 0.3, 0.4, 0.5]
SST2 = {"dataset": "sst2"}


def noising_of(name: str, **changes):
    """The noising as `noising=name` gives it, with some keys replaced."""
    return build(f"noising/{name}", **changes)


def text(n: int) -> str:
    """n different words, none of them in WORDS."""
    return " ".join(f"w{i}" for i in range(n))


def record(i: int, instruction: str, raw: dict | None = None) -> Record:
    return Record(f"id{i}", i, instruction, "given", "answer", (), "here", raw or {})


def test_every_noise_is_found_by_its_file():
    assert noising_names() == NAMES
    for name in NAMES:
        assert noising_class(name).name == name
    with pytest.raises(UserError, match="'typo' is unknown: choose from insertion, opposite"):
        noising_class("typo")


@pytest.mark.parametrize("omega", OMEGAS)
@pytest.mark.parametrize("n", [4, 7, 10, 30, 70])
def test_word_counts(omega, n):
    """m = ceil(omega n). Of n different words truncation leaves n - m, one end of the text; shuffling all n, m of which
    moved as a block; replacement n with exactly m different; insertion n + m with the n in their order; padding n + m
    with the n at one end. For n = 70 and omega 0.1 a product of floats would give m = 8."""
    m = math.ceil(Fraction(str(omega)) * n)
    raw = text(n).split()
    noisings = {name: noising_of(name, omega=omega) for name in WORDY}
    for draw in range(20):
        noised = {name: noising.noisy(text(n), f"r{draw}").split() for name, noising in noisings.items()}
        assert noised["truncation"] in (raw[m:], raw[:-m])
        assert len(noised["shuffling"]) == n and Counter(noised["shuffling"]) == Counter(raw)
        moved = noised["shuffling"]
        blocks = [raw[:m], raw[-m:]]
        rests = [raw[m:], raw[:-m]]
        assert any(
            moved == rest[:at] + block + rest[at:]
            for block, rest in zip(blocks, rests, strict=True)
            for at in range(1, n - m)
        )
        assert sum(a != b for a, b in zip(noised["replacement"], raw, strict=True)) == m
        assert len(noised["insertion"]) == n + m and [w for w in noised["insertion"] if w not in WORDS] == raw
        assert len(noised["padding"]) == n + m and raw in (noised["padding"][:n], noised["padding"][m:])


def test_exact_share():
    """0.1 * 70 is 7.000000000000001 in floats; ceil of it would be 8. ceil(0.5 * 7) = 4. Never less than one word."""
    noising = noising_of("replacement", omega=0.1)
    assert (noising.touched(70), noising.touched(71), noising.touched(1), noising.touched(0)) == (7, 8, 1, 1)
    assert noising_of("replacement", omega=0.5).touched(7) == 4


@pytest.mark.parametrize("name", NAMES)
def test_noisy_never_equals_raw(name):
    """Over all instructions of the data sets, lengths of 2 to 12 words, repeated words, and words of WORDS itself."""
    texts = [one for styles in INSTRUCTIONS.values() for style in styles.values() for one in style[:2]]
    texts += [text(n) for n in range(2, 13)] + ["a a a b", "b a a", "lemon lemon ocean", OPPOSITE["sst2"][0]]
    for omega in OMEGAS:
        noising = noising_of(name, omega=omega)
        for number, raw in enumerate(texts):
            for draw in range(5):
                assert noising.noisy(raw, f"{number} {draw}", raw=SST2).split() != raw.split()


@pytest.mark.parametrize("name", NAMES)
def test_draws_are_a_function_of_seed_record_epoch_and_name(name):
    """The same again is the same; of 20 records, seeds and epochs most differ from one another."""
    noising, again = (noising_of(name, omega=0.3) for _ in range(2))
    first = [noising.noisy(text(30), f"r{i}", raw=SST2) for i in range(20)]
    assert first == [again.noisy(text(30), f"r{i}", raw=SST2) for i in range(20)]
    least = 2 if name in ("truncation", "opposite") else 6
    assert len(set(first)) >= least
    assert len({noising.noisy(text(30), "r", epoch, SST2) for epoch in range(20)}) >= least
    assert len({noising_of(name, seed=seed).noisy(text(30), "r", raw=SST2) for seed in range(20)}) >= least


def test_draws_do_not_depend_on_the_process():
    """A new interpreter, with another hash seed, gives the same words."""
    code = "from winnow.config import build; print(build('noising/replacement').noisy('a b c d e f', 'key', 3))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert told == noising_of("replacement").noisy("a b c d e f", "key", 3)


def test_phi_is_the_share_of_noised_samples():
    """0 noises none, 1 all; 0.5 of 400 gives 200 with a deviation of sqrt(400 / 4) = 10: within 5 of them. Each epoch
    draws anew: about half of those of one epoch are noised in the next. So does another noise."""
    ids = [f"id{i}" for i in range(400)]
    none, half, every = (noising_of("replacement", phi=phi) for phi in (0.0, 0.5, 1.0))
    assert not any(none.applies(one, 0) for one in ids)
    assert all(every.applies(one, 0) for one in ids)
    first, second = ({one for one in ids if half.applies(one, epoch)} for epoch in (0, 1))
    assert abs(len(first) - 200) < 50
    assert abs(len(first & second) - 100) < 50
    other = {one for one in ids if noising_of("insertion", phi=0.5).applies(one)}
    assert abs(len(first & other) - 100) < 50


def test_who_is_noised_says_nothing_of_how():
    """Half of 200 records; of these truncation cuts about half at the front: within 5 standard errors of sqrt(100 / 4).
    One draw for both questions would cut all of them at one end."""
    noising = noising_of("truncation", phi=0.5)
    cut = [
        one.instruction for one in noising.apply([record(i, text(8)) for i in range(200)]) if one.instruction != text(8)
    ]
    assert abs(len(cut) - 100) < 40 and abs(sum(one.endswith("w7") for one in cut) - len(cut) / 2) < 25


def test_apply_changes_the_instruction_alone():
    """Ids, inputs and answers stay, the records' order too; the noised ones are those of `applies`; order and company
    do not matter."""
    noising = noising_of("insertion", omega=0.5)
    records = [record(i, text(8)) for i in range(50)]
    changed = noising.apply(records, 2)
    for before, after in zip(records, changed, strict=True):
        assert replace(after, instruction=before.instruction) == before
        assert (after.instruction != before.instruction) == noising.applies(before.id, 2)
    assert noising.apply(records[::-1], 2) == changed[::-1]
    assert noising.apply(records[10:11], 2) == changed[10:11]


def test_what_cannot_be_changed_stays_and_is_told(caplog):
    """One word cannot be cut off or moved, equal words cannot be shuffled: left as they are, with one warning."""
    for name, hopeless in (("truncation", ["alone"]), ("shuffling", ["alone", "so so so"]), ("replacement", [""])):
        noising = noising_of(name, phi=1.0)
        records = [record(i, words) for i, words in enumerate([*hopeless, text(5)])]
        changed = noising.apply(records)
        assert [one.instruction for one in changed[:-1]] == hopeless and changed[-1].instruction != text(5)
        assert f"{len(hopeless)} of {len(records)} instructions" in caplog.records[-1].getMessage()
        assert noising.noisy(hopeless[0], "key") is None
        raw, noisy = noising.pairs(records)
        assert raw == [text(5)] and noisy != raw


def test_no_word_is_replaced_by_itself(monkeypatch):
    """In whatever case: of two words the other one."""
    monkeypatch.setattr("winnow.perturb.noising.replacement.WORDS", ("acorn", "amber"))
    assert {noising_of("replacement").noisy("ACORN", f"k{i}") for i in range(20)} == {"amber"}


def test_short_instructions():
    """Two words: cut to one, swapped, one replaced, one added. An empty instruction can only be added to."""
    assert noising_of("truncation").noisy("a b", "k") in ("a", "b")
    assert noising_of("shuffling").noisy("a b", "k") == "b a"
    assert len(noising_of("insertion").noisy("", "k").split()) == 1
    assert len(noising_of("padding").noisy("", "k").split()) == 1


def test_opposite_needs_the_task():
    """It gives one of the data set's opposite instructions, whatever omega; an Alpaca record is one clear error."""
    opposite = noising_of("opposite")
    for dataset in DATASETS:
        found = {opposite.noisy("x y", f"k{i}", raw={"dataset": dataset}) for i in range(40)}
        assert found == set(OPPOSITE[dataset])
    low, high = (noising_of("opposite", omega=omega) for omega in (0.1, 0.5))
    assert low.noisy("x", "k", raw=SST2) == high.noisy("x", "k", raw=SST2) and describe(low) == describe(high)
    with pytest.raises(UserError, match="noising=opposite needs records of an NLU data set"):
        noising_of("opposite", phi=1.0).apply([record(0, "Name a colour.")])


def test_padding_comes_from_the_tasks_passages():
    """m words in a row of a passage for classification, which goes round its end when m is longer than it. They begin
    anywhere in it: there are more of them than passages at two ends."""
    longest = max(len(one.split()) for one in PASSAGES["classification"])
    noised = noising_of("padding", omega=1.0).noisy(text(2 * longest), "k", raw=SST2).split()
    added = [word for word in noised if not word.startswith("w") or not word[1:].isdigit()]
    assert len(added) == 2 * longest
    rounds = [one.split() * 4 for one in PASSAGES["classification"]]
    assert any(added == words[i : i + len(added)] for words in rounds for i in range(len(words) - len(added)))
    found = {noising_of("padding").noisy("x y", f"k{i}", raw=SST2) for i in range(200)}
    assert len(found) > 2 * len(PASSAGES["classification"])


@pytest.mark.parametrize("options", [{"omega": 0}, {"omega": 1.1}, {"phi": -0.1}, {"phi": 2}])
def test_settings_out_of_range(options):
    with pytest.raises(UserError, match=f"noising.{next(iter(options))}="):
        noising_of("insertion", **options)


def test_the_word_list():
    """Different words in lower case, so that a replacement is a replacement."""
    assert len(set(WORDS)) == len(WORDS) >= 200 and all(word.isalpha() and word.islower() for word in WORDS)


def test_a_rule_that_fails_on_one_text_leaves_it(caplog, monkeypatch):
    """The record stays as it is, the log names it, and the other one is noised."""
    noising = noising_of("insertion", phi=1.0)
    change = noising.change

    def fails(words, *given):
        if "bad" in words:
            raise IndexError("no such word")
        return change(words, *given)

    monkeypatch.setattr(noising, "change", fails)
    bad, good = noising.apply([record(0, "a bad text"), record(1, "a good text")])
    assert bad.instruction == "a bad text" and good.instruction != "a good text"
    assert bad.id in caplog.text and "no such word" in caplog.text
    assert "noising=insertion fails on them (see above), or they have too few" in caplog.records[-1].getMessage()


def every_order(words: list[str], m: int) -> list[list[str]]:
    """All that shuffling may draw from, made one by one: other words with the block further inside, else at the end."""
    rest = len(words) - m
    cuts = ((words[:m], words[m:], rest), (words[-m:], words[:-m], 0))
    inner = [left[:at] + block + left[at:] for block, left, _ in cuts for at in range(1, rest)]
    ends = [left[:at] + block + left[at:] for block, left, at in cuts]
    return next((found for orders in (inner, ends) if (found := [one for one in orders if one != words])), [])


@pytest.mark.parametrize("letters", ["ab", "abc"])
def test_shuffling_draws_from_every_order_that_differs(letters):
    """All texts of 2 and 3 different words, up to 9 and 6 words long, and all m: the same order for the same draw."""
    shuffling = noising_of("shuffling")
    for n in range(1, 10 if letters == "ab" else 7):
        for words in map(list, itertools.product(letters, repeat=n)):
            for m in range(1, n + 1):
                orders = every_order(words, m)
                expected = random.Random(n + m).choice(orders) if orders else None
                assert shuffling.change(words, m, random.Random(n + m), {}) == expected


class Counted(str):
    """A word that counts what is asked of it."""

    asked = 0

    def __eq__(self, other):
        Counted.asked += 1
        return str.__eq__(self, other)

    def __hash__(self):
        return str.__hash__(self)

    def casefold(self):
        Counted.asked += 1
        return str.casefold(self)


def test_a_noising_that_changes_nothing_is_told():
    class Still(Noising):
        def change(self, words, m, draws, raw):
            return words

    with pytest.raises(UserError, match=r"noising=still gave the words of 'a b' back: its `change` must return others"):
        Still(0.5, 1.0, 0).noisy("a b", "k")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["all different", "all equal", "equal but the last", "two in turn"])
def test_noise_is_linear_in_the_words(name, kind):
    """Words compared, and bytes held at the most, for 2,000 and 8,000 words: at most as many times more as there are
    words, by the word at most 12 comparisons and 500 bytes (a dozen lists of 8-byte references, places as pairs)."""

    def words(n: int) -> list[str]:
        made = {
            "all different": [f"w{i}" for i in range(n)],
            "all equal": ["w"] * n,
            "equal but the last": [*["w"] * (n - 1), "x"],
            "two in turn": ["w", "x"] * (n // 2),
        }[kind]
        return [Counted(word) for word in made]

    for n in (2_000, 8_000):
        given, noising = words(n), noising_of(name, omega=0.3)
        m = noising.touched(n) if noising.uses_omega else 0
        Counted.asked = 0
        tracemalloc.start()
        noising.change(given, m, random.Random(0), SST2)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert Counted.asked <= 12 * n
        assert peak <= 500 * n
