"""`python tests/faults/reliability_page.py` writes docs/reliability.md from the tests with the marker `fault`; with
`--run [words for pytest]` it runs them first and keeps their outcomes in outcomes.json."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

HOME = Path(__file__).resolve().parents[2]
PAGE = HOME / "docs" / "reliability.md"
OUTCOMES = Path(__file__).with_name("outcomes.json")  # test -> [trials that held, trials, commit]
HEAD = """# Reliability

What is done to Winnow on purpose, what it promises then, and the test that does it. `make test` runs all of them, some
with fewer trials. The outcome is that of a run with more: in how many of its trials the promise was kept, and at which
commit. A test refuses a page that is not what its script writes. All trials again, which takes an hour on two cores:

    WINNOW_KILL_TRIALS=30 WINNOW_TRIALS=300 WINNOW_FUZZ_CASES=5000 python tests/faults/reliability_page.py --run

| Fault | Promise | Trials | Outcome | Test |
|---|---|---|---|---|
"""


class Outcomes:
    """Counts the trials of each test, one for each case, or as many as the test says with `record_property`."""

    def __init__(self) -> None:
        self.found: dict[str, list[int]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.failed:
            trials = dict(report.user_properties).get("trials", 1)
            counts = self.found.setdefault(report.nodeid.partition("[")[0], [0, 0])
            counts[0] += trials if report.passed else 0
            counts[1] += trials


def run(words: list[str]) -> None:
    """Run the marked tests, or those of them that `words` name, and keep their outcomes."""
    outcomes = Outcomes()
    pytest.main([*(words or [str(HOME / "tests")]), "-m", "fault", "-q", "--rootdir", str(HOME)], plugins=[outcomes])
    git = ["git", "-C", str(HOME), "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    known = json.loads(OUTCOMES.read_text()) | {test: [*counts, commit] for test, counts in outcomes.found.items()}
    lines = [f'"{test}": {json.dumps(known[test])}' for test in sorted(known)]
    OUTCOMES.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def rows() -> list[tuple[str, str, str, str, str]]:
    """(fault, promise, trials, outcome, test) of each marked test, by file and place."""
    found, outcomes = [], json.loads(OUTCOMES.read_text())
    for path in sorted((HOME / "tests").rglob("test_*.py")):
        file = path.relative_to(HOME).as_posix()
        for test in ast.parse(path.read_text(encoding="utf-8")).body:
            for mark in test.decorator_list if isinstance(test, ast.FunctionDef) else ():
                if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.fault":
                    told = {word.arg: ast.literal_eval(word.value) for word in mark.keywords}
                    held, trials, commit = outcomes.get(f"{file}::{test.name}", (0, 0, None))
                    outcome = f"{held} of {trials} ({commit})" if commit else "-"
                    link = f"[`{test.name}`](../{file})"
                    found.append((ast.literal_eval(mark.args[0]), told["promise"], told["trials"], outcome, link))
    return found


def page() -> str:
    """The text of docs/reliability.md."""
    return HEAD + "".join(f"| {' | '.join(row)} |\n" for row in rows())


if __name__ == "__main__":
    if sys.argv[1:2] == ["--run"]:
        run(sys.argv[2:])
    PAGE.write_text(page(), encoding="utf-8")
