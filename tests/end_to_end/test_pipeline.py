"""The whole pipeline on the tiny backbone, as a user calls it: `pipeline.run(cfg)`."""

from __future__ import annotations

import json
import os
import shutil
import time

import pyarrow.parquet as pq
import pytest
from composed import build, config, on_tiny
from trials import context

from winnow import pipeline
from winnow.backbone.loading import BackboneSource
from winnow.commands import compare
from winnow.errors import UserError
from winnow.store.files import has_sum, read_json, write_sum
from winnow.store.run_folder import STAGES, folder_lock

SMALL = [
    "data.limit=40",
    "selection.ratio=0.05",
    "tuning.epochs=1",
    "tuning.batch_size=4",
    "tuning.micro_batch_size=2",
    "evaluation.limit=4",
    "tracking=csv",
]


def runs_in(home, tiny_folder):
    """Runs the pipeline in a folder of `home`, with a store for all of them."""

    def call(*overrides: str, folder: str = "run"):
        paths = [f"paths.run={home / folder}", f"paths.store={home / 'store'}"]
        return pipeline.run(config(*SMALL, *on_tiny(tiny_folder), *paths, *overrides)), home / folder

    return call


@pytest.fixture
def run(tiny_folder, tmp_path):
    """Runs the pipeline in a fresh folder with a store shared by the test's runs."""
    return runs_in(tmp_path, tiny_folder)


@pytest.fixture(scope="module")
def made(tiny_folder, tmp_path_factory):
    """The folder of a run of all stages; its store lies beside it."""
    return runs_in(tmp_path_factory.mktemp("made"), tiny_folder)()[1]


@pytest.fixture
def stored(made, tmp_path):
    """The test's store holds all that the default run needs."""
    shutil.copytree(made.parent / "store", tmp_path / "store", symlinks=True)


def test_a_deterministic_run_says_so_to_cublas_before_a_model_is_there(run, monkeypatch):
    """torch reads the variable at the first product on a GPU, before Lightning makes its Trainer."""
    name = "CUBLAS_WORKSPACE_CONFIG"
    monkeypatch.setenv(name, "")  # the test ends with what there was
    monkeypatch.delenv(name)
    monkeypatch.setattr(BackboneSource, "load", lambda _: pytest.fail(f"loaded under {os.environ.get(name)}"))
    with pytest.raises(pytest.fail.Exception, match="loaded under :4096:8"):
        run("trainer.deterministic=true", "method=ifd", "stages=[score]")


def stages(folder):
    card = json.loads((folder / "run_card.json").read_text())
    return {name: stage["status"] for name, stage in card["stages"].items()}


def counts(folder, stage):
    """Status, and how many artifacts came from the store or go on from an interrupted run."""
    card = json.loads((folder / "run_card.json").read_text())["stages"][stage]
    return card["status"], card["reused"], card["resumed"]


def test_five_stages_and_their_files(run):
    """Every file that the documentation names is there and agrees with the others."""
    results, folder = run()
    expected = {"scores.parquet", "subset.jsonl", "selection.json", "detection.json", "tuning.json", "results.json"}
    expected |= {"run_card.md", "run_card.json", "report.html", "model", "samples-base.jsonl", "samples-tuned.jsonl"}
    sealed = ("scores.parquet", "selection.json", "tuning.json", "results.json", "samples-base.jsonl")
    assert all(has_sum(folder / name) for name in sealed)
    assert expected <= {path.name for path in folder.iterdir()}
    scores = pq.read_table(folder / "scores.parquet")
    assert scores.column_names[:4] == ["id", "row", "score", "flag"]
    assert {"nll_conditioned", "nll_direct", "answer_tokens"} <= set(scores.column_names)
    assert scores["row"].to_pylist() == list(range(40))
    manifest = json.loads((folder / "selection.json").read_text())
    assert manifest["n_selected"] == manifest["budget"] == int(40 * 0.05) == results["selected"]
    assert sum(manifest["reasons"].values()) + manifest["n_selected"] == manifest["n_records"] == 40
    subset = build("data/file", source=str(folder / "subset.jsonl"))
    chosen = [d["id"] for d in manifest["decisions"] if d["selected"]]
    assert [record.id for record in subset.records] == chosen
    compared = json.loads((folder / "results.json").read_text())
    assert set(compared["models"]) == {"base", "tuned"} and compared["delta"]
    assert compared["comparison"].keys() | compared["untested"].keys() == compared["delta"].keys()
    moved = folder.parent / "elsewhere" / "moved"  # without its store
    moved.parent.mkdir()
    folder.rename(moved)
    (moved.parents[1] / "store").rename(moved.parent / "gone")
    compare([str(moved), "--against", "base"])
    told = json.loads((moved / "verdicts.json").read_text())
    assert [one["metric"] for one in told["comparisons"]] == compared["headline"] != []
    for one in told["comparisons"]:  # one seed: the same test as the run's own
        (row,), own = one["standings"], compared["comparison"][one["metric"]]
        assert [row[key] for key in ("low", "high", "verdict")] == [own[key] for key in ("low", "high", "verdict")]
    model = (moved / "model_card.md").read_text()
    assert "- selected: 2 records, 5.0% of the pool" in model and "```python" in model and "- winnow: " in model
    assert all(f"- {key} (" in model for key in compared["headline"])
    page = (moved / "report.html").read_text()
    assert "<svg" in page and "http://" not in page.replace("http://www.w3.org", "") and 'src="http' not in page


