"""The attacks themselves: what they may change, how far, and from what seed."""

from __future__ import annotations

import random
import string

import numpy as np
import pytest
from rapidfuzz.distance import Levenshtein
from six_attacks import CACHE, INSTRUCTIONS, KINDS, attack_of, six

from winnow.errors import UserError
from winnow.perturb.attacks import base
from winnow.perturb.attacks.checklist import STRINGS
from winnow.perturb.attacks.stresstest import TAUTOLOGIES

WORD_ATTACKS = ["textbugger", "deepwordbug", "textfooler", "bertattack"]
SIMILARITY = {"textbugger": 0.8, "textfooler": 0.84, "bertattack": 0.8}


def outcomes(attack) -> list[base.Outcome]:
    return [attack.attack(f"record {i}", text) for i, text in enumerate(INSTRUCTIONS)]


@pytest.mark.parametrize("name", list(KINDS))
@pytest.mark.slow
def test_every_prompt_differs_or_says_why(name):
    """Of six plain instructions at least five can be attacked, and success means another text."""
    found = outcomes(six()[name])
    for text, outcome in zip(INSTRUCTIONS, found, strict=True):
        assert (outcome.prompt is None) == (outcome.flag is not None)
        assert outcome.prompt != text and outcome.queries == 0
    assert sum(outcome.prompt is not None for outcome in found) >= 5


@pytest.mark.parametrize("name", WORD_ATTACKS)
@pytest.mark.slow
def test_stop_words_are_kept_and_few_words_changed(name):
    """The stop words of the original stand in the attacked prompt in the same order; the words changed are at most
    round(0.2 n) of the n others, at least 1. With at most 8 such words per instruction that is 1 or 2."""
    attack = six()[name]
    stop = attack.stop_words()
    for text, outcome in zip(INSTRUCTIONS, outcomes(attack), strict=True):
        before = [word for word in words(text) if word in stop]
        free = len(words(text)) - len(before)
        after = iter(words(outcome.prompt or text))
        assert all(word in after for word in before)
        assert outcome.words_changed <= max(1, int(0.2 * free + 0.5)) <= 2
        assert free <= 12


@pytest.mark.slow
def test_edit_distance_stays_below_the_limit():
    """DeepWordBug makes one edit per word, a swap counting two; with all words allowed the limit of 5 decides."""
    attack = attack_of("deepwordbug", max_edit_distance=5, share=1.0, cache=CACHE)
    distances = [Levenshtein.distance(t, o.prompt) for t, o in zip(INSTRUCTIONS, outcomes(attack), strict=True)]
    assert max(distances) <= 5
    loose = attack_of("deepwordbug", share=1.0, cache=CACHE)
    assert any(Levenshtein.distance(t, o.prompt) > 5 for t, o in zip(INSTRUCTIONS, outcomes(loose), strict=True))


@pytest.mark.parametrize("name", list(SIMILARITY))
@pytest.mark.slow
def test_similarity_stays_above_the_limit(name):
    """Measured anew, pair by pair. No candidate is above a limit of 1.01."""
    from winnow.perturb.attacks.sentence_vectors import sentence_vectors

    for text, outcome in zip(INSTRUCTIONS, outcomes(six()[name]), strict=True):
        if outcome.prompt is not None:
            a, b = sentence_vectors([text, outcome.prompt])
            assert float(a @ b) >= SIMILARITY[name] - 1e-5
    strict = attack_of(name, min_similarity=1.01, cache=CACHE)
    assert strict.attack("r", "What is the capital of France?").flag == base.NOTHING_KEPT


@pytest.mark.slow
def test_textfooler_takes_near_words_of_the_same_class():
    """Each replaced word: cosine of the word vectors at least 0.6, and a part of speech in common (verb and noun may
    swap). No word is split or added, so words pair up by place."""
    attack = six()["textfooler"]
    attack.prepare()
    from winnow.perturb.attacks.offline import word_classes, word_vectors

    vectors, changed = word_vectors(CACHE), 0
    for text, outcome in zip(INSTRUCTIONS, outcomes(attack), strict=True):
        if outcome.prompt is None:
            continue
        pairs = [(a, b) for a, b in zip(words(text), words(outcome.prompt), strict=True) if a != b]
        assert len(pairs) == outcome.words_changed
        for old, new in pairs:
            assert vectors.get_cos_sim(old.lower(), new.lower()) >= 0.6
            classes = word_classes(old), word_classes(new)
            assert classes[0] & classes[1] or all(c & {"NOUN", "VERB"} for c in classes)
            changed += 1
    assert changed >= 5


