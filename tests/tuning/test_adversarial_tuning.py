"""Tuning with an adversary: what must change nothing still changes nothing."""

from __future__ import annotations

import warnings
from functools import cache, partial

import pytest
from composed import build
from killed_run import SETTINGS as SMALL
from test_adversaries import ALL
from test_resume import Stopped, stopping
from test_smart_latent import LATENT, SMART
from tiny_tuning import CPU, difference, tiny_backbone, tiny_records, tuner

from winnow.errors import UserError
from winnow.store.describe import describe
from winnow.tuning.adversary.none import NoAdversary
from winnow.tuning.examples import EpochRecords

nrm = partial(build, "adversary/nrm")
EVERY = ALL | {"smart": SMART, "latent": LATENT}
each = pytest.mark.parametrize("adversary", EVERY.values(), ids=EVERY)

SETTINGS = {"mode": "full", "epochs": 1, "batch_size": 8, "micro_batch_size": 4, "learning_rate": 1e-3}


def tune(folder, adversary, **settings):
    return tuner(**{**SETTINGS, **settings}).fit(tiny_backbone(), tiny_records(), folder, adversary, trainer_args=CPU)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """(result, folder) of tuning without an adversary. What was tuned with the same settings is not tuned again."""

    @cache
    def tuned(**settings):
        folder = tmp_path_factory.mktemp("plain")
        return tune(folder, NoAdversary(), **settings), folder

    return tuned


@pytest.mark.parametrize(
    "adversary",
    [
        nrm(epsilon=0.0, weight=0.0, distortion=0.5),
        nrm(epsilon=0.5, alpha=0.2, weight=0.0),
        build("adversary/pgd", epsilon=0.0, alpha=0.1, rounds=2, weight=0.0),
        build("adversary/fgm", epsilon=0.3, weight=0.0),
        build("adversary/fgsm", epsilon=0.1, weight=0.0),
        build("adversary/freelb", epsilon=0.0, alpha=0.1, rounds=2),
        build("adversary/neftune", alpha=0.0),
        build("adversary/smart", epsilon=0.3, sigma=0.1, alpha=0.2, rounds=2, weight=0.0),
        build("adversary/latent", layer=1, epsilon=0.3, alpha=0.1, rounds=2, weight=0.0),
    ],
    ids=lambda adversary: type(adversary).__name__,
)
@pytest.mark.parametrize("mode", ["lora", "full"])
def test_without_strength_it_is_plain_tuning(adversary, mode, plain, tmp_path):
    """eps 0 and lambda 0: L = L(f(X_n)). Every weight after 3 steps is within 1e-6 of plain tuning, which moves them by
    1e-3 and more."""
    settings = {"mode": mode, "lora_dropout": 0.0, "learning_rate": 1e-4}
    plainly, folder = plain(**settings)
    result = tune(tmp_path / "own", adversary, **settings)
    assert difference(folder, tmp_path / "own") < 1e-6
    for ours, expected in zip(result["train_loss"], plainly["train_loss"], strict=True):
        assert ours["loss"] == pytest.approx(expected["loss"], abs=1e-5)


@pytest.mark.parametrize(
    ("name", "mode"), [*((name, "full") for name in EVERY), *((name, "lora") for name in ("fgsm", "smart", "latent"))]
)
def test_accumulation_changes_nothing(name, mode, plain, tmp_path):
    """8 records at once and 2 times 4, with random starts: a record's draw is its own, and so is its norm. Three steps,
    the last of 6 records; plain tuning ends elsewhere. The other adapters are in test_dropout. Adam moves a weight by
    about 1e-3 a step, on the sign of a gradient that may be little more than rounding."""
    settings = {"mode": mode, "lora_dropout": 0.0}
    for micro in (8, 4):
        tune(tmp_path / f"{micro}", EVERY[name], micro_batch_size=micro, **settings)
    assert difference(tmp_path / "8", tmp_path / "4") < 5e-5
    assert difference(tmp_path / "8", plain(micro_batch_size=8, **settings)[1]) > 1e-4


@each
def test_gradient_checkpointing_changes_nothing(adversary, tmp_path):
    for name, on in (("plain", False), ("again", True)):
        tune(tmp_path / name, adversary, mode="lora", lora_dropout=0.1, gradient_checkpointing=on, max_steps=2)
    assert difference(tmp_path / "plain", tmp_path / "again") < 1e-6


