"""Models for passes over gradients: fresh adapters, and the epochs of a warm-up."""

from __future__ import annotations

import pytest
import torch
from composed import build, template
from safetensors import safe_open
from safetensors.torch import load_file
from test_module import experts_backbone
from tiny_passes import TRAINER, Loaded, make_records
from tiny_tuning import CPU, tiny_backbone, tiny_records, tuner

from winnow.errors import UserError
from winnow.scoring.passes.gradient import LoraGradient
from winnow.scoring.runner import PassRunner
from winnow.store.artifacts import Store
from winnow.tuning.saving import load_tuned
from winnow.tuning.warm_up import Adapters, EpochFiles, EpochSource, WarmUp, epoch_file

SETTINGS = {"epochs": 2, "batch_size": 4, "micro_batch_size": 2, "schedule": "linear", "warmup_ratio": 0.0}


def runner_of(backbone, folder) -> PassRunner:
    return PassRunner(Loaded(backbone), Store(folder), TRAINER)


def test_fresh_adapters_change_no_output_and_have_a_gradient(backbone, tmp_path):
    """B = 0: the model's own logits, no gradient of A, and one of B. A depends on the seed."""
    runner = runner_of(backbone, tmp_path)
    ids = torch.arange(12).view(2, 6)
    norms = []
    for seed in (0, 1):
        (source,) = Adapters(4, seed, "all-linear").prepare(runner, [], template("alpaca"))
        own = source.load()
        assert torch.equal(own.model(input_ids=ids).logits, backbone.model(input_ids=ids).logits)
        norms.append(runner.over(source).compute(LoraGradient(), make_records(2), template("alpaca")).numbers("norm"))
    assert (norms[0] > 0).all() and (norms[0] != norms[1]).all()
    (source,) = Adapters(4, 0, "q_proj").prepare(runner, [], template("alpaca"))
    adapted = {name.split(".")[-4] for name, _ in source.load().model.named_parameters() if "lora_A" in name}
    assert adapted == {"q_proj"}
    (source,) = Adapters(4, 0, ["c_attn"]).prepare(runner, [], template("alpaca"))
    with pytest.raises(UserError, match=r"method.preparation.lora_target_modules: the backbone has no module c_attn"):
        source.load()
    assert Adapters(4, 0, "all-linear").identity == {"r": 4, "seed": 0} != Adapters(4, 0, "q_proj").identity


def test_the_epochs_of_a_warm_up(backbone, tmp_path):
    """24 records, 22 that can be tuned on, a share of 0.15: the 4 that the seed draws, in one step an epoch, at the
    learning rates 1e-2 and, linearly down to 0 after the second step, 5e-3. After one step from 0 Adam has m = 0.1 g
    and v = 0.001 g^2, so v = 0.1 m^2. The weights of the last epoch are those that are saved. Asked again, the store
    has it all."""
    runner, records = runner_of(backbone, tmp_path), make_records()
    preparation = WarmUp(tuner(**SETTINGS, learning_rate=1e-2), share=0.15, seed=0)
    for expected in (["computed"], ["computed"]):
        sources = preparation.prepare(runner, records, template("alpaca"))
        assert list(runner.origin.values()) == expected and len(runner.computed) == 1
    first, last = (source.load() for source in sources)
    assert [first.optimizer.rate, last.optimizer.rate] == pytest.approx([1e-2, 5e-3])
    for name, moment in first.optimizer.first.items():
        assert torch.allclose(first.optimizer.second[name], 0.1 * moment**2, rtol=1e-4, atol=1e-12)
    weights = dict(load_tuned(backbone, sources[1].folder).model.named_parameters())
    others = dict(first.model.named_parameters())
    for name in last.optimizer.first:
        assert torch.equal(dict(last.model.named_parameters())[name], weights[name])
        assert not torch.equal(others[name], weights[name])
    assert sources[0].identity != sources[1].identity
    table = runner.over(sources[0]).compute(LoraGradient(16, adam=True), records[:3], template("alpaca"))
    assert table.numbers("rate") == pytest.approx([1e-2] * 3)


def test_the_share_is_drawn_by_the_seed_and_the_record(backbone, tmp_path, monkeypatch):
    """0.15 of 22 records, rounded up, are 4, in whatever order; another seed draws others, and a larger share more."""
    drawn, records = [], make_records()
    monkeypatch.setattr(
        "winnow.tuning.warm_up.tune_once", lambda *given: drawn.append({one.id for one in given[3]}) or tmp_path
    )
    for own, share, seed in ((records, 0.15, 0), (records[::-1], 0.15, 0), (records, 0.15, 1), (records, 0.3, 0)):
        WarmUp(tuner(**SETTINGS), share, seed).prepare(runner_of(backbone, tmp_path), own, template("alpaca"))
    assert len(drawn[0]) == 4 and drawn[0] == drawn[1] != drawn[2] and drawn[0] < drawn[3]


def test_the_rate_of_an_epoch_is_the_mean_of_its_steps(tmp_path):
    """4 records in batches of 2, linearly from 1e-2 down to 0 in 4 steps: 10 and 7.5, then 5 and 2.5 thousandths."""
    settings, own = SETTINGS | {"batch_size": 2, "learning_rate": 1e-2}, CPU | {"callbacks": [EpochFiles()]}
    tuner(**settings).fit(tiny_backbone(), tiny_records(4), tmp_path, trainer_args=own)
    rates = []
    for epoch in range(2):
        with safe_open(epoch_file(tmp_path, epoch), "pt") as file:
            rates.append(float(file.metadata()["rate"]))
    assert rates == pytest.approx([8.75e-3, 3.75e-3])


def test_an_epoch_is_known_by_its_content(backbone, tmp_path):
    """Two warm-ups have epochs of one name: their gradients must not share a place in the store."""
    runner, files = runner_of(backbone, tmp_path), [epoch_file(tmp_path / name, 0) for name in ("a", "b")]
    for file in files:
        file.parent.mkdir()
        file.write_text(str(file))
    assert len({EpochSource(runner, file.parent, file).identity["epoch"] for file in files}) == 2


def test_an_expert_that_met_no_token(tmp_path):
    """One record of 3 tokens meets 3 of 16 experts at most: the others' moments are 0, their beginning in Adam."""
    settings = SETTINGS | {"epochs": 1, "lora_dropout": 0.0}
    tuner(**settings).fit(
        experts_backbone(), tiny_records(1), tmp_path, trainer_args=CPU | {"callbacks": [EpochFiles()]}
    )
    seconds = [value for name, value in load_file(epoch_file(tmp_path, 0)).items() if name.startswith("second/")]
    assert 0 < sum(bool(value.any()) for value in seconds) < len(seconds) / 2


def test_what_a_warm_up_refuses():
    with pytest.raises(UserError, match="mode=lora and epochs, and max_steps=null"):
        WarmUp(tuner(max_steps=3), share=0.5, seed=0)
    with pytest.raises(UserError, match=r"method.preparation.share=0 must be above 0"):
        WarmUp(tuner(), share=0, seed=0)
    assert build("method/less").preparation.checkpoints == 4
