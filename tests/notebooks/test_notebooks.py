"""The notebooks: as they lie there they are complete and clean; each runs at smoke size."""

from __future__ import annotations

import base64
import os
import re
import struct
import sys
from pathlib import Path

import nbformat
import pytest
import torch
from composed import build
from nbclient import NotebookClient
from transformers import AutoModelForCausalLM

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
PLOTS = {
    "1_pool_and_scores": 3,
    "2_attacked_prompts": 2,
    "3_noise_across_beta": 3,
    "4_answer_divergence": 3,
    "5_robust_tuning": 3,
    "6_compare_a_sweep": 3,
}
SMOKE = {"WINNOW_NOTEBOOK_RECORDS": "8", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
LARGEST = 400_000  # bytes of a notebook
# A place on somebody's machine: /home/..., C:\..., a temporary folder, an environment's packages.
PLACES = re.compile(r"(?<![\w.])/(home|root|Users|tmp|var|mnt|opt|usr)/|[A-Z]:\\\\|site-packages|ipykernel_")


def read(name: str):
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def outputs(notebook):
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def pictures(notebook) -> list[bytes]:
    shown = [one.data for one in outputs(notebook) if one.output_type in ("display_data", "execute_result")]
    return [base64.b64decode(data["image/png"]) for data in shown if "image/png" in data]


def check_plots(notebook, wanted: int) -> None:
    """As many PNGs as wanted, each of a reader's width: 9 inches of 96 pixels, give or take what is cut off the rim."""
    found = pictures(notebook)
    assert len(found) == wanted
    for png in found:
        width, height = struct.unpack(">II", png[16:24])  # the header's first fields
        assert 700 <= width <= 1000 and 100 <= height <= 900


def check_quiet(notebook) -> None:
    """No error, and nothing on stderr: no warning, no progress bar."""
    for output in outputs(notebook):
        assert output.output_type != "error"
        assert output.get("name") != "stderr", output.text


def test_every_notebook_is_known():
    """A notebook without an entry in PLOTS would not be run by any test, and one missing in README.md not found."""
    names = sorted(path.stem for path in FOLDER.glob("*.ipynb"))
    told = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert names == sorted(PLOTS)
    assert all(f"{name}.ipynb" in told for name in names)


@pytest.mark.parametrize("name", PLOTS)
def test_kept_outputs_are_a_readers(name):
    """Executed once from top to bottom (cell counts 1, 2, 3, ...), with all its plots; no error, no warning, no path of
    the machine that made it, and small enough for a web page to show."""
    notebook = read(name)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert len(notebook.cells) <= 13
    check_plots(notebook, PLOTS[name])
    check_quiet(notebook)
    for cell in notebook.cells:
        assert not PLACES.search(cell.source)
    for output in outputs(notebook):
        texts = [output.get("text", ""), *(str(v) for k, v in output.get("data", {}).items() if k != "image/png")]
        assert not any(PLACES.search(text) for text in texts), texts
    assert (FOLDER / f"{name}.ipynb").stat().st_size < LARGEST


@pytest.fixture(scope="module")
def kernel(tmp_path_factory):
    """One kernel for all notebooks, in an empty folder that holds their store: imports and passes are paid for once."""
    place = tmp_path_factory.mktemp("notebooks")
    first = NotebookClient(nbformat.v4.new_notebook(), kernel_name="python3", startup_timeout=300)
    environment = os.environ | SMOKE | {"WINNOW_NOTEBOOK_FOLDER": str(place), "IPYTHONDIR": str(place / "ipython")}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)  # where `forked` lies
    with first.setup_kernel(cwd=str(place), env=environment):
        yield first.km


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> str:
    """The words for a random model of the packaged backbone's kind and words, a ninth as wide and four layers deep.
    Every ninth token ends an answer, so that answers have different lengths."""
    folder, source = tmp_path_factory.mktemp("small"), build("backbone/smollm2_135m")
    config = source.skeleton.config
    config.update({"num_hidden_layers": 4, "hidden_size": 64, "intermediate_size": 128, "initializer_range": 0.3})
    config.update({"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16})
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    model.generation_config.eos_token_id = list(range(2, config.vocab_size, 9))
    model.save_pretrained(folder)
    source.tokenizer.save_pretrained(folder)
    return f"backbone=hub backbone.dtype=fp32 backbone.name={folder}"


@pytest.mark.slow
@pytest.mark.parametrize("name", PLOTS)
def test_notebook_runs(kernel, small, name):
    """Every cell in order, with 8 records: no error, nothing on stderr, all plots. Variables of the notebook before are
    gone, as they are in a kernel of its own, from which the command of a sweep is forked."""
    notebook = read(name)
    begin = f"import os, forked, winnow.notebook\nos.environ['WINNOW_NOTEBOOK_WORDS'] = {small!r}\n"
    begin += "winnow.notebook.subprocess = forked\n%reset -f"
    notebook.cells.insert(0, nbformat.v4.new_code_cell(begin))
    NotebookClient(notebook, km=kernel, timeout=300).execute()
    check_quiet(notebook)
    check_plots(notebook, PLOTS[name])
