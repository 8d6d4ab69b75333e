"""AIFD and AIOEC: the formulas, by hand."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from composed import build
from test_methods import likelihood, records
from tiny_passes import columns

from winnow.errors import UserError
from winnow.perturb.attacks.base import PromptAttack
from winnow.scoring.attack_levels import NO_ATTACK, by_level
from winnow.scoring.methods.aioec import NO_DIRECTION
from winnow.scoring.passes.likelihood import Likelihood
from winnow.store.describe import describe

aifd = partial(build, "method/aifd")
aioec = partial(build, "method/aioec")

LEVELS = {
    "textbugger": "character",
    "deepwordbug": "character",
    "textfooler": "word",
    "bertattack": "word",
    "stresstest": "sentence",
    "checklist": "sentence",
}


class _Attack(PromptAttack):
    """A stand-in: the formulas read an attack's level, its pass its name."""

    def __init__(self, name: str) -> None:
        super().__init__(name, search="random", resources="offline", seed=0, query_budget=200, cache="")
        self.level = LEVELS[name]


def attacks(*names):
    return {name: _Attack(name) for name in names or LEVELS}


def vectors(rows, flags=None):
    """A likelihood pass with the given instruction vectors per record."""
    own = [None if row is None else np.array(row, np.float16) for row in rows]
    return columns(Likelihood.schema, nll=[[1.0]] * len(rows), instruction_vector=own, flag=flags)


def test_aifd_by_hand():
    """s(A) = 4. Character: (3/4 + 1/4) / 2 = 0.5. Word: only one attack found a prompt, 2/4 = 0.5. Sentence:
    (4/4 + 8/4) / 2 = 1.5. Sum 2.5; five of six attacks."""
    tables = {
        "conditioned": likelihood([[2.0]]),
        "direct": likelihood([[4.0]]),
        "textbugger": likelihood([[3.0]]),
        "deepwordbug": likelihood([[1.0]]),
        "textfooler": likelihood([[2.0]]),
        "bertattack": likelihood([[]], flags=["no_candidate"]),
        "stresstest": likelihood([[4.0]]),
        "checklist": likelihood([[8.0]]),
    }
    scores = aifd(attacks=attacks()).score(tables, records(1))
    assert scores.score[0] == pytest.approx(2.5)
    parts = scores.components
    assert (
        parts["ifd"][0] == 0.5
        and parts["attacks_found"][0] == 5
        and parts["aifd_per_level"][0] == pytest.approx(2.5 / 3)
    )
    assert [parts[f"aifd_{level}"][0] for level in ("character", "word", "sentence")] == [0.5, 0.5, 1.5]


def test_a_missing_level_leaves_records_comparable():
    """Two records whose ratios are all 1/2; the second has no attack on words. Both have AIFD 3 x 1/2."""
    half = [[1.0], [1.0]]
    tables = {"conditioned": likelihood(half), "direct": likelihood([[2.0], [2.0]])}
    tables |= {name: likelihood(half) for name in LEVELS}
    for name in ("textfooler", "bertattack"):
        tables[name] = likelihood([[1.0], []], flags=[None, "no_candidate"])
    scores = aifd(attacks=attacks()).score(tables, records(2))
    assert np.allclose(scores.score, 1.5)
    assert scores.components["attacks_found"].tolist() == [6, 4]
    assert np.isnan(scores.components["aifd_word"][1])


def test_all_attacks_failed_is_null_with_a_reason():
    """The record keeps its place, its own losses, and no number."""
    failed = likelihood([[], [1.0]], flags=["empty_instruction", None])
    tables = {"conditioned": likelihood([[1.0], [1.0]]), "direct": likelihood([[2.0], [2.0]])}
    scores = aifd(attacks=attacks("textbugger", "checklist")).score(
        tables | {"textbugger": failed, "checklist": failed}, records(2)
    )
    assert scores.flag == [NO_ATTACK, None] and np.isnan(scores.score[0]) and scores.score[1] == pytest.approx(1.0)
    assert scores.components["nll_conditioned"][0] == 1.0


def test_identity_attacks_give_three_times_ifd():
    """Where every attacked prompt has the clean prompt's losses, each ratio is IFD, and there are three levels."""
    clean, direct = [[1.0, 2.0], [0.5, 0.5]], [[2.0, 4.0], [3.0, 1.0]]
    tables = {"conditioned": likelihood(clean), "direct": likelihood(direct)}
    ifd = build("method/ifd").score(tables, records(2)).score
    tables |= {name: likelihood(clean) for name in LEVELS}
    assert np.allclose(aifd(attacks=attacks()).score(tables, records(2)).score, 3 * ifd)


def test_every_ratio_covers_the_tokens_of_the_longest_variant():
    """An attacked prompt left room for one answer token of three: all terms are cut to it. 9/2 in place of a mix."""
    tables = {
        "conditioned": likelihood([[1.0, 7.0, 7.0]]),
        "direct": likelihood([[2.0, 7.0, 7.0]]),
        "checklist": likelihood([[9.0]]),
        "textfooler": likelihood([[3.0, 7.0]]),
    }
    scores = aifd(attacks=attacks("checklist", "textfooler")).score(tables, records(1))
    assert scores.components["answer_tokens"][0] == 1 and scores.components["ifd"][0] == 0.5
    assert scores.score[0] == pytest.approx(9 / 2 + 3 / 2)