def test_draws_belong_to_the_seed_the_record_and_the_attack():
    """Each of the three changes those of both generators."""
    drawn = []
    for key in ((0, "r", "a"), (1, "r", "a"), (0, "s", "a"), (0, "r", "b")):
        with base.drawn_from(*key):
            drawn.append((random.random(), np.random.random()))
    assert [len(set(own)) for own in zip(*drawn, strict=True)] == [4, 4]


@pytest.mark.parametrize("name", list(KINDS))
@pytest.mark.slow
def test_prompts_are_a_function_of_seed_record_and_instruction(name):
    """In reverse order, from another object, after draws from the global generators: the same prompts. The global
    generators are left as they were. Other seeds and other records meet other draws."""
    first = outcomes(six()[name])
    random.seed(5)
    np.random.seed(5)
    state = random.getstate()
    other = attack_of(name, cache=CACHE)
    again = [other.attack(f"record {i}", INSTRUCTIONS[i]) for i in reversed(range(len(INSTRUCTIONS)))]
    assert first == again[::-1]
    assert random.getstate() == state
    assert outcomes(attack_of(name, seed=1, cache=CACHE)) != first
    assert [other.attack("another record", text) for text in INSTRUCTIONS] != first


ODD = {
    "": base.EMPTY_INSTRUCTION,
    " \n\t ": base.EMPTY_INSTRUCTION,
    "🙂🙂 🎉": base.NO_WORD,
    "the of and": base.NO_WORD,
    "Compare <SPLIT> with others": base.RESERVED_TEXT,
}


@pytest.mark.parametrize("name", WORD_ATTACKS)
@pytest.mark.slow
def test_odd_instructions_have_a_reason(name):
    """No word, only stop words, TextAttack's own mark, too many words: each a flag; one word or another script: a
    prompt or a flag, never an error."""
    attack = six()[name]
    for text, flag in ODD.items():
        assert attack.attack("r", text).flag == flag
    assert attack.attack("r", "word " * 2001).flag == base.TOO_LONG
    odd = [
        "Go",
        "a",
        "Translate: 请把这句话翻译成英文",
        "Écrivez un poème, s'il vous plaît !",
        "İstanbul'u anlat",
        "2 + 2 = ?",
    ]
    odd += ["x" * 300, "don't-know e-mail@home_now", "line one\nline two\r\n\ttabbed  twice", "שלום עולם", "Ⅷ ﬁne ß"]
    for text in odd:
        outcome = attack.attack("r", text)
        assert (outcome.prompt is None) == (outcome.flag is not None) and outcome.prompt != text


@pytest.mark.slow
def test_a_long_instruction_is_attacked_in_few_places():
    """300 words, of which max_words = 20 may be changed although the share would allow 60."""
    text = " ".join(f"{w} number{i}" for i, w in enumerate(["remarkable", "sentence", "describe"] * 50))
    outcome = six()["deepwordbug"].attack("r", text)
    assert outcome.words_changed == 20 or Levenshtein.distance(text, outcome.prompt) == 30


@pytest.mark.parametrize(("name", "options"), [("stresstest", TAUTOLOGIES), ("checklist", STRINGS)])
def test_sentence_attacks_append_one_option(name, options):
    """The instruction as it was, a blank, one of the options; over many records every tautology comes up."""
    attack = attack_of(name)
    text = "Describe 🙂 this,\nplease. "
    prompts = [attack.attack(str(i), text).prompt for i in range(60)]
    assert {p.removeprefix(text + " ") for p in prompts} <= set(options)
    assert len(set(prompts)) >= min(len(options), 20)
    assert attack.attack("r", "  ").flag == base.EMPTY_INSTRUCTION
    assert [attack.attack(str(i), text).prompt for i in range(60)] == prompts