@pytest.mark.parametrize(
    ("name", "mode"), [*((name, "full") for name in EVERY), *((name, "lora") for name in ("nrm", "latent"))]
)
def test_bf16_follows_fp32(name, mode, tmp_path):
    """As for plain tuning: the loss of each step stays within 1% of fp32, and is not the same number. No warning of
    torch or Lightning reaches the terminal. Other adapters under autocast are in test_loss."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        warnings.filterwarnings("ignore", message=".*LeafSpec.*|.*Swig.*|.*swig.*|.*is_gradient_checkpointing.*")
        found = [
            tune(tmp_path / dtype, EVERY[name], mode=mode, dtype=dtype, lora_dropout=0.0, max_steps=2)["train_loss"]
            for dtype in ("fp32", "bf16")
        ]
    assert [str(warning.message) for warning in told] == []
    ratios = [half["loss"] / whole["loss"] for whole, half in zip(*found, strict=True)]
    assert all(abs(ratio - 1) < 0.01 for ratio in ratios) and any(ratio != 1 for ratio in ratios)


@each
def test_stopped_and_started_again(adversary, tmp_path):
    """Batches of 8, 8 and 6 records in micro-batches of 4: the 4th one ends step 2, the 6th is the second of step 3.
    Noise and dropout of the rest are those of the uninterrupted run."""
    settings = SMALL | {"epochs": 1, "micro_batch_size": 4}
    with pytest.raises(Stopped):
        tune(tmp_path / "parts", stopping(5, adversary), **settings)
    report = tune(tmp_path / "parts", adversary, **settings)
    expected = tune(tmp_path / "whole", adversary, **settings)
    assert report["resumed_from"] == 2 and report["train_loss"] == expected["train_loss"]
    assert difference(tmp_path / "parts", tmp_path / "whole") < 1e-6


def test_another_adversary_does_not_go_on(tmp_path):
    with pytest.raises(Stopped):
        tune(tmp_path, stopping(17, ALL["nrm"]), **SMALL)
    with pytest.raises(UserError, match="made by another run .*'distortion': 0.2.* then"):
        tune(tmp_path, nrm(epsilon=0.3, alpha=0.1, distortion=0.4), **SMALL)


def test_the_region_reaches_the_adversary(tmp_path):
    """Tokens in the mask over one epoch: all of them, or the instructions' (a prompt but its first token)."""

    class Counting(NoAdversary):
        def __init__(self, region):
            self.region, self.tokens = region, 0

        def loss(self, loss_of, embeds, mask):
            self.tokens += int(mask.sum())
            return loss_of(embeds)

    for region in ("sample", "instruction"):
        adversary = Counting(region)
        tune(tmp_path / region, adversary)
        records = tiny_records()
        wanted = {"sample": [len(r.ids) for r in records], "instruction": [r.answer_start - 1 for r in records]}
        assert adversary.tokens == sum(wanted[region])


def test_beta_is_measured_in_every_epoch(tmp_path):
    """Algorithm 1, line 4, stands inside the epoch loop: with beta = 0.1 + 0.2 epoch, two epochs give 0.1 and 0.3, and
    the starts of each are 0.9 and 0.7 of the draw, here of norm 10 eps (1 - beta) / sqrt(N) * |U| at every entry. The
    result says both; a number of the configuration is not replaced."""
    asked = []
    adversary = nrm()
    given = nrm(distortion=0.5)
    for one, wanted in ((adversary, 0.3), (given, 0.5)):
        examples = EpochRecords(tiny_records(), distortion=lambda epoch: asked.append(epoch) or 0.1 + 0.2 * epoch)
        own = tuner(**SETTINGS | {"epochs": 2})
        found = own.fit(tiny_backbone(), examples, tmp_path / str(wanted), one, trainer_args=CPU)
        assert found["distortion"] == {"0": 0.1, "1": pytest.approx(0.3)} and one.beta == pytest.approx(wanted)
    assert asked == [0, 1, 0, 1]


def test_the_report_names_the_adversary(tmp_path):
    result = tune(tmp_path, ALL["nrm"])
    assert result["adversary"] == describe(ALL["nrm"]) and result["adversary"]["distortion"] == 0.2
    assert "- adversary: NRM" in (tmp_path / "model" / "README.md").read_text()