def test_a_control_costs_no_scoring(run):
    """Beside what ifd takes: as many other records, of scores that come from the store."""
    _, first = run("stages=[score,select]", "method=ifd")
    _, second = run("stages=[score,select]", "method=ifd", "selection=length_matched", folder="control")
    assert stages(first)["score"] == "computed" and stages(second)["score"] == "reused"
    own, other = (json.loads((folder / "selection.json").read_text()) for folder in (first, second))
    taken = [{one["id"] for one in told["decisions"] if one["selected"]} for told in (own, other)]
    assert len(taken[0]) == len(taken[1]) and not taken[0] & taken[1]
    assert {one["id"] for one in other["decisions"] if one["reason"] == "taken_by_the_rule"} == taken[0]
    assert sum(other["rule"]["lengths"]["wanted"]) == len(taken[0])


def test_second_run_computes_nothing(run, made, stored):
    """The same settings in another run folder: everything comes from the store, and the scores are equal."""
    _, second = run()
    assert stages(second) | {"select": "", "report": ""} == {
        "score": "reused",
        "select": "",
        "tune": "reused",
        "evaluate": "reused",
        "report": "",
    }
    assert pq.read_table(made / "scores.parquet").equals(pq.read_table(second / "scores.parquet"))


def test_methods_share_passes(run, tmp_path):
    """ifd needs two passes; perplexity one of them: two in the store after both."""
    run("stages=[score]", "method=ifd")
    run("stages=[score]", "method=perplexity", folder="b")
    assert len(list((tmp_path / "store" / "passes").iterdir())) == 2


@pytest.mark.parametrize("method", ["ifd", "superfilter", "perplexity", "length", "random", "full", "column"])
def test_every_method_scores_and_selects(run, method, tmp_path):
    """A twentieth of 40 records is 2 by every method; `full` takes all that is valid. The file of `column` has a score
    for every row."""
    (tmp_path / "s.jsonl").write_text("".join(json.dumps({"row": row, "mine": -row}) + "\n" for row in range(40)))
    column = [f"method.path={tmp_path / 's.jsonl'}", "method.column=mine", "method.by=row"]
    results, folder = run("stages=[score,select]", f"method={method}", *(column if method == "column" else []))
    if method == "column":  # the highest are those of the first rows
        assert pq.read_table(folder / "scores.parquet")["score"].to_pylist()[:2] == [0, -1]
    expected = results["valid"] if method == "full" else 2
    assert results["selected"] == expected > 0


def test_later_stages_read_an_earlier_run(run):
    """Scoring and selection in one call, another ratio and the rest in further calls on the same folder."""
    run("stages=[score,select]")
    results, folder = run("stages=[select,report]", "selection.ratio=0.5")
    assert results["selected"] == min(20, results["valid"])
    assert (folder / "report.html").exists() and not (folder / "model").exists()


def test_missing_earlier_stage_is_one_sentence(run):
    with pytest.raises(UserError, match="scores.parquet is missing: the stage `score` makes it"):
        run("stages=[select]")


def test_scores_of_other_data_are_refused(run):
    run("stages=[score]")
    with pytest.raises(UserError, match="made from other records"):
        run("stages=[select]", "data.limit=20")


