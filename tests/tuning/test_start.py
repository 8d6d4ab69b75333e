"""Tuning that goes on from a model that was tuned before, or that is tuned on another pool first."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from shutil import copytree
from types import SimpleNamespace

import pytest
import torch
from composed import config, on_tiny, places
from peft import PeftModel
from test_resume import Stopped, stopping
from tiny_passes import make_records
from tiny_tuning import CPU, difference, tiny_backbone, tiny_records, tuner
from transformers import AutoModelForCausalLM
from trials import call

from winnow import pipeline
from winnow.errors import UserError
from winnow.stages.tune import recipe_of
from winnow.tuning.saving import BACKBONE_FILE, load_tuned, weights_digest
from winnow.tuning.start import ModelStart, PoolStart

SMALL = {"batch_size": 8, "micro_batch_size": 4, "learning_rate": 1e-2, "lora_r": 4, "max_steps": 4}
STILL = {"learning_rate": 1e-30, "max_steps": 1}  # AdamW moves a weight by about the learning rate in each step
WHOLE = {"batch_size": 24, "micro_batch_size": 24, "lora_dropout": 0.0, "schedule": "constant", "warmup_ratio": 0.0}
IDS = torch.tensor([[5, 9, 2, 30, 1]])


def tune(folder, start=None, backbone=None, adversary=None, **settings):
    # Full tuning trains the weights that it is given.
    given = replace(backbone, model=copy.deepcopy(backbone.model)) if backbone else tiny_backbone()
    return tuner(**{**SMALL, **settings}).fit(given, tiny_records(), folder, adversary, trainer_args=CPU, start=start)


@pytest.mark.parametrize("mode", ["lora", "full"])
def test_a_start_that_has_learnt_nothing_is_the_backbone(mode, tmp_path):
    """With a learning rate of 1e-30 the start is what the same seed begins with: four steps from it end where four
    steps from the backbone end, and that is elsewhere than where they began."""
    tune(tmp_path / "still", mode=mode, **STILL)
    tune(tmp_path / "there", start=tmp_path / "still" / "model", mode=mode)
    tune(tmp_path / "straight", mode=mode)
    assert difference(tmp_path / "there", tmp_path / "straight") < 1e-6
    assert difference(tmp_path / "there", tmp_path / "still") > 1e-3


@pytest.mark.parametrize("mode", ["lora", "full"])
def test_standing_still_keeps_the_start(mode, tmp_path):
    """One step of 1e-30 from a tuned model, with a seed that would begin with other adapters, saves that model: in its
    weights and as ordinary code loads it, one adapter on the backbone itself."""
    backbone = tiny_backbone()
    backbone.model.save_pretrained(tmp_path / "base")
    backbone.model.config._name_or_path = str(tmp_path / "base")
    tune(tmp_path / "a", backbone=backbone, mode=mode)
    told = tune(tmp_path / "b", start=tmp_path / "a" / "model", backbone=backbone, mode=mode, seed=7, **STILL)
    tune(tmp_path / "fresh", backbone=backbone, mode=mode, seed=7, **STILL)
    assert difference(tmp_path / "b", tmp_path / "a") < 1e-6
    assert difference(tmp_path / "fresh", tmp_path / "a") > 1e-3
    assert told["start"] == weights_digest(tmp_path / "a" / "model")
    assert told["start"] in (tmp_path / "b" / "model" / "README.md").read_text()
    if mode == "lora":
        plain = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
        plain = PeftModel.from_pretrained(plain, str(tmp_path / "b" / "model")).eval()
    else:
        plain = AutoModelForCausalLM.from_pretrained(tmp_path / "b" / "model").eval()
    with torch.no_grad():
        first = load_tuned(backbone, tmp_path / "a" / "model").model(input_ids=IDS).logits
        assert torch.allclose(plain(input_ids=IDS).logits, first, atol=1e-6)
        assert not torch.allclose(backbone.model(input_ids=IDS).logits, first, atol=1e-2)


@pytest.mark.parametrize("mode", ["lora", "full"])
def test_the_first_loss_is_that_of_the_start(mode, tmp_path):
    """All 22 records in one batch, a constant rate, no dropout: a run of three steps is the beginning of one of four,
    whose fourth loss is that of the weights after three. A run that starts from these has it as its first."""
    tune(tmp_path / "three", mode=mode, **WHOLE, max_steps=3)
    four = tune(tmp_path / "four", mode=mode, **WHOLE)
    again = tune(tmp_path / "on", start=tmp_path / "three" / "model", mode=mode, **WHOLE, max_steps=1)
    assert again["train_loss"][0]["loss"] == pytest.approx(four["train_loss"][3]["loss"], abs=1e-6)
    assert abs(four["train_loss"][3]["loss"] - four["train_loss"][0]["loss"]) > 1e-2


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"lora_r": 2}, "has r=4, but the run's settings give 2; set tuning.lora_r to that"),
        ({"lora_alpha": 3}, "has lora_alpha=16, but the run's settings give 3"),
        ({"lora_target_modules": ["q_proj"]}, "adapts down_proj, .*, v_proj, but the run's settings adapt q_proj;"),
        ({"mode": "full"}, "holds an adapter, but tuning.mode=full; set tuning.mode=lora"),
    ],
    ids=["r", "alpha", "targets", "mode"],
)
def test_an_adapter_of_another_shape_is_refused(settings, told, tmp_path):
    """The settings must describe the saved matrices and their scale."""
    tune(tmp_path / "a", **STILL)
    with pytest.raises(UserError, match=told):
        tune(tmp_path / "b", start=tmp_path / "a" / "model", **settings)


def test_an_adapter_of_another_dropout_is_a_start(tmp_path):
    """That is a matter of training. The modules may be called otherwise: all seven kinds are all linear layers."""
    tune(tmp_path / "a", **STILL)
    seven = [f"{kind}_proj" for kind in ("q", "k", "v", "o", "up", "down", "gate")]
    told = tune(tmp_path / "c", tmp_path / "a" / "model", lora_dropout=0.5, lora_target_modules=seven, max_steps=1)
    assert told["start"] is not None


def test_an_adapter_of_a_changed_backbone_is_refused(tmp_path):
    """Such an adapter on the backbone itself is another model than the one that was saved."""
    tune(tmp_path / "a", **STILL)
    file = tmp_path / "a" / "model" / "adapter_config.json"
    for init in ("pissa_niter_4", "olora"):
        file.write_text(json.dumps(json.loads(file.read_text()) | {"init_lora_weights": init}))
        with pytest.raises(UserError, match=f"has init_lora_weights={init} .*convert it to a plain LoRA adapter first"):
            tune(tmp_path / "b", start=tmp_path / "a" / "model")


def test_a_full_model_is_no_start_for_adapters(tmp_path):
    """An adapter saved after that would sit on weights that are not the backbone's."""
    tune(tmp_path / "a", mode="full", **STILL)
    with pytest.raises(UserError, match="holds a full model, but tuning.mode=lora"):
        tune(tmp_path / "b", start=tmp_path / "a" / "model")


