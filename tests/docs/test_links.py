"""The links of the pages lead to files of the repository, to headings of them, and to tests."""

from __future__ import annotations

import ast
import os
import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINK = re.compile(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)")  # file, anchor


@cache
def tracked() -> set[str]:
    """All files of the repository: of files that git does not track a clone has none."""
    listed = subprocess.run(["git", "-C", str(ROOT), "ls-files"], capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("no git repository")
    return set(listed.stdout.split("\n"))


def pages() -> dict[str, str]:
    return {page: (ROOT / page).read_text(encoding="utf-8") for page in tracked() if page.endswith(".md")}


def test_no_page_links_to_a_file_that_is_not_there():
    files = tracked()
    places = {os.path.normpath(parent) for file in files for parent in Path(file).parents} | files
    broken = [
        f"{page}: {link}"
        for page, text in pages().items()
        for link, _ in LINK.findall(text)
        if link
        and not link.startswith(("http", "mailto"))
        and os.path.normpath(os.path.join(os.path.dirname(page), link)) not in places
    ]
    assert len(files) > 100 and not broken


def test_no_page_links_to_a_heading_that_is_not_there():
    """GitHub's anchor of a heading: lower case, no punctuation, a hyphen for a blank; `-1` for the second of a name."""
    headings: dict[str, set[str]] = {}
    for page, text in pages().items():
        plain = re.sub(r"^```.*?^```|<!--.*?-->", "", text, flags=re.MULTILINE | re.DOTALL)
        titles = [re.sub(r"\[(.*?)\]\(.*?\)", r"\1", title) for title in re.findall(r"^#+ (.+)$", plain, re.MULTILINE)]
        slugs = [re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-") for title in titles]
        again = (f"{slug}-{slugs[:place].count(slug)}" for place, slug in enumerate(slugs) if slug in slugs[:place])
        headings[page] = {*slugs, *again}
    links = [
        (page, os.path.normpath(os.path.join(os.path.dirname(page), link)) if link else page, anchor)
        for page, text in pages().items()
        for link, anchor in LINK.findall(text)
        if anchor and not link.startswith("http")
    ]
    assert len(links) > 30 and not [one for one in links if one[1] in headings and one[2] not in headings[one[1]]]


def test_no_page_names_a_test_that_is_not_there():
    """`tests/x.py`, `tests/x.py::test_y`; the pages on parts of one's own name files that a reader is to write."""
    named = {
        one
        for page, text in pages().items()
        if not page.startswith("docs/adding_")
        for one in re.findall(r"(tests/[\w/]+\.py)(?:::(\w+))?", text)
    }
    for file, name in sorted(named):
        assert file in tracked(), file
        body = ast.parse((ROOT / file).read_text(encoding="utf-8")).body
        assert not name or name in [one.name for one in body if isinstance(one, ast.FunctionDef)], f"{file}::{name}"
    assert sum(bool(name) for _, name in named) > 5