def test_scores_of_another_method_are_refused(run):
    """Selecting IFD's way from perplexities would filter at 1 what is no ratio. A changed filter is no other method."""
    run("stages=[score]", "method=perplexity")
    with pytest.raises(UserError, match="holds scores of method=perplexity"):
        run("stages=[select]", "method=ifd")
    run("stages=[score]", "method=ifd")
    strict, _ = run("stages=[select]", "method=ifd")
    loose, _ = run("stages=[select]", "method=ifd", "method.max_ifd=null")
    assert strict["valid"] < loose["valid"]


def test_selection_of_other_data_is_not_tuned_on(run):
    run("stages=[score,select]")
    with pytest.raises(UserError, match="selection.json was made from other records"):
        run("stages=[tune]", "data.limit=3")


def test_scores_of_another_model_or_template_are_refused(run):
    """What entered the passes is compared; what changes only their speed is not, nor what no pass read."""
    run("stages=[score]")
    for change, told in (
        ("backbone.dtype=bf16", "conditioned.backbone.dtype: fp32 there, bf16 here"),
        ("template.max_length=1400", "conditioned.template.max_length: 1500 there, 1400 here"),
        ("pre_experience=ifd", "pre_experience.class: none there, .*PreExperience here"),
    ):
        with pytest.raises(UserError, match=rf"{told}.*run stages=\[score,select\] again"):
            run("stages=[select]", change)
    run("stages=[select]", "scoring.tokens_per_batch=64", "attack.processes=2", "tuning.seed=1", "trainer=auto")
    run("stages=[score]", "method=length")  # counts tokens
    run("stages=[select]", "method=length", "backbone.dtype=bf16")


def test_a_selection_of_other_settings_is_not_tuned_on(run):
    """The manifest holds what it was made with, down to the passes behind its scores."""
    run("stages=[score,select]")
    for change, told, stages in (
        ("selection.ratio=0.5", "selection.ratio: 0.05 there, 0.5 here", "select,tune"),
        ("method.max_ifd=0.9", "filters: ", "select,tune"),
        ("method=perplexity", "method.class: ", "score,select,tune"),
        ("backbone.dtype=bf16", "backbone.dtype: fp32 there, bf16 here", "score,select,tune"),
    ):
        end = ", or name the backbone that scored with backbone@scorer=" * change.startswith("backbone") + r"\."
        told = rf"selection.json was made with other.*{told}.*stages=\[{stages}\] .*, or set them back{end}"
        with pytest.raises(UserError, match=told):
            run("stages=[tune,evaluate]", change)


@pytest.mark.usefixtures("stored")
def test_a_report_names_what_made_its_files(run):
    """Scores of another method, and an evaluation of other items, are not told under the request's names."""
    _, folder = run("stages=[score,select,tune,evaluate,report]")
    card = (folder / "run_card.json").read_bytes()
    with pytest.raises(UserError, match=r"results.json is of another evaluation \(limit: 4 there, 3 here\)"):
        run("stages=[report]", "evaluation.limit=3")
    assert (folder / "run_card.json").read_bytes() == card
    run("stages=[report]")
    run("stages=[score]", "method=length", folder="scored")
    with pytest.raises(UserError, match="scores.parquet holds scores of method=length"):
        run("stages=[report]", folder="scored")


@pytest.mark.usefixtures("stored")
def test_a_model_of_other_settings_is_neither_evaluated_nor_reported(run, tmp_path):
    """What made the model counts, up to the selection; suites, and what changes only speed, may be others."""
    _, folder = run("stages=[score,select,tune]")
    for change, told in (
        ("tuning.learning_rate=0.001", r"tuned with other settings \(tuner.learning_rate: 0.0001 there, 0.001 here\)"),
        ("adversary=fgm", "adversary.class: .*NoAdversary there, .*FGM here"),
        ("noising=replacement", "noising.class: none there, .*Replacement here"),
        ("selection.ratio=0.5", "selection.ratio: 0.05 there, 0.5 here"),
    ):
        for stage in ("evaluate", "report"):
            with pytest.raises(UserError, match=told):
                run(f"stages=[{stage}]", change)
    assert read_json(folder / "run_card.json")["status"] == "finished"
    speed = ["tuning.micro_batch_size=1", "tuning.checkpoint_every_steps=3", f"paths.cache={tmp_path}"]
    results, _ = run("stages=[evaluate]", "evaluation.limit=2", *speed)
    assert any(key.startswith("tuned/") for key in results)
    ((folder / "model").resolve().parent / "meta.json").unlink()
    with pytest.raises(UserError, match="meta.json cannot be read"):
        run("stages=[evaluate]")