@pytest.mark.parametrize("mode", ["lora", "full"])
def test_another_backbone_is_refused(mode, backbone, tmp_path):
    """By the name in the model's folder, whatever dtype and attention it was run with; without one by the shapes: the
    tiny backbone of the other tests is twice as wide."""
    tune(tmp_path / "a", mode=mode, **STILL)
    saved = tmp_path / "a" / "model"
    other = tiny_backbone()
    other.identity = {"name": "other"}
    with pytest.raises(UserError, match=r"another backbone \(name tiny there, other here\)"):
        tune(tmp_path / "b", saved, other, mode=mode)
    recast = tiny_backbone()
    recast.identity = {"name": "tiny", "dtype": "bf16", "attention": "eager"}
    tune(tmp_path / "c", saved, recast, mode=mode, max_steps=1)
    (saved / BACKBONE_FILE).unlink()
    with pytest.raises(UserError, match=r"another backbone \(\d+ weights differ in shape, .*\) there, \(.*\) here"):
        tune(tmp_path / "d", saved, backbone, mode=mode)


def test_checkpoints_of_another_start_are_refused(tmp_path):
    """A run that began elsewhere is another run."""
    tune(tmp_path / "a", **STILL)
    with pytest.raises(Stopped):
        tune(tmp_path / "b", adversary=stopping(6), checkpoint_every_steps=1)
    with pytest.raises(UserError, match=r"another run \(start: None then, [0-9a-f]{16} now\)"):
        tune(tmp_path / "b", start=tmp_path / "a" / "model", checkpoint_every_steps=1)


