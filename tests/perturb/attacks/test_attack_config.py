"""`attack=...` on the command line: which attacks there are, and with what settings."""

from __future__ import annotations

import pytest
from composed import config
from hydra.utils import instantiate
from six_attacks import KINDS

LEVELS = {
    "character": ["textbugger", "deepwordbug"],
    "word": ["textfooler", "bertattack"],
    "sentence": ["stresstest", "checklist"],
}


def built(*overrides: str) -> dict:
    return instantiate(config(*overrides, "paths.run=run").attack.use)


def test_all_six_by_default():
    """In the order of the levels, each the class of its name, with the shared settings."""
    attacks = built()
    assert {name: type(attack) for name, attack in attacks.items()} == KINDS and list(attacks) == list(KINDS)
    assert {attack.search for attack in attacks.values()} == {"random"}
    assert [attack.level for attack in attacks.values()] == [level for level in LEVELS for _ in range(2)]


@pytest.mark.parametrize(
    ("override", "names"),
    [(f"attack={level}", names) for level, names in LEVELS.items()]
    + [
        ("attack=[character,word]", LEVELS["character"] + LEVELS["word"]),
        ("attack=[textbugger]", ["textbugger"]),
        ("attack=checklist", ["checklist"]),
        ("attack=[]", []),
    ],
)
def test_single_attacks_levels_and_pairs(override, names):
    """A name, a list, a level, as a sweep would give them."""
    assert list(built(override)) == names


def test_shared_and_own_settings():
    """What is set for all reaches all; what is set for one reaches that one."""
    attacks = built("attack.search=greedy", "attack.resources=paper", "seed=3", "attack.use.textfooler.share=0.5")
    assert {(a.search, a.resources, a.seed) for a in attacks.values()} == {("greedy", "paper", 3)}
    assert attacks["textfooler"].share == 0.5 and attacks["bertattack"].share == 0.2