def test_a_broken_selection_is_one_sentence(run):
    _, folder = run("stages=[score,select]")
    (folder / "selection.json").write_text("{")
    with pytest.raises(
        UserError, match="selection.json is damaged: selection.json.sha256 is missing or has another checksum"
    ):
        run("stages=[tune]")
    write_sum(folder / "selection.json")  # whoever edits the file says so
    with pytest.raises(UserError, match="selection.json cannot be read"):
        run("stages=[tune]")


def test_a_window_that_a_selections_vectors_do_not_fit_is_refused(run, tmp_path):
    """`length` runs no model, k-center's vectors do: the tiny model has 2,048 positions."""
    with pytest.raises(UserError, match="template.max_length=2049 asks for 2049 tokens.*is made for 2048"):
        run("method=length", "selection=k_center", "template.max_length=2049")
    assert not (tmp_path / "run" / "scores.parquet").exists()


def test_a_run_folder_belongs_to_one_run(run, tmp_path):
    """The second one is refused and leaves no trace; the lock ends with the run."""
    (tmp_path / "run").mkdir()
    with folder_lock(tmp_path / "run"), pytest.raises(UserError, match="Another run is writing to .*/run; wait"):
        run("stages=[score]", "method=random")
    assert not (tmp_path / "run" / "run_card.json").exists()
    run("stages=[score]", "method=random")


def _hold(folder, ready):
    with folder_lock(folder):
        ready.set()
        time.sleep(60)


def test_a_killed_run_holds_nothing(tmp_path):
    ready = context().Event()
    process = context().Process(target=_hold, args=(tmp_path, ready))
    process.start()
    assert ready.wait(60)
    with pytest.raises(UserError, match="Another run"), folder_lock(tmp_path):
        pass
    process.kill()
    process.join()
    with folder_lock(tmp_path):
        pass


def test_damaged_artifacts_of_finished_stages(run, tmp_path, monkeypatch, capsys):
    """A bit of an adapter and a digit of an evaluation's result are changed: both are computed anew, with the results
    of before. Where the model cannot be made anew, in a run that only evaluates, it is refused by name."""
    every = ["stages=[score,select,tune,evaluate]", "method=random"]
    results, folder = run(*every)
    for kind, name in (("models", "model/adapter_model.safetensors"), ("evaluations", "result.json")):
        file = next((tmp_path / "store" / kind).glob(f"*/{name}"))
        content = bytearray(file.read_bytes())
        content[-9] ^= 1
        file.write_bytes(content)
        monkeypatch.setattr("winnow.store.files._sound", set())
        if kind == "models":
            with pytest.raises(UserError, match="adapter_model.safetensors is damaged, so the model is not used"):
                run("stages=[evaluate]", "method=random")
        capsys.readouterr()
        again, _ = run(*every)
        assert again == results and f"{file} is damaged." in capsys.readouterr().out
        assert stages(folder)["tune" if kind == "models" else "evaluate"] == "computed"


def test_a_folder_never_mixes_two_selections(run):
    """After another selection in the same folder, model and report of the first one are gone from the folder."""
    _, folder = run("stages=[score,select,tune,report]")
    assert (folder / "model").exists()
    run("stages=[select]", "selection.ratio=0.5")
    assert not (folder / "model").is_symlink() and not (folder / "report.html").exists()
    assert (folder / "scores.parquet").exists()


def test_a_further_process_helps_with_four_stages(run, monkeypatch):
    """In the order of the leader, for which it waits in each; the report and the run folder are the leader's."""
    called: list[str] = []
    stages = {name: lambda _, name=name: called.append(name) for name in STAGES}
    monkeypatch.setattr(pipeline, "is_leader", lambda: False)
    monkeypatch.setattr(pipeline, "stages_of", lambda *_: stages)
    results, folder = run()
    assert results == {} and called == ["score", "select", "tune", "evaluate"]
    assert not (folder / "run_card.json").exists()


def test_no_evaluation(run):
    """`evaluation=none` loads nothing and leaves no results."""
    _, folder = run("stages=[score,evaluate]", "evaluation=none")
    assert stages(folder)["evaluate"] == "skipped" and not (folder / "results.json").exists()


