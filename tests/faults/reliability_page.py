"""`python tests/faults/reliability_page.py` writes docs/reliability.md from the tests that carry the marker `fault`."""

from __future__ import annotations

import ast
from pathlib import Path

HOME = Path(__file__).resolve().parents[2]
PAGE = HOME / "docs" / "reliability.md"
HEAD = """# Reliability

What is done to Winnow on purpose, what it promises then, and the test that does it. `make test` runs all of them, so
each row is what a passing test has shown. `python tests/faults/reliability_page.py` writes the page from the tests that
carry the marker `fault`, and a test refuses a page that is not current. Thirty kills a stage, in place of two:

    WINNOW_KILL_TRIALS=30 python -m pytest tests/faults/test_kills.py -k killed_run

| Fault | Promise | Trials | Test |
|---|---|---|---|
"""


def rows() -> list[tuple[str, str, str, str]]:
    """(fault, promise, trials, test) of each marked test, by file and place."""
    found = []
    for path in sorted((HOME / "tests").rglob("test_*.py")):
        for test in ast.parse(path.read_text(encoding="utf-8")).body:
            for mark in test.decorator_list if isinstance(test, ast.FunctionDef) else ():
                if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.fault":
                    told = {word.arg: ast.literal_eval(word.value) for word in mark.keywords}
                    place = f"[`{test.name}`](../{path.relative_to(HOME).as_posix()})"
                    found.append((ast.literal_eval(mark.args[0]), told["promise"], told["trials"], place))
    return found


def page() -> str:
    """The text of docs/reliability.md."""
    return HEAD + "".join(f"| {' | '.join(row)} |\n" for row in rows())


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
