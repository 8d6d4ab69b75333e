"""Running model-written code: what passes, and what must not."""

from __future__ import annotations

import json
import time

import pytest
from shared_data import shared

from winnow.evaluation.code_execution import humaneval_results, mbpp_results, passes


def test_assertions_decide():
    """The program asserts its own tests: 1 + 1 == 2 passes, 1 + 1 == 3 does not, a syntax error does not."""
    assert passes("assert 1 + 1 == 2")
    assert not passes("assert 1 + 1 == 3")
    assert not passes("def broken(:")


@pytest.mark.parametrize("ending", ["import sys; sys.exit(0)", "raise SystemExit", "import os; os._exit(0)"])
def test_leaving_early_is_not_passing(ending):
    """Exit status 0 before the tests are reached proves nothing."""
    assert not passes(f"{ending}\nassert False")


def test_endless_loop_is_stopped():
    """A program still running after the limit fails, and the caller waits hardly longer than the limit."""
    started = time.monotonic()
    assert not passes("while True: pass", timeout=1.0)
    assert time.monotonic() - started < 5


def test_runs_in_an_empty_folder_of_its_own(tmp_path, monkeypatch):
    """Files written by the program do not land in the caller's folder, and the environment is not inherited."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WINNOW_SECRET", "x")
    assert passes("import os\nopen('left', 'w').close()\nassert 'WINNOW_SECRET' not in os.environ")
    assert list(tmp_path.iterdir()) == []


def test_canonical_humaneval_solutions_pass():
    """The benchmark's own solutions are right, so pass@1 is 1; an empty body is wrong, so it is 0."""
    lines = (shared("data/eval") / "humaneval" / "test.jsonl").read_text(encoding="utf-8").strip().split("\n")
    for doc in map(json.loads, lines[:3]):
        assert humaneval_results(doc, [doc["canonical_solution"]]) == {"pass@1": 1.0}
        assert humaneval_results(doc, ["    return None\n"]) == {"pass@1": 0.0}


def test_mbpp_problem():
    """add is right for both asserts; sub is wrong for the first (2 - 3 != 5)."""
    doc = {"test_list": ["assert f(2, 3) == base", "assert f(0, 0) == 0"], "test_setup_code": "base = 5"}
    assert mbpp_results(doc, ["def f(a, b):\n    return a + b"]) == {"pass@1": 1.0}
    assert mbpp_results(doc, ["def f(a, b):\n    return a - b"]) == {"pass@1": 0.0}
