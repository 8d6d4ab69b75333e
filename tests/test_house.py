"""The house: no package imports its user, and no name stands where nothing uses it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import winnow

HOUSE = Path(winnow.__file__).parent
FLOORS = [
    *("errors", "draws", "quiet", "network", "store", "distributed", "sharding", "trainer", "config", "messages"),
    *("data", "backbone", "perturb", "scoring", "selection", "tuning", "evaluation"),
    *("pages", "tracking", "stages", "sweeps", "reproduce", "compare"),
    *("console", "pipeline", "hub", "commands", "notebook", "__main__"),
]


def room(module: str) -> str | None:
    """`store` of `winnow.store.files`, None of other packages' modules."""
    root, _, rest = module.partition(".")
    return rest.partition(".")[0] if root == "winnow" and rest else None


def imports(source: str) -> set[str]:
    """The rooms that a module imports, wherever in it an import stands: in functions and for type checkers too."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {room(alias.name) for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == "winnow":
            found |= {alias.name for alias in node.names} - {"__version__"}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "an import relative to its place"
            found.add(room(node.module))
    return found - {None}


FILES = {path: path.read_text(encoding="utf-8") for path in sorted(HOUSE.rglob("*.py"))}


def floor(path: Path) -> str:
    inside = path.relative_to(HOUSE)
    return inside.parts[0] if len(inside.parts) > 1 else inside.stem


def test_imports_are_found_wherever_they_stand():
    """All four forms, at the top, in a function and for type checkers; other packages are none of the house's."""
    source = """
import os, winnow.store.files
from winnow.data.records import Record
from winnow import draws, pipeline
from winnowing.pages import page
if TYPE_CHECKING:
    from winnow.tuning.tuner import Tuner
def f():
    import winnow.config as config
"""
    assert imports(source) == {"store", "data", "draws", "pipeline", "tuning", "config"}


def test_every_package_has_its_floor():
    assert {floor(path) for path in FILES} - {"__init__"} == set(FLOORS) and len(set(FLOORS)) == len(FLOORS)


@pytest.mark.parametrize("name", FLOORS)
def test_no_package_imports_its_user(name):
    """A package imports what lies below it alone, so that there is no circle: the order of FLOORS is one in which the
    house can be built."""
    below = {*FLOORS[: FLOORS.index(name)], name}
    above = {
        f"{path.relative_to(HOUSE)} imports {other}"
        for path, source in FILES.items()
        if floor(path) == name
        for other in imports(source) - below
    }
    assert not above


def test_one_way_to_write_a_file():
    """Files that others may read while they are written, and those that a kill may cut, go through `store.files`."""
    moving = ("os.replace(", "os.rename(", "shutil.move(", "NamedTemporaryFile(", "mkdtemp(", "mkstemp(")
    assert {floor(path) for path, source in FILES.items() if any(one in source for one in moving)} == {"store"}


def names(tree: ast.AST) -> set[str]:
    """All names that code reads or imports, both parts of `a.b`."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            found.add(node.id)
        elif isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, ast.alias):
            found.add(node.name.rpartition(".")[2])
    return found


def test_no_public_name_is_dead():
    """Every public function, class and constant of a module is named again: by code of the house (its own module
    included), or by a file that is no Python: conf/ names classes, the evaluation's YAML functions, docs/ what is there
    for a reader's own code."""
    trees = {path: ast.parse(source) for path, source in FILES.items()}
    used = set().union(*map(names, trees.values()))
    other = "".join(
        path.read_text(encoding="utf-8")
        for folder in (HOUSE, (HOUSE / "conf").resolve(), HOUSE.parents[1] / "notebooks", HOUSE.parents[1] / "docs")
        for kind in ("*.yaml", "*.j2", "*.ipynb", "*.md")
        for path in folder.rglob(kind)
    )
    project = (HOUSE.parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    dead = set()
    for path, tree in trees.items():
        for node in tree.body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                own = [node.name]
            elif isinstance(node, (ast.Assign, ast.AnnAssign)):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                own = [name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)]
            else:
                continue
            dead |= {f"{path.relative_to(HOUSE)}: {name}" for name in own if name[0] != "_" and name not in used}
    assert {one for one in dead if one.partition(": ")[2] not in other + project} == set()
