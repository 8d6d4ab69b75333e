"""The examples of the pages `docs/adding_*.md` are written into a folder as a user would, and run."""

from __future__ import annotations

import importlib
import json
import linecache
import re
import runpy
import shlex
import shutil
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from composed import CONF, config, on_tiny, template
from hydra.utils import instantiate
from tiny import tiny_model
from tiny_passes import compute, make_records

from winnow import pipeline
from winnow.evaluation import catalogue
from winnow.evaluation.harness import evaluate_model
from winnow.evaluation.model import HarnessModel

DOCS = CONF.parent / "docs"
PAGES = sorted(DOCS.glob("adding_*.md"))
TASKS = "src/winnow/evaluation/tasks/"
# A block is a file: named in its own first line, or, where a format has no comments, in the line above it.
BLOCK = re.compile(
    r"^(?:`(?P<above>[^`\n]+)`:\n\n)?```\w+\n(?:# (?P<inside>\S+\.\w+)\n)?(?P<text>.*?)^```$", re.M | re.S
)
COMMAND = re.compile(r"^    (?:PYTHONPATH=\. )?winnow (.*)$", re.M)


def blocks(page: Path) -> dict[str, str]:
    """File name -> content, of all code blocks of a page."""
    found = {}
    for match in BLOCK.finditer(page.read_text(encoding="utf-8")):
        name = match["above"] or match["inside"]
        assert name, f"{page.name}: a block without a file name: {match['text'][:60]!r}"
        found[name] = match["text"]
    return found


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Writes a page's files into a fresh project, the working folder, whose package `ideas` can be imported."""
    project = tmp_path / "project"
    project.mkdir()
    monkeypatch.chdir(project)
    monkeypatch.syspath_prepend(str(project))

    def write(page: str) -> Path:
        files = blocks(DOCS / f"{page}.md")
        for name, text in files.items():
            path = project / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return project

    forget()
    yield write
    forget()


@pytest.fixture
def run(tiny_folder, tmp_path):
    """Runs the pipeline on the tiny backbone with the project's YAMLs on the search path."""

    def call(*overrides: str, folder: str = "run") -> Path:
        cfg = config(
            "hydra.searchpath=[file://conf]",
            *on_tiny(tiny_folder),
            "data.limit=12",
            "selection.ratio=0.5",
            "tuning.max_steps=2",
            "tuning.batch_size=2",
            "tuning.micro_batch_size=2",
            "tracking=none",
            f"paths.run={tmp_path / folder}",
            f"paths.store={tmp_path / 'store'}",
            *overrides,
        )
        pipeline.run(cfg)
        return tmp_path / folder

    return call


def run_tests_of(path: Path) -> None:
    """The page's own test functions, which need no fixtures."""
    found = {name: value for name, value in runpy.run_path(str(path)).items() if name.startswith("test_")}
    assert len(found) > 1
    for test in found.values():
        test()


def card(folder: Path) -> dict:
    return json.loads((folder / "run_card.json").read_text())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_compose_and_links_lead_somewhere(page, written):
    """Every `winnow ...` of a page composes with the page's YAMLs (each first choice of a sweep), and the
    pages name one another."""
    assert len(PAGES) == 6
    written(page.stem)
    text = page.read_text(encoding="utf-8")
    commands = COMMAND.findall(text)
    assert commands or page.stem == "adding_a_suite"
    for command in commands:
        words = [word for word in shlex.split(command) if word != "-m" and "searchpath" not in word]
        single = [re.sub(r"(=[^\[,]*),.*", r"\1", word) for word in words]
        cfg = config("hydra.searchpath=[file://conf]", *single)
        assert cfg.method.name
    links = {link.split("#")[0] for link in re.findall(r"\]\(([^)]+)\)", text)}
    assert {other.name for other in PAGES if other != page} <= links
    assert all((DOCS / link).exists() for link in links if link)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_key_of_a_yaml_is_explained(page):
    """As in conf/: a comment at the top of each YAML that configures something."""
    yamls = {name: text for name, text in blocks(page).items() if name.endswith(".yaml")}
    assert yamls and all(any(line.startswith("#") for line in text.splitlines()[:2]) for text in yamls.values())


def test_method(written, run):
    """After `ifd` nothing is computed, and the score is s(A) - s(A|Q) of the columns that `ifd` kept. Nor for a target
    that is the pool's first three records: the score is the distance of s(A|Q) from the mean of these three."""
    written("adding_a_method")
    ifd = run("stages=[score]")
    gap = run("stages=[score]", "method=gap", folder="gap")
    assert card(ifd)["stages"]["score"]["status"] == "computed" and card(gap)["stages"]["score"]["status"] == "reused"
    losses, scores = (pq.read_table(folder / "scores.parquet").to_pylist() for folder in (ifd, gap))
    expected = [row["nll_direct"] - row["nll_conditioned"] for row in losses]
    assert [row["score"] for row in scores] == pytest.approx(expected) and len(scores) == 12
    aimed = run("stages=[score]", "method=likeness", "data@target=embedded", "target.limit=3", folder="likeness")
    assert card(aimed)["stages"]["score"]["status"] == "reused" and card(aimed)["data"]["target"]["n_records"] == 3
    own = [row["nll_conditioned"] for row in losses]
    distances = [abs(one - sum(own[:3]) / 3) for one in own]
    assert pq.read_table(aimed / "scores.parquet")["score"].to_pylist() == pytest.approx(distances)


