"""experiments/papers.yaml: every table and figure of the five papers has an experiment or a stated reason."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import yaml
from composed import CONF
from shared_data import shared

from winnow.commands import experiments

LIST = CONF.parent / "experiments" / "papers.yaml"
PAPERS = yaml.safe_load(LIST.read_text(encoding="utf-8"))
OURS = PAPERS.pop("ours")
# What the papers number, and the named tables and charts of those that number nothing.
NUMBERED = {
    "consistency": [*(f"Table {n}" for n in range(1, 9)), *(f"Figure {n}" for n in range(1, 7))],
    "anit": [*(f"Table {n}" for n in range(1, 5)), "Figure 1", "Figure 2a", "Figure 2b", "Figure 2c"],
    "adg": [
        "Main results",
        "Selection-budget scaling",
        "Layer window",
        "Sample count K",
        "Cross-backbone generalization",
        "Chinese robustness",
        "Selection efficiency",
        "Shift of task types",
    ],
    "ifd": ["README, LLaMA-7B on data v1", "README, LLaMA2-7B on data v1", "README, LLaMA2 on data v2", "AlpacaEval"],
    "aifd": ["Headline gain at 5%", "Its tables"],
}
ITEMS = [(paper, name, item) for paper, about in PAPERS.items() for name, item in about["items"].items()]
# The transcriptions' names of papers, where they are not ours.
TRANSCRIBED = {"cherry": "ifd", "noise": "consistency"}


def test_every_table_and_figure_is_listed():
    assert set(PAPERS) == set(NUMBERED)
    for paper, names in NUMBERED.items():
        assert set(names) <= set(PAPERS[paper]["items"]), paper


@pytest.mark.parametrize(("paper", "name", "item"), ITEMS, ids=lambda value: value if isinstance(value, str) else "")
def test_an_item_has_an_experiment_or_a_reason(paper, name, item):
    """Never both: an experiment that exists and belongs to the paper, or a sentence."""
    assert len(item) == 1
    if "experiment" in item:
        assert item["experiment"] in experiments() and item["experiment"].split("/")[0] == paper
    else:
        assert len(item["reason"].split()) >= 4


def test_every_experiment_is_listed():
    """One that no item names is `ours`, or belongs to the verdicts, which are no paper's."""
    named = {item["experiment"] for _, _, item in ITEMS if "experiment" in item}
    rest = {name for name in experiments() if not name.startswith("verdict/")} - named
    assert rest == set(OURS)


def test_the_page_names_every_experiment():
    text = (CONF.parent / "docs" / "papers.md").read_text(encoding="utf-8")
    missing = [name for name in experiments() if not name.startswith("verdict/") and f"`{name}`" not in text]
    assert not missing


def test_every_transcribed_table_has_its_numbers_here():
    """Each file of published numbers belongs to an experiment, whose paper.csv has the same numbers in the same
    order."""
    files = sorted(Path(shared("paper_tables")).glob("*.csv"))
    assert len(files) == 20
    for file in files:
        paper, _, table = file.stem.partition("_")
        own = CONF.parent / "experiments" / TRANSCRIBED.get(paper, paper) / table / "paper.csv"
        with file.open(encoding="utf-8") as theirs, own.open(encoding="utf-8") as ours:
            numbers = [[line[-1] for line in csv.reader(lines)] for lines in (ours, theirs)]
        assert numbers[0] == numbers[1], own