def test_a_pool_to_start_from_keeps_repeats_only_when_told(tmp_path):
    """Three records of two contents: without repeats the first of each, in the pool's order; no empty answer."""
    first, other = make_records(2)
    again, empty = replace(first, row=2), replace(other, row=3, output="")
    for keep, rows in ((False, [0, 1]), (True, [0, 1, 2])):
        found: list = []
        pool = SimpleNamespace(records=[first, other, again, empty], quarantined=[], keep_duplicates=keep)
        PoolStart(pool).model(lambda records, found=found: found.extend(records) or tmp_path)
        assert [record.row for record in found] == rows


def test_a_folder_without_a_model_is_one_sentence(tmp_path):
    """A run folder, its `model`, or the model itself: what is none of them is told at once."""
    tune(tmp_path / "a", **STILL)
    assert ModelStart(str(tmp_path / "a")).path == ModelStart(str(tmp_path / "a" / "model")).path
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UserError, match="holds no tuned model: give the folder of a run"):
            ModelStart(str(folder))


# -- the whole pipeline ------------------------------------------------------------------------------------

OTHER = [{"instruction": f"Count to {n}", "input": "", "output": " ".join(map(str, range(n)))} for n in range(2, 14)]
QUICK = [
    *("data.limit=20", "method=random", "evaluation=none", "stages=[score,select,tune]"),
    *("tuning.max_steps=2", "tuning.batch_size=4", "tuning.micro_batch_size=2"),
]


@pytest.fixture
def other(tmp_path):
    """A second pool: eleven records, and one without an answer."""
    path = tmp_path / "other.jsonl"
    rows = [*OTHER[:-1], OTHER[-1] | {"output": ""}]
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def run(tiny_folder, tmp_path):
    def call(*overrides: str, folder: str = "run"):
        pipeline.run(config(*QUICK, *on_tiny(tiny_folder), *places(tmp_path, folder), *overrides))
        card = json.loads((tmp_path / folder / "run_card.json").read_text())
        return tmp_path / folder, card["stages"]["tune"]

    return call


def test_jobs_share_the_pool_that_they_start_from(run, other, tmp_path):
    """Two shares from one start are three models in the store. The start is the very model of a run that tunes on all
    of that pool: such a run then computes nothing, and its folder named as the start gives the same model again."""
    begun = ["start=pool", "data@start.pool=file", f"start.pool.path={other}"]
    first, a = run(*begun, "selection.ratio=0.25", folder="a")
    second, b = run(*begun, "selection.ratio=0.5", folder="b")
    assert a["status"] == b["status"] == "computed"
    assert (a["reused"], b["reused"], a["resumed"], b["resumed"]) == (0, 1, 0, 0)  # the start of b came from the store
    assert len(list((tmp_path / "store" / "models").iterdir())) == 3
    assert a["fingerprint"].split()[0] == b["fingerprint"].split()[0] and a["fingerprint"] != b["fingerprint"]
    assert (first / "start").resolve() == (second / "start").resolve() != (first / "model").resolve()

    whole, c = run("data=file", f"data.path={other}", "data.limit=null", "method=full", folder="c")
    assert (c["status"], c["fingerprint"]) == ("reused", a["fingerprint"].split()[0])
    assert (whole / "model").resolve() == (first / "start").resolve() and not (whole / "start").is_symlink()

    _, d = run("start=model", f"start.path={whole}", "selection.ratio=0.25", folder="d")
    assert (d["status"], d["fingerprint"]) == ("reused", a["fingerprint"].split()[1])