def test_options_are_the_papers():
    """Three tautologies, the last five times the first; 50 different strings of 10 letters and digits, of which
    PromptBench prints d6ZQ3u0GBQ first, 9vGXgnbWB8 as the 15th and lWJoGGRdjv last."""
    assert TAUTOLOGIES[2] == ("and true is true " * 5).strip()
    assert len(set(STRINGS)) == 50
    assert [STRINGS[i] for i in (0, 14, 49)] == ["d6ZQ3u0GBQ", "9vGXgnbWB8", "lWJoGGRdjv"]
    assert all(len(s) == 10 and set(s) <= set(string.ascii_letters + string.digits) for s in STRINGS)


@pytest.mark.parametrize(("candidates", "words"), [(1, 1), (2, 1), (7, 1), (8, 2), (12, 2), (13, 3), (500, 20)])
def test_words_to_change(candidates, words):
    """max(1, floor(0.2 n + 0.5)), at most 20: 0.2 * 7 + 0.5 = 1.9, 0.2 * 8 + 0.5 = 2.1, 0.2 * 13 + 0.5 = 3.1."""
    assert attack_of("deepwordbug").words_to_change(candidates) == words


@pytest.mark.slow
def test_stop_lists_are_the_papers():
    """TextFooler's list is the one in TextAttack's recipe, a constant of its code; the others keep NLTK's 198."""
    from winnow.perturb.attacks.resources import import_textattack, stop_words
    from winnow.perturb.attacks.textfooler import STOP_WORDS

    import_textattack(CACHE)
    from textattack.attack_recipes import TextFoolerJin2019

    constants = TextFoolerJin2019.build.__code__.co_consts
    assert set(STOP_WORDS.split()) in [set(c) for c in constants if isinstance(c, (tuple, frozenset)) and "about" in c]
    assert len({word.lower() for word in stop_words()}) == 198 and {"what", "What", "WHAT"} <= stop_words()


def words(text: str) -> list[str]:
    """Runs of letters, digits and inner apostrophes or hyphens; what stands between does not matter here."""
    return "".join(c if c.isalnum() or c in "'-`" else " " for c in text).split()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"search": "beam"}, "attack.search=beam"),
        ({"resources": "hub"}, "attack.resources=hub"),
        ({"share": 0.0}, "attack.share=0.0"),
        ({"max_words": 0}, "attack.max_words=0"),
        ({"query_budget": 1}, "attack.query_budget=1"),
        ({"query_budget": 2, "search": "greedy"}, "attack.query_budget=2 asks for no changed word"),
    ],
)
def test_bad_settings_are_one_sentence(options, said):
    with pytest.raises(UserError, match=said):
        attack_of("textfooler", **options)


@pytest.mark.parametrize("name", WORD_ATTACKS)
def test_a_text_of_too_many_characters_is_flagged(name):
    """One character above the limit, in a single word, and one word above the other limit."""
    word = "decode " + "ab12" * base.MOST_IN_A_WORD
    for text in ("x" * (base.MOST_CHARACTERS + 1), "x " * (base.MOST_WORDS + 1), word):
        assert six()[name].attack("r", text).flag == base.TOO_LONG


@pytest.mark.parametrize("words", [250, 500])
def test_candidates_do_not_grow_with_the_text(monkeypatch, words):
    """With no edit allowed no candidate is kept. Of however many words, ten times the 20 that are to be changed are
    tried, each with the attack's four kinds of error: 800 texts at the most, and at least half of them."""
    attack = attack_of("deepwordbug", max_edit_distance=0, cache=CACHE)
    attack.prepare()
    from textattack.shared import AttackedText

    made, make = [], AttackedText.generate_new_attacked_text
    monkeypatch.setattr(AttackedText, "generate_new_attacked_text", lambda *given: made.append(1) or make(*given))
    text = " ".join(f"word{i}" for i in range(words))
    assert attack.attack("r", text).flag == base.NOTHING_KEPT
    assert 400 <= len(made) <= 800


def test_the_limit_of_edits_is_levenshteins():
    """Kept up to the limit and not above it; half a surrogate pair is a character like any other."""
    attack = six()["deepwordbug"]
    attack.prepare()
    from textattack.shared import AttackedText

    limit = attack.constraints(None)[0]
    original = AttackedText("word " * 50)
    for edits in (0, 29, 30, 31, 60):
        assert limit._check_constraint(AttackedText("x" * edits + original.text), original) == (edits <= 30)
