"""Two processes that share one model score, tune and evaluate as one process does."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from composed import config, places, template
from tiny import tiny_model, tiny_tokenizer
from tiny_passes import TRAINER, Loaded, make_records, record, sharper
from torch.distributed.tensor import DTensor
from trials import _main, two

from winnow.backbone import shared
from winnow.backbone.loading import Backbone
from winnow.backbone.shared import is_shared
from winnow.distributed import is_leader
from winnow.errors import UserError
from winnow.scoring.passes.divergence import NoiseDivergence
from winnow.scoring.passes.likelihood import Likelihood
from winnow.scoring.runner import PassRunner
from winnow.stages.parts import build_parts
from winnow.store.artifacts import Store

ONE = [record("name a colour", "of the sky", "blue")]
# name -> (pass, column, records)
WORK = {
    "likelihood": (Likelihood(), "nll", make_records()),
    "noise": (NoiseDivergence(betas=(1.0,), draws=2), "kl_beta_1", make_records()),
    "one record": (NoiseDivergence(betas=(2.0,), draws=2), "kl_beta_2", ONE),
}


def numbers(folder: Path, **trainer) -> dict[str, np.ndarray]:
    tiny = sharper(Backbone(tiny_model(), tiny_tokenizer(), {"name": "tiny", "tokenizer": "bytes"}, "tiny"))
    runner = PassRunner(Loaded(tiny), Store(folder / "store"), TRAINER | trainer, tokens_per_batch=256)
    found = {
        name: runner.compute(pass_, records, template("alpaca")).ragged(wanted)[0]
        for name, (pass_, wanted, records) in WORK.items()
    }
    expected = trainer.get("strategy") == "fsdp"
    assert is_shared(tiny.model) == expected
    assert all(isinstance(weight, DTensor) == expected for weight in tiny.model.model.layers.parameters())
    return found


def in_two(folder: Path) -> None:
    shared.RESET_EVERY = 3
    for strategy in ("fsdp", "ddp"):
        found = numbers(folder / strategy, strategy=strategy, devices=2)
        if is_leader():
            np.savez(folder / f"{strategy}.npz", **found)


@pytest.mark.slow
def test_two_processes_score_as_one(tmp_path):
    """Unequal numbers of batches, and of forward passes a batch; of the one record the second process has none."""
    codes, output = two(in_two, tmp_path, log=tmp_path / "log")
    assert codes == [0, 0], output
    alone = numbers(tmp_path / "one")
    for strategy in ("fsdp", "ddp"):
        both = np.load(tmp_path / f"{strategy}.npz")
        for name, expected in alone.items():
            assert np.isfinite(expected).all()
            assert np.allclose(both[name], expected, atol=1e-5), (strategy, name)


STAGES = [
    *("stages=[score,select,tune,evaluate]", "data.limit=20", "trainer.accelerator=cpu"),
    *("method=adg", "method.answers=3", "method.max_new_tokens=4", "method.layers=[-1]", "selection=adg"),
    *("selection.top_up=true", "selection.count=6", "tuning=lora", "tuning.max_steps=2", "tuning.batch_size=4"),
    *("tuning.micro_batch_size=2", "tuning.learning_rate=0.02", "backbone.dtype=bf16"),
    *("evaluation=embedded", "evaluation.limit=5"),
]


@pytest.mark.slow
def test_two_processes_run_all_stages_as_one(tiny_folder, tmp_path):
    """Answers are sampled (as many forward passes as the longest of a batch has tokens), adapters are tuned on a
    subset, and the base and the tuned model, whose adapters are fp32 beside bf16 blocks, are evaluated; all with one
    model. In bf16 losses of two ways of tuning differ by less than 0.3%; the tuning itself changes them by more."""
    given = [*STAGES, f"backbone.name={tiny_folder}"]
    fsdp = [*given, *places(tmp_path / "two"), "trainer=fsdp", "trainer.devices=2"]
    codes, output = two(_main, fsdp, log=tmp_path / "log")
    assert codes == [0, 0], output
    _main([*given, *places(tmp_path / "one")])
    one, both = tmp_path / "one" / "run", tmp_path / "two" / "run"
    assert (both / "subset.jsonl").read_text() == (one / "subset.jsonl").read_text()
    tables = [pq.read_table(folder / "scores.parquet") for folder in (one, both)]
    assert tables[0]["score"].equals(tables[1]["score"])
    alone, shared = (json.loads((folder / "results.json").read_text())["models"] for folder in (one, both))
    bits = {model: result["metrics"]["embedded_answers/bits_per_byte"]["value"] for model, result in alone.items()}
    assert abs(bits["tuned"] / bits["base"] - 1) > 0.01
    for model, expected in bits.items():
        found = shared[model]["metrics"]["embedded_answers/bits_per_byte"]["value"]
        assert found == pytest.approx(expected, rel=0.003)


def test_a_scorer_in_4_bits_is_not_shared(tiny_folder, tmp_path, monkeypatch):
    """Each backbone that the processes would share is asked."""
    monkeypatch.setattr("winnow.backbone.quantized.check_installed", lambda dtype: None)
    given = [f"backbone.name={tiny_folder}", "method=superfilter", "trainer=fsdp", "evaluation=none", *places(tmp_path)]
    given += ["backbone@scorer=hub", f"scorer.name={tiny_folder}", "scorer.dtype=nf4"]
    with pytest.raises(UserError, match="fsdp does not shard the weights of backbone.dtype=nf4: give trainer=ddp"):
        build_parts(config(*given))


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (["method=gradnorm"], "it reads gradients of a model"),
        (["method=aifd", "attack.search=greedy", "attack.resources=offline"], "attack.search=greedy asks a model"),
    ],
)
def test_a_pass_that_needs_a_whole_model_is_refused(overrides, reason, tiny_folder, tmp_path):
    given = [*overrides, "trainer=fsdp", "evaluation=none", "tracking=none", *places(tmp_path, tiny_folder)]
    with pytest.raises(UserError, match=f"needs a whole model on each device, because {reason}"):
        build_parts(config(*given))