def test_a_start_is_part_of_the_fingerprint_and_none_is_not(run, other, tmp_path):
    """Without a start the key holds what it held before there were any; with one it says which weights. Another limit
    of the other pool is another start. In a folder that is used again the link of the earlier run is gone."""
    begun = ["start=pool", "data@start.pool=file", f"start.pool.path={other}"]
    folders = [run(*begun, folder="a")[0], run(*begun, "start.pool.limit=5", folder="b")[0]]
    metas = [json.loads(((one / "model").resolve().parent / "meta.json").read_text()) for one in folders]
    starts = [weights_digest(one / "start") for one in folders]
    assert [meta.pop("start") for meta in metas] == starts and len(set(starts)) == 2 and metas[0] == metas[1]
    plain, _ = run(folder="a")
    assert json.loads(((plain / "model").resolve().parent / "meta.json").read_text()) == metas[0]
    assert set(metas[0]) == {"version", "records", "tuner", "adversary", "backbone", "template"}
    assert not (plain / "start").is_symlink()


def test_the_distortion_is_that_of_each_subset(run, other):
    """Beta of the few and beta of the whole other pool are two numbers, each in its own model."""
    noised = ["adversary=nrm", "noising=replacement", "noising.phi=1", "selection.ratio=0.25"]
    folder, _ = run("start=pool", "data@start.pool=file", f"start.pool.path={other}", *noised)
    betas = []
    for name in ("start", "model"):
        place = (folder / name).resolve().parent
        assert json.loads((place / "meta.json").read_text())["distortion"]["class"].endswith("RuleDistortion")
        betas.append(json.loads((place / "tuning.json").read_text())["distortion"]["0"])
    assert betas[0] != betas[1] and all(0 < beta <= 1 for beta in betas)


def test_the_start_is_evaluated_too(run, other):
    """`start` stands between `base` and `tuned` in results.json; the change is still that from the backbone."""
    begun = ["start=pool", "data@start.pool=file", f"start.pool.path={other}", "tuning.learning_rate=0.01"]
    asked = ["evaluation=embedded", "evaluation.limit=2", "stages=[score,select,tune,evaluate]"]
    folder, _ = run(*begun, *asked)
    results = json.loads((folder / "results.json").read_text())
    assert list(results["models"]) == ["base", "start", "tuned"]
    assert results["delta"]
    for key, change in results["delta"].items():
        values = [results["models"][name]["metrics"][key]["value"] for name in ("tuned", "base")]
        assert change == pytest.approx(values[0] - values[1])
    # The stage alone: the same start, and refused with another one.
    asked[-1] = "stages=[evaluate]"
    run(*begun, *asked)
    for changed in ([*begun, "start.pool.limit=5"], begun[-1:]):
        with pytest.raises(UserError, match=r"was tuned with other settings .*run stages=\[tune,evaluate\] again"):
            run(*changed, *asked)


def test_a_start_without_tuning_is_refused(tmp_path):
    """Nothing would be tuned; without a start there is simply no stage."""
    tune(tmp_path / "a", **STILL)
    assert recipe_of(None, None, None) is None
    with pytest.raises(UserError, match="tuning=none tunes nothing, but start="):
        recipe_of(None, ModelStart(str(tmp_path / "a")), None)


