"""`winnow.notebook`: runs without a command line, on the tiny backbone."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from subprocess import CompletedProcess

import matplotlib
import numpy as np
import pytest
from trials import call

from winnow import notebook
from winnow.compare.runs import read_runs
from winnow.errors import UserError

SMALL = ["data.limit=10", "trainer=cpu", "backbone=hub", "backbone.dtype=fp32", "template.max_length=1500"]


@pytest.fixture
def words(tiny_folder, tmp_path, monkeypatch):
    """The words for the tiny backbone; everything that is written lies below tmp_path."""
    monkeypatch.setenv("WINNOW_NOTEBOOK_FOLDER", str(tmp_path))
    return [*SMALL, f"backbone.name={tiny_folder}"]


def test_run_is_silent_and_its_table_complete(words, tmp_path, capsys):
    """A run prints nothing; its table has one row per record in the pool's order, with texts, labels and decisions that
    agree with the run's own files."""
    folder = notebook.run("method=ifd", "method.max_ifd=null", "selection.count=3", "stages=[score,select]", *words)
    assert capsys.readouterr() == ("", "")
    assert folder.parent == tmp_path / "runs" and folder.name.startswith("ifd-")
    table = notebook.table(folder)
    manifest = json.loads((folder / "selection.json").read_text())
    assert table.row.tolist() == list(range(10))
    assert table.instruction[1] == "Who wrote the novel Frankenstein?" and table.defect[1] == "clean"
    assert table.defect[4] == "vague prompt"
    assert table.selected.sum() == manifest["n_selected"]
    assert table.id.tolist() == [decision["id"] for decision in manifest["decisions"]]


def test_a_run_keeps_its_choices(words):
    """A page that compares runs names the rule of a notebook's run, as it does that of a command's."""
    folder = notebook.run("method=random", "selection=stratified", "selection.count=3", "stages=[score,select]", *words)
    (run,) = read_runs(folder)
    assert (run.label, run.choices["selection"]) == ("random, stratified", "stratified")
    assert "selection.count=3" in run.overrides and "hydra" not in run.settings
    card = json.loads((folder / "run_card.json").read_text())
    assert "hydra" not in card["config"]


def test_same_words_same_folder(words):
    """The same words lead to the same run folder, others to another; a folder that is named is taken."""
    one, again, other = (notebook.compose("method=ifd", *more, *words).paths.run for more in ([], [], ["seed=1"]))
    assert one == again != other
    assert notebook.compose("paths.run=/x/y", *words).paths.run == "/x/y"


def test_end_counts_stages(words, monkeypatch, capsys):
    """Two runs with the same pass: `score` is computed once and taken from the store once, `select` computed twice; the
    stages that were not asked for do not count."""
    monkeypatch.setenv("WINNOW_NOTEBOOK_RECORDS", "10")
    with matplotlib.rc_context():  # begin sets the plots' look
        assert notebook.begin(120) == 10
        for ratio in (0.2, 0.4):
            ifd = ["method=ifd", "method.max_ifd=null", f"selection.ratio={ratio}", "stages=[score,select]"]
            notebook.run(*ifd, *words)
        notebook.end(10)
    told = capsys.readouterr().out
    assert told.startswith("10 records, ") and "stages: 3 computed, 1 taken from the store." in told


@pytest.mark.parametrize("given", ["7", "many", "-8", "8.5"])
def test_number_of_records_is_checked(given, monkeypatch):
    monkeypatch.setenv("WINNOW_NOTEBOOK_RECORDS", given)
    with pytest.raises(UserError, match=f"WINNOW_NOTEBOOK_RECORDS={given} must be a whole number"):
        notebook.begin(120)


def test_the_environments_words_are_part_of_the_folder(words, monkeypatch):
    """WINNOW_NOTEBOOK_WORDS with another backbone: another run, and a sweep that runs."""
    ran = []

    def done(command, **_):
        ran.append(Path(command[-3 - len(words)].removeprefix("hydra.sweep.dir=")))
        ran[-1].mkdir(parents=True)
        return CompletedProcess(command, 0, "", "")

    monkeypatch.setattr("subprocess.run", done)
    runs = []
    for own in ("", "", "seed=3"):
        monkeypatch.setenv("WINNOW_NOTEBOOK_WORDS", own)
        runs.append(notebook.compose("method=random", *words).paths.run)
        assert notebook.sweep("method=random", *words) == ran[-1]
    assert runs[0] == runs[1] != runs[2] and len(ran) == 2


def test_failed_sweep_says_why(words, monkeypatch):
    """A sweep that fails ends the notebook with what the command said, not with an empty folder."""
    said = partial(CompletedProcess, returncode=1, stdout="", stderr="error: method=magic is no option\n")
    monkeypatch.setattr("subprocess.run", lambda command, **_: said(command))
    with pytest.raises(UserError, match="(?s)sweep of method=magic .* status 1: error: method=magic is no option"):
        notebook.sweep("method=magic", *words)


@pytest.mark.slow
def test_sweep_runs_each_job_once(words, tmp_path, monkeypatch):
    """Two methods make two run folders with scores; the same words again return that folder, nothing is written. The
    process is forked."""

    def forked(command, **_):
        assert command[:3] == [sys.executable, "-m", "winnow"]
        code, output = call(command[3:], tmp_path / "log")
        return CompletedProcess(command, code, output, "")

    monkeypatch.setattr("subprocess.run", forked)
    again = ["method=random,length", "stages=[score,select]", *words]
    folder = notebook.sweep(*again)
    cards = sorted(folder.glob("*/run_card.json"))
    methods = [json.loads(card.read_text())["config"]["method"]["name"] for card in cards]
    assert methods == ["random", "length"]
    times = [card.stat().st_mtime_ns for card in cards]
    assert notebook.sweep(*again) == folder
    assert [card.stat().st_mtime_ns for card in cards] == times


def test_show_escapes_and_shortens():
    """Texts of records are shown as they are, not taken for HTML; numbers get the decimals that are asked for."""
    import pandas as pd

    html = notebook.show(pd.DataFrame({"text": ["<b>x</b> " + "long " * 50], "value": [1 / 3]}), decimals=2).data
    assert "&lt;b&gt;x&lt;/b&gt;" in html and "<b>x" not in html
    assert "0.33<" in html and "0.333" not in html
    assert " …" in html and html.count("long") < 50


def test_matrix_writes_every_number():
    """A cell for each number, -0.001 as 0.00, and none for NaN."""
    from matplotlib.figure import Figure

    axes = Figure().subplots()
    notebook.matrix(axes, ["a", "b"], np.array([[1.0, -0.001], [np.nan, 0.5]]))
    assert [text.get_text() for text in axes.texts] == ["1.00", "0.00", "0.50"]
