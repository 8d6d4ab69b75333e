"""Every command of the pages composes, so that no page names an option that is not there. What a page on adding
something names is there only after its steps, which test_howto.py takes."""

from __future__ import annotations

import re
import shlex

import pytest
from composed import CONF, VALUE, config
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.utils import instantiate

from winnow.config import COMMANDS

HOME = CONF.parent
PAGES = [HOME / "README.md", *(page for page in (HOME / "docs").glob("*.md") if not page.name.startswith("adding_"))]
COMMAND = re.compile(r"^ *(?:srun |torchrun [\w =-]+-m )?winnow (.+)$", re.M)


def overrides(line: str) -> list[str]:
    """What a line gives to Hydra: up to its comment or the next command, without flags and variables of the shell."""
    words = shlex.split(line.partition(" && ")[0], comments=True)
    return [word for word in words if word[0] not in "-$"]


FOUND = sorted(
    {
        tuple(overrides(line))
        for page in PAGES
        for line in COMMAND.findall(page.read_text(encoding="utf-8").replace("\\\n", " "))
    }
)
RUNS = [words for words in FOUND if words[0] not in COMMANDS]


@pytest.mark.parametrize("words", RUNS, ids=" ".join)
def test_the_command_composes(words):
    """Of a sweep one job for each set of choices. Its tuner takes its settings."""
    jobs = BasicSweeper.split_arguments(OverridesParser.create().parse_overrides(list(words)), None)[0]
    for job in {tuple(word for word in job if not VALUE.fullmatch(word)): job for job in jobs}.values():
        instantiate(config(*job).tuning)


def test_commands_are_found_and_misspelt_ones_refused():
    assert len(RUNS) > 50 and ("backbone.dtype=nf4", "tuning=lora") in RUNS
    assert any("paths.run=outputs/runs/four_cards" in words for words in RUNS)  # of torchrun
    for words in (("method=idf",), ("method=ifd", "method.strct=true"), ("data=sst2", "evaluation.omega=[0.3]")):
        with pytest.raises(HydraException):
            test_the_command_composes(words)
