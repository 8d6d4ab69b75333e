"""The licences of all that is installed with Winnow: writes docs/licences.md.

    python experiments/licences.py

A package is listed with the licence that its own metadata tells, and with the packages that ask for it.
"""

from __future__ import annotations

import importlib.metadata
import re
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "licences.md"
# Parts of a licence's name or SPDX expression that leave Apache-2.0 code as it is.
ALLOWED = re.compile(
    r"(the )?(mit( license)?( \(mit\))?|mit-cmu|bsd( license)?|[023]-?clause bsd license|bsd-[23]-clause|0bsd|"
    r"apache[- ]2\.0|apache software license|isc( license \(iscl\))?|python software foundation license|psf-2\.0|"
    r"mozilla public license 2\.0 \(mpl 2\.0\)|mpl-2\.0|zlib|cc0-1\.0|bsl-1\.0|cnri-python|llvm-exception|unlicense)",
    re.IGNORECASE,
)
# Packages with another licence, or none in their metadata, and what is known of them. None is part of Winnow's code.
NAMED = {
    "levenshtein": "GPL-2.0-or-later: TextAttack imports it; Winnow counts edits with rapidfuzz (MIT)",
    "language-tool-python": "GPL-3.0-only: TextAttack's grammar constraint, which no attack here uses",
    "num2words": "LGPL: TextAttack's numbers in words, which no attack here uses",
    "chardet": "LGPL: lm-eval needs it through pytablewriter, to guess the encoding of texts",
    "pptree": "MIT by its repository, not by its metadata: flair, which TextAttack requires, prints trees with it",
    "nvidia-*, cuda-*": "NVIDIA's own terms: CUDA libraries of a GPU build of torch",
}


def direct() -> tuple[list[Requirement], list[Requirement]]:
    """The requirements of requirements.txt; the packages of model files, installed without their requirements."""
    lists = []
    for name in ("requirements.txt", "requirements-models.txt"):
        lines = [line.split("#")[0].strip() for line in (ROOT / name).read_text(encoding="utf-8").splitlines()]
        lists.append([Requirement(line) for line in lines if line])
    return lists[0], lists[1]


def asked_for() -> dict[str, set[str]]:
    """Every installed package that is asked for, directly or by another: name -> who asks."""
    asked, models = direct()
    found: dict[str, set[str]] = {canonicalize_name(one.name): {"Winnow"} for one in models}
    waiting = [(one, "Winnow") for one in asked]
    while waiting:
        wanted, by = waiting.pop()
        name = canonicalize_name(wanted.name)
        known = name in found
        try:
            needs = importlib.metadata.distribution(name).requires or []
        except importlib.metadata.PackageNotFoundError:
            continue  # for another system or Python than this
        found.setdefault(name, set()).add(by)
        if known and not wanted.extras:
            continue
        for need in map(Requirement, needs):
            here = need.marker is None or any(need.marker.evaluate({"extra": one}) for one in ("", *wanted.extras))
            if here and name not in found.get(canonicalize_name(need.name), set()):
                waiting.append((need, name))
    return found


def licence(name: str) -> str:
    """What the package's metadata tells: the SPDX expression, else the classifiers, else the first line of its text."""
    metadata = importlib.metadata.metadata(name)
    classifiers = [one.split("::")[-1].strip() for one in metadata.get_all("Classifier", []) if "License ::" in one]
    told = "; ".join(one for one in classifiers if one != "OSI Approved")
    return metadata.get("License-Expression") or told or (metadata.get("License") or "").strip().split("\n")[0]


def allowed(told: str) -> bool:
    """Whether every part of a licence's name or expression is on the list; False for none."""
    parts = [part.strip("() ") for part in re.split(r";| AND | OR | WITH ", told)]
    restored = [part + ")" if "(" in part and ")" not in part else part for part in parts]
    return all(ALLOWED.fullmatch(part) for part in restored)


def is_named(name: str) -> bool:
    """Whether NAMED lists the package."""
    return name in NAMED or name.startswith(("nvidia-", "cuda-"))


def page() -> str:
    """The content of docs/licences.md."""
    found = asked_for()
    licensed = [(name, licence(name) or "not stated", ", ".join(sorted(by))) for name, by in sorted(found.items())]
    rows = [f"| {' | '.join(cells)} |" for cells in licensed]
    named = [f"| {name} | {why} |" for name, why in NAMED.items()]
    return "\n".join(
        [
            "# Licences",
            "",
            "Winnow is Apache-2.0. `python experiments/licences.py` writes this page from the metadata of the "
            "installed\npackages. A test compares every package with the list of licences in that script.",
            "",
            "## Not on the list",
            "",
            "None of these packages is part of Winnow, and no code here imports one. They are dependencies of others. "
            "Leave\nTextAttack out if you pass on an environment without GPL.",
            "",
            "| package | licence, and the package that needs it |",
            "|---|---|",
            *named,
            "",
            "## All",
            "",
            "| package | licence | asked for by |",
            "|---|---|---|",
            *rows,
            "",
        ]
    )


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"{PAGE}: {len(asked_for())} packages")
