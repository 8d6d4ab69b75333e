"""The wheel is built, installed into an environment of its own and run from an empty folder."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
from pathlib import Path

import pytest
from packaging.requirements import Requirement

REPOSITORY = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def pins(file: str) -> dict[str, str]:
    """Versions by package."""
    return {n.lower(): v for n, v in re.findall(r"(?m)^([\w.-]+)==(\S+)", (REPOSITORY / file).read_text())}


PINNED = pins("requirements.txt")


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The folder with the commands of a fresh environment that has the wheel, and borrows the libraries of this one."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in ("src", "conf"):
        shutil.copytree(REPOSITORY / name, folder / name, symlinks=True, ignore=shutil.ignore_patterns("*.egg-info"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, folder)
    pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", "dist", "."], cwd=folder, check=True)
    venv.create(folder / "own")
    (wheel,) = (folder / "dist").glob("winnow-*.whl")
    subprocess.run(
        [*pip, "--python", folder / "own" / "bin" / "python", "install", "--no-deps", wheel], cwd=folder, check=True
    )
    (site,) = (folder / "own" / "lib").glob("python*/site-packages")
    # A path in a .pth file is searched last, and .pth files in it are not read: an editable Winnow there is not seen.
    (site / "libraries.pth").write_text(sysconfig.get_paths()["purelib"], encoding="utf-8")
    return folder / "own" / "bin"


def call(*command, cwd) -> str:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_wheel_runs_from_an_empty_folder(installed, tmp_path):
    """It finds its own configuration and texts, in its own package, and scores and selects the embedded pool."""
    where = call(installed / "python", "-c", "import winnow.config; print(winnow.config.CONF)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(installed.parent / "lib")
    texts = "import winnow.data.nlu.instructions, winnow.perturb.noising.passages"
    call(installed / "python", "-c", texts, cwd=tmp_path)
    page = call(installed / "winnow", "--help", cwd=tmp_path)
    assert "method: adg, aifd, aioec, column, consistency" in page and "_base" not in page
    words = ["stages=[score,select]", "method=length", "tracking=none", "paths.run=run", "trainer=cpu"]
    call(installed / "winnow", *words, cwd=tmp_path)
    assert (tmp_path / "run" / "scores.parquet").is_file() and (tmp_path / "run" / "selection.json").is_file()


@pytest.mark.slow
def test_the_wheel_holds_every_file_of_the_package(installed):
    """The hashes of the code among them: without these every fingerprint would be another. A link is not followed."""
    (site,) = (installed.parent / "lib").glob("python*/site-packages")
    source = REPOSITORY / "src"
    files = [file.relative_to(source) for file in (source / "winnow").rglob("*") if file.is_file()]
    assert {str(file) for file in files if file.suffix != ".pyc" and not (site / file).is_file()} == set()


def test_every_dependency_is_pinned_within_its_bounds():
    """requirements.txt holds one version of everything that the wheel asks for, and it is the oldest that is allowed:
    no older one has been tried. The extras that set-up does not install are free."""
    free = {"tracking", "trackio", "quantized"}
    extras = {name: packages for name, packages in PROJECT["optional-dependencies"].items() if name not in free}
    asked = [*PROJECT["dependencies"], *(one for packages in extras.values() for one in packages)]
    requirements = [Requirement(one) for one in asked if not one.startswith("winnow[")]
    for one in requirements:
        pinned = PINNED[one.name.lower()]
        (oldest,) = [bound.version for bound in one.specifier if bound.operator == ">="]
        assert pinned in one.specifier and pinned.startswith(oldest), one
    assert {one.name.lower() for one in requirements} == set(PINNED)


def test_the_set_with_transformers_5_is_within_the_bounds_and_attacks_alone_refuse_it():
    pinned, extras = PINNED | pins("requirements-transformers-5.txt"), PROJECT["optional-dependencies"]
    for one in map(Requirement, [*PROJECT["dependencies"], *extras["trackio"]]):
        assert pinned[one.name.lower()] in one.specifier, one
    refused = [one.name for one in map(Requirement, extras["attacks"]) if pinned[one.name] not in one.specifier]
    assert refused == ["transformers"]
