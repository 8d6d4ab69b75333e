"""The links of the pages lead to files of the repository."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")


def test_no_page_links_to_a_file_that_is_not_there():
    """Of files that git does not track a clone has none."""
    listed = subprocess.run(["git", "-C", str(ROOT), "ls-files"], capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("no git repository")
    files = set(listed.stdout.split("\n"))
    places = {os.path.normpath(parent) for file in files for parent in Path(file).parents} | files
    broken = [
        f"{page}: {link}"
        for page in files
        if page.endswith(".md")
        for link in LINK.findall((ROOT / page).read_text(encoding="utf-8"))
        if not link.startswith(("http", "mailto"))
        and os.path.normpath(os.path.join(os.path.dirname(page), link)) not in places
    ]
    assert len(files) > 100 and not broken