def test_attack(written, run):
    """The page's own tests; and in a run every attacked prompt is its instruction with capitals, and AIFD is the loss
    under that prompt over the loss without one."""
    project = written("adding_an_attack")
    run_tests_of(project / "tests" / "test_shout.py")
    folder = run("stages=[score]", "method=aifd", "attack=shout", "attack.use.shout.share=0.5")
    rows = pq.read_table(folder / "attacks.parquet").to_pylist()
    assert {row["attack"] for row in rows} == {"shout"} and len(rows) == 12
    for row in rows:
        assert row["prompt"] != row["instruction"] and row["prompt"].lower() == row["instruction"].lower()
        changed = [a != b for a, b in zip(row["prompt"].split(" "), row["instruction"].split(" "), strict=True)]
        assert sum(changed) == row["words_changed"] > 0
    assert all(row["score"] is not None for row in pq.read_table(folder / "scores.parquet").to_pylist())


def test_adversary(written, run):
    """The page's own tests; and in a run the loss that is trained on at step 1, from the same weights and records, is
    above the clean one: a small step up the gradient raises it."""
    project = written("adding_an_adversary")
    run_tests_of(project / "tests" / "test_steepest.py")
    small = ("stages=[score,select,tune]", "method=length", "tuning.lora_dropout=0")
    plain = run(*small)
    steep = run(*small, "adversary=steepest", "adversary.epsilon=0.01", folder="steep")
    first = [json.loads((folder / "tuning.json").read_text())["train_loss"][0]["loss"] for folder in (plain, steep)]
    assert first[0] < first[1] < first[0] + 1
    assert json.loads((steep / "tuning.json").read_text())["adversary"]["class"] == "ideas.steepest.Steepest"


def test_a_subclass_has_a_model_of_its_own(written, run):
    """Descent differs from NRM in its loss alone: it is tuned although NRM's model is in the store, and the loss of its
    first step is NRM's without the clean one, which adversary=none has."""
    written("adding_an_adversary")
    small = ("stages=[score,select,tune]", "method=length", "tuning.lora_dropout=0")
    folders = [run(*small, f"adversary={name}", folder=name) for name in ("none", "nrm", "descent")]
    assert [card(folder)["stages"]["tune"]["status"] for folder in folders] == ["computed"] * 3
    assert card(run(*small, "adversary=descent", folder="again"))["stages"]["tune"]["status"] == "reused"
    clean, both, own = (json.loads((folder / "tuning.json").read_text())["train_loss"][0]["loss"] for folder in folders)
    assert own == pytest.approx(both - clean, abs=1e-5) and len({(one / "model").resolve() for one in folders}) == 3


def test_pass(written, run):
    """The mean largest probability lies between 1 / vocabulary and 1, and a lower temperature raises it. The same pass
    is not computed twice."""
    written("adding_a_pass")
    own = ("stages=[score]", "method=hesitation")
    folders = [run(*own, f"method.temperature={one}", folder=f"at {one}") for one in (1, 0.5, 1.0)]
    assert [card(folder)["stages"]["score"]["status"] for folder in folders] == ["computed", "computed", "reused"]
    warm, cold, again = (pq.read_table(folder / "scores.parquet")["score"].to_pylist() for folder in folders)
    assert again == warm and all(0 < a < b <= 1 for a, b in zip(warm, cold, strict=True))


def test_gradient_pass(written, backbone, tmp_path):
    """The norms do not depend on the batch, and are those of the derivative: along its own direction u, the loss at
    embeds + h u and embeds - h u differs by 2 h |g|."""
    written("adding_a_pass")
    from ideas.slope import Slope

    records = make_records(5)
    one, all_ = (compute(backbone, records, tmp_path / str(size), Slope(), size) for size in (1, 4096))
    assert one.numbers("slope") == pytest.approx(all_.numbers("slope"), rel=1e-4) and (one.numbers("slope") > 0).all()
    encoded = template("alpaca").encode(records[:1], backbone.tokenizer)[0]
    ids, model = torch.tensor([encoded.ids]), backbone.model

    def loss(embeds):
        logits = model(inputs_embeds=embeds).logits[0, encoded.answer_start - 1 : -1]
        return torch.nn.functional.cross_entropy(logits, ids[0, encoded.answer_start :])

    embeds = model.get_input_embeddings()(ids).requires_grad_()
    (gradient,) = torch.autograd.grad(loss(embeds), embeds)
    step = 1e-2 * gradient / gradient.norm()
    with torch.no_grad():
        slope = (loss(embeds + step) - loss(embeds - step)) / 2e-2
    assert float(slope) == pytest.approx(one.numbers("slope")[0], rel=0.02)