def test_pre_experience_changes_the_scorer(run):
    """k-means on the prompts, one short epoch, then IFD with that model: other scores than the base model's, and
    the tuned scorer is kept in the store."""
    small = [
        "pre_experience=ifd",
        "pre_experience.clusters=3",
        "pre_experience.per_cluster=2",
        "pre_experience.tuner.batch_size=2",
        "pre_experience.tuner.micro_batch_size=2",
        "pre_experience.tuner.learning_rate=0.01",
        "stages=[score]",
    ]
    _, plain = run("stages=[score]", folder="plain")
    _, tuned = run(*small, folder="tuned")
    a, b = (pq.read_table(folder / "scores.parquet")["score"].to_pylist() for folder in (plain, tuned))
    assert sum(abs(x - y) > 1e-4 for x, y in zip(a, b, strict=True) if x and y) > 20
    _, again = run(*small, folder="again")
    assert counts(tuned, "score") == ("computed", 0, 0)
    assert counts(again, "score") == ("reused", 4, 0)  # the vectors, the scorer, two passes


def test_less_scores_at_each_epoch_of_its_warm_up(run):
    """Two epochs: the store keeps the warm-up, and for each epoch the gradients of the pool and of the target. A method
    that prepares its model takes no pre-experience."""
    small = [
        *("method=less", "data@target=embedded", "target.limit=4", "method.dimensions=64", "stages=[score]"),
        *("method.preparation.share=0.2", "method.preparation.tuner.epochs=2", "method.preparation.tuner.lora_r=2"),
    ]
    _, folder = run(*small)
    scores = pq.read_table(folder / "scores.parquet")["score"].to_pylist()
    assert len({one for one in scores if one is not None}) > 20 and all(abs(one) <= 1.001 for one in scores if one)
    _, again = run(*small, folder="again")
    assert counts(folder, "score") == ("computed", 0, 0) and counts(again, "score") == ("reused", 5, 0)
    with pytest.raises(UserError, match="method=less prepares its own model; set pre_experience=none"):
        run(*small, "pre_experience=ifd", folder="both")


def test_failed_run_says_so_in_its_card(run, tmp_path):
    """What was computed before the failure stays, and the card holds the sentence."""
    with pytest.raises(UserError):
        run("selection.count=400")
    card = json.loads((tmp_path / "run" / "run_card.json").read_text())
    assert card["status"] == "failed" and "selection.count=400" in card["error"]
    assert (tmp_path / "run" / "scores.parquet").exists()
    _, folder = run("stages=[score]")
    assert stages(folder)["score"] == "reused"


def test_the_card_counts_what_was_not_computed_as_a_whole(run, tmp_path, monkeypatch):
    """perplexity needs one of ifd's two passes, so ifd then reuses one. Of 20 records that another pool had and of a
    tuning that stopped after its checkpoint the next run's card says that it resumed them."""
    few = "stages=[score,select]"
    _, folder = run(few, "method=perplexity")
    assert counts(folder, "score") == ("computed", 0, 0) and counts(folder, "select") == ("computed", 0, 0)
    assert counts(run(few, "method=ifd", folder="b")[1], "score") == ("computed", 1, 0)
    assert counts(run(few, "method=ifd", folder="c")[1], "score") == ("reused", 2, 0)

    other = f"paths.store={tmp_path / 'other'}"
    assert counts(run(few, "method=perplexity", "data.limit=20", other, folder="h")[1], "score") == ("computed", 0, 0)
    assert counts(run(few, "method=perplexity", other, folder="d")[1], "score") == ("computed", 0, 1)

    tuning = ["stages=[score,select,tune]", "method=random", "selection.ratio=0.25", "tuning.checkpoint_every_steps=1"]

    def stop(*_):
        raise RuntimeError("stopped")

    with monkeypatch.context() as patch:
        patch.setattr("winnow.tuning.tuner.check_finite", stop)
        with pytest.raises(RuntimeError, match="stopped"):
            run(*tuning, folder="e")
    assert counts(run(*tuning, folder="f")[1], "tune") == ("computed", 0, 1)
    assert counts(run(*tuning, folder="g")[1], "tune") == ("reused", 1, 0)


def test_the_vectors_of_a_selection_are_counted(run):
    """selection=k_center needs an embedding pass: the first run computes it, the second finds it in the store."""
    found = []
    for folder in ("a", "b"):
        _, folder = run("stages=[score,select]", "method=random", "selection=k_center", folder=folder)
        found.append(counts(folder, "select"))
    assert found == [("computed", 0, 0), ("computed", 1, 0)]