def test_filters_use_the_mean_over_levels():
    """One level: AIFD 1.2 per level is dropped at max_aifd=1. max_ifd adds a filter on the clean IFD."""
    only = attacks("checklist")
    method = aifd(attacks=only, max_ifd=1.0)
    tables = {
        "conditioned": likelihood([[1.0], [3.0], [1.0]]),
        "direct": likelihood([[2.0], [2.0], [2.0]]),
        "checklist": likelihood([[2.4], [1.0], [1.0]]),
    }
    table = method.score(tables, records(3)).table(records(3), {})
    assert [rule.keeps(table).tolist() for rule in method.filters] == [[False, True, True], [True, False, True]]


def test_the_filter_of_several_levels_and_the_first_token():
    """Two levels of 0.8: AIFD is 1.6, and per level it is not above 1. Without the first token, 4 / 2 in each."""
    both = attacks("checklist", "textfooler")
    tables = {"conditioned": likelihood([[5.0, 1.0]]), "direct": likelihood([[8.0, 2.0]])}
    tables |= {name: likelihood([[4.0, 4.0]]) for name in both}
    method = aifd(attacks=both)
    scores = method.score(tables, records(1))
    assert scores.score[0] == pytest.approx(1.6)
    assert [rule.keeps(scores.table(records(1), {})).tolist() for rule in method.filters] == [[True]]
    assert aifd(attacks=both, first_token="skip").score(tables, records(1)).score[0] == pytest.approx(4.0)


def test_aioec_by_hand():
    """Clean (3, 4). Character: against itself, cosine 1, and against (4, 3), cosine 24/25: mean 0.98. Sentence:
    against (-4, 3), cosine 0. Over levels 0.49."""
    tables = {
        "clean": vectors([[3, 4]]),
        "textbugger": vectors([[3, 4]]),
        "deepwordbug": vectors([[4, 3]]),
        "checklist": vectors([[-4, 3]]),
    }
    scores = aioec(attacks=attacks("textbugger", "deepwordbug", "checklist")).score(tables, records(1))
    assert scores.score[0] == pytest.approx(0.49) and scores.components["attacks_found"][0] == 3


def test_aioec_of_identity_attacks_is_one():
    """The same vector before and after has cosine 1, however long it is; what was not found is left out."""
    rows = [[3, 4], [-100, 1]]
    tables = {"clean": vectors(rows), "stresstest": vectors(rows), "checklist": vectors([None, None], ["f", "f"])}
    scores = aioec(attacks=attacks("stresstest", "checklist")).score(tables, records(2))
    assert np.allclose(scores.score, 1.0, atol=1e-12) and scores.components["attacks_found"].tolist() == [1, 1]


def test_a_vector_without_direction_is_no_zero_score():
    """A zero vector has no cosine: null with a reason, as is a record whose prompt fills the window."""
    rows = [[0, 0], None, [1, 0]]
    clean = vectors(rows, [None, "prompt_fills_window", None])
    scores = aioec(attacks=attacks("checklist")).score({"clean": clean, "checklist": vectors([[1, 0]] * 3)}, records(3))
    assert scores.flag == [NO_DIRECTION, "prompt_fills_window", None] and scores.score[2] == 1.0


def test_levels_average_before_they_are_averaged():
    """Two character attacks with 0 and one sentence attack with 1: (0 + 1) / 2, not 1/3."""
    values = {"textbugger": np.array([0.0]), "deepwordbug": np.array([0.0]), "checklist": np.array([1.0])}
    assert by_level(values, attacks(*values))[0][0] == 0.5


def test_no_attack_is_one_sentence():
    with pytest.raises(UserError, match=r"attack=\[\] leaves nothing"):
        aifd(attacks={})


@pytest.mark.parametrize("build", [aifd, aioec])
def test_an_attack_of_no_level_is_one_sentence(build):
    """It would be made and run, and have no part in the score."""
    own = attacks("checklist")
    own["checklist"].level = "discourse"
    with pytest.raises(
        UserError, match="attack=checklist has the level discourse; its class must have one of character"
    ):
        build(attacks=own)
    del own["checklist"].level
    with pytest.raises(UserError, match="has the level None"):
        build(attacks=own)


def test_aioec_shares_the_passes_of_aifd():
    """1 direct, 1 clean and 6 attacked passes serve ifd, aifd and aioec: 8 different ones."""
    methods = [build("method/ifd"), aifd(attacks=attacks()), aioec(attacks=attacks())]
    different = {str(describe(pass_)) for method in methods for pass_ in method.passes.values()}
    assert len(different) == 8
    own = {str(describe(pass_)) for pass_ in aioec(attacks=attacks(), pooling="last").passes.values()}
    assert len(own) == 7 and not own & different