def test_a_start_that_does_not_fit_is_refused_before_scoring(run, tmp_path):
    """A full run's settings with an adapter to start from: no score file is left behind."""
    tune(tmp_path / "a", **STILL)
    with pytest.raises(UserError, match="holds an adapter, but tuning.mode=full"):
        run("start=model", f"start.path={tmp_path / 'a'}", "tuning=full")
    assert not (tmp_path / "run" / "scores.parquet").exists()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("tuning.lora_target_modules=[q_proj,nowhere]", r"no module nowhere that LoRA adapts; its .* \[.*q_proj"),
        ("tuning.lora_target_modules=[mlp]", "no module mlp that LoRA adapts"),
        ("trainer.strategy=deepspeed", "trainer.strategy=deepspeed is not supported: take ddp"),
    ],
)
def test_tuning_that_cannot_work_is_refused_before_scoring(override, message, run, tmp_path):
    with pytest.raises(UserError, match=message):
        run(override)
    assert not (tmp_path / "run" / "scores.parquet").exists()


PEOPLE, PLACES = ("Ada", "Bo", "Cid", "Dee", "Eve", "Fay", "Gus"), ("Ulm", "Rome", "Oslo", "Bern", "Kiel")


def sentences(person: str, place: str, count: int) -> str:
    """Token-and-tag columns: `Ada met 3 friends in Ulm .`"""
    blocks = []
    for n in range(count):
        words = [(PEOPLE[n % 7], f"B-{person}"), ("met", "O"), (str(n), "O"), ("friends", "O"), ("in", "O")]
        words += [(PLACES[n % 5], f"B-{place}"), (".", "O")]
        blocks.append("\n".join(f"{word} {tag}" for word, tag in words))
    return "\n\n".join(blocks) + "\n"


@pytest.mark.slow
def test_table_4_of_anit(tiny_folder, tmp_path):
    """The sweep itself on two small data sets in one folder, narrowed to one job: 10% of OntoNotes after CoNLL03, with
    NRM. Its row stands beside the paper's 84.67, and the model that it starts from and both test sets are asked. Every
    second byte ends an answer: the untrained model would never end one."""
    for name, person, place in (("conll2003", "PER", "LOC"), ("ontonotes", "PERSON", "GPE")):
        (tmp_path / "nlu" / name).mkdir(parents=True)
        (tmp_path / "nlu" / name / "train.txt").write_text(sentences(person, place, 40))
        (tmp_path / "nlu" / name / "test.txt").write_text(sentences(person, place, 1))
    copytree(tiny_folder, tmp_path / "brief")
    settings = tmp_path / "brief" / "generation_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"eos_token_id": list(range(0, 259, 2))}))
    arguments = [
        *("experiment=anit/table4", "scale=smoke", "selection.ratio=0.1", f"data.path={tmp_path / 'nlu'}"),
        *("backbone=hub", f"backbone.name={tmp_path / 'brief'}", "backbone.dtype=fp32", "template.max_length=1500"),
        *("data=ontonotes", "data@start.pool=conll03", "adversary=nrm", "noising=replacement"),
        "row.backbone=llama2_7b",  # the row that the tiny backbone stands for
        *("trainer=cpu", "tracking=none", f"paths.store={tmp_path / 'store'}"),
        *(f"hydra.sweep.dir={tmp_path / 'sweep'}", f"table.folder={tmp_path / 'table'}"),
    ]
    code, output = call(arguments, tmp_path / "log")
    assert code == 0, output[-3000:]
    assert len(list((tmp_path / "store" / "models").iterdir())) == 2
    lines = [line.split(",") for line in (tmp_path / "table" / "results-smoke.csv").read_text().splitlines()]
    (found,) = [line for line in lines if line[3:5] == ["ontonotes", "anit"] and line[6:8] == ["0.1", "micro_f1"]]
    printed, ours = float(found[8]), float(found[10])
    assert printed == 84.67 and 0 <= ours <= 100 and "protocol=few_shot_transfer" in found[5]
    (file,) = (tmp_path / "sweep").glob("*/results.json")
    results = json.loads(file.read_text())
    assert list(results["models"]) == ["base", "start", "tuned"]
    for model in results["models"].values():
        assert {"conll03/micro_f1", "ontonotes/micro_f1"} <= set(model["metrics"])
