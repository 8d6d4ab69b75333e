"""The licences of what is installed with Winnow: allowed, or named with who brings it."""

from __future__ import annotations

import ast
import importlib.util
import sys
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
spec = importlib.util.spec_from_file_location("licences", ROOT / "experiments" / "licences.py")
licences = importlib.util.module_from_spec(spec)
spec.loader.exec_module(licences)


@pytest.mark.parametrize(
    ("told", "is_allowed"),
    [
        ("MIT", True),
        ("Apache-2.0 WITH LLVM-exception AND BSD-3-Clause", True),
        ("Mozilla Public License 2.0 (MPL 2.0)", True),
        ("MIT License; Apache Software License", True),
        ("GPL-2.0-or-later", False),
        ("MIT AND GPL-3.0-only", False),
        ("GNU Lesser General Public License v2 or later (LGPLv2+)", False),
        ("", False),
    ],
)
def test_what_is_allowed(told, is_allowed):
    """Every part of an expression counts; copyleft on the whole work and an empty licence do not pass."""
    assert licences.allowed(told) == is_allowed


def test_every_package_is_allowed_or_named():
    found = licences.asked_for()
    assert {"torch", "textattack", "rapidfuzz", "numpy", "levenshtein"} <= set(found)
    others = {name: licences.licence(name) for name in found if not licences.allowed(licences.licence(name))}
    assert {name: told for name, told in others.items() if not licences.is_named(name)} == {}


def test_gpl_comes_with_textattack_alone():
    """Nobody but TextAttack asks for the two packages under the GPL, and they are no requirement of ours."""
    found = licences.asked_for()
    assert found["levenshtein"] == found["language-tool-python"] == {"textattack"}


def test_no_code_of_ours_imports_what_is_named():
    named = {name.replace("-", "_") for name in licences.NAMED}
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            assert not named & {name.split(".")[0].lower() for name in names}, path


def test_the_page_lists_every_requirement():
    text = (ROOT / "docs" / "licences.md").read_text(encoding="utf-8")
    for one in [*licences.direct()[0], *licences.direct()[1]]:
        assert f"| {canonicalize_name(one.name)} | " in text
    assert all(f"| {name} | {why} |" in text for name, why in licences.NAMED.items())
    assert "Winnow" in text and str(sys.prefix) not in text
