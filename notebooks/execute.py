"""Executes notebooks in place, outputs kept: `python notebooks/execute.py [NOTEBOOK ...]`, by default all."""

from __future__ import annotations

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).resolve().parent


def main(paths: list[str]) -> None:
    """Each notebook in a kernel of its own, working in its folder. Stops at the first error, which it shows."""
    for path in [Path(one) for one in paths] or sorted(HERE.glob("*.ipynb")):
        print(path.name, flush=True)
        notebook = nbformat.read(path, as_version=4)
        where = {"metadata": {"path": str(path.resolve().parent)}}
        # Times of day would make a new file of every execution.
        client = NotebookClient(notebook, timeout=None, startup_timeout=300, resources=where, record_timing=False)
        client.execute()
        notebook.metadata["language_info"] = {"name": "python"}
        nbformat.write(notebook, path)


if __name__ == "__main__":
    main(sys.argv[1:])