def test_noising(written, run):
    """The page's own tests; and the noising in the robust suite, under its own name."""
    project = written("adding_a_noising")
    run_tests_of(project / "tests" / "test_doubling.py")
    noises = "evaluation.noises=[replacement,ideas.doubling.Doubling]"
    cfg = config("evaluation=nlu_robust", noises, "evaluation.omegas=[1]")
    suite = instantiate(cfg.evaluation)
    names = [task.task for task in suite.tasks]
    assert names == ["sst2/clean", "sst2/replacement@1", "sst2/doubling@1"] and "sst2/doubling" in suite.averages
    record = make_records(2)[1]
    (noised,) = suite.nlu.noised([record], suite.conditions()["sst2/doubling@1"])
    assert noised.instruction.split() == [word for word in record.instruction.split() for _ in range(2)]


def test_the_whole_path_of_a_stranger(written, run):
    """A method with a pass of its own, a noising and an adversary by subclassing, all of them from the pages, through
    score, select and tune. The second run finds everything; an edit of the adversary's file tunes anew, and of the
    pass's file scores anew."""
    for page in ("adding_a_pass", "adding_a_noising", "adding_an_adversary"):
        project = written(page)
    own = ("stages=[score,select,tune]", "method=hesitation", "noising=doubling", "adversary=descent")

    def statuses(folder: str) -> list[str]:
        stages = card(run(*own, folder=folder))["stages"]
        return [stages["score"]["status"], stages["tune"]["status"]]

    assert statuses("first") == ["computed", "computed"] and statuses("second") == ["reused", "reused"]
    subset = json.loads((project / "../first/selection.json").read_text())
    assert subset["n_selected"] == 6
    edit(project / "ideas" / "descent.py", "- loss_of(embeds)", "- 2 * loss_of(embeds)")
    assert statuses("third") == ["reused", "computed"]
    edit(project / "ideas" / "confidence.py", ".amax(-1)", ".amin(-1)")
    assert statuses("fourth")[0] == "computed"


def edit(file: Path, old: str, new: str) -> None:
    """The file changed, and imported afresh by the next run."""
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new), encoding="utf-8")
    forget()


def forget() -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "ideas"]:
        del sys.modules[name]
    importlib.invalidate_caches()
    linecache.clearcache()


@pytest.fixture
def with_tasks(monkeypatch, tmp_path):
    """Winnow's own tasks and a page's beside them, as if they lay in the repository."""

    def add(project: Path) -> None:
        tasks = tmp_path / "tasks"
        shutil.copytree(catalogue.OWN_TASKS, tasks)
        shutil.copytree(project / TASKS, tasks, dirs_exist_ok=True)
        monkeypatch.setattr(catalogue, "OWN_TASKS", tasks)
        catalogue._own_index.cache_clear()

    yield add
    catalogue._own_index.cache_clear()


def test_suite_and_task(written, with_tasks, tokenizer, tmp_path, monkeypatch):
    """The shortest answer always wins: Lima, Nairobi, Oslo, Seoul, of which two are right: 2 / 4. The average is the
    mean of the two accuracies."""
    with_tasks(written("adding_a_suite"))
    monkeypatch.setattr(
        HarnessModel, "loglikelihood", lambda self, asked, **_: [(-float(len(one.args[1])), False) for one in asked]
    )
    cfg = config("hydra.searchpath=[file://conf]", "evaluation=capitals", "evaluation.mirror=questions")
    suite = instantiate(cfg.evaluation)
    found = evaluate_model(tiny_model(), tokenizer, suite, template("alpaca"), tmp_path / "out")["metrics"]
    assert found["capitals/acc"]["value"] == 0.5 and found["capitals/acc"]["n"] == 4
    assert found["average/choice"]["value"] == pytest.approx((0.5 + found["embedded_choice/acc_norm"]["value"]) / 2)


def test_nlu_data_set(written, with_tasks, tokenizer, tmp_path, monkeypatch):
    """Records as the page says, and `Happiness.`, which the page's spelling reads as joy, right in two of four."""
    from winnow.data.nlu import datasets, instructions

    for known in (datasets.DATASETS, instructions.INSTRUCTIONS, instructions.OPPOSITE):
        monkeypatch.setitem(known, "feelings", None)  # put back afterwards: the page sets it
    with_tasks(written("adding_a_suite"))
    cfg = config(
        "hydra.searchpath=[file://conf]", "data=feelings", "data.path=reviews", "data.split=test", "evaluation=nlu"
    )
    records = instantiate(cfg.data).records
    assert [record.output for record in records] == ["joy", "fear", "anger", "joy"]
    assert records[0].input.splitlines()[2:] == ["Options: joy, fear, anger", "Text: What a day!"]
    monkeypatch.setattr(HarnessModel, "generate_until", lambda self, asked, **_: ["Happiness."] * len(asked))
    suite = instantiate(cfg.evaluation)
    found = evaluate_model(tiny_model(), tokenizer, suite, template("alpaca"), tmp_path / "out")["metrics"]
    assert found["feelings/micro_f1"]["value"] == 0.5 and found["feelings/unreadable"]["value"] == 0
