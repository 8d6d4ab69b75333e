"""Every YAML under conf/ is composed and instantiated; the files are found by walking the tree. Experiments, which are
whole sweeps, have a test of their own."""

from __future__ import annotations

import pytest
from composed import CONF, config
from hydra.utils import instantiate
from omegaconf import OmegaConf

from winnow.data.templates import Template
from winnow.errors import UserError
from winnow.evaluation.suite import Suite
from winnow.selection.budget import Budget
from winnow.tuning.tuner import Tuner

CHOICES = sorted(
    (path.parent.relative_to(CONF).as_posix(), path.stem)
    for path in CONF.rglob("*.yaml")
    if path.parent != CONF and path.relative_to(CONF).parts[0] not in ("hydra", "experiment")
)
NEEDED = {
    "backbone=hub": ["backbone.name=some/model"],
    "data=file": ["data.path=x.json"],
    "data=hub": ["data.source=a/b"],
    "start=model": ["start.path=model"],
    "start=pool": ["data@start.pool=embedded"],
}
TYPES = {"template": Template, "selection": Budget}


def test_the_walk_finds_the_groups():
    """A renamed folder must not turn the test below into an empty one."""
    groups = {group for group, _ in CHOICES}
    assert groups >= {"data", "backbone", "template", "method", "selection", "tuning", "adversary", "evaluation"}
    assert ("start", "pool") in CHOICES
    assert len(CHOICES) > 40


@pytest.mark.parametrize(("group", "choice"), CHOICES, ids=lambda value: value)
def test_choice_composes_and_builds(group, choice, tmp_path, monkeypatch):
    """Composed as a user would name it, every interpolation resolved, and its object built. Pools are read only where
    they come with the package: the others need the hub. Who looks for a tuned model finds one in the working folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "adapter_model.safetensors").touch()
    cfg = config(f"{group}={choice}", *NEEDED.get(f"{group}={choice}", []), "paths.run=run")
    OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    part = cfg[group]
    if "_target_" not in part or (group == "data" and choice != "embedded"):
        return
    if group == "method":
        part = OmegaConf.to_container(part, resolve=True)
        part.pop("template", None)
    built = instantiate(part)
    if group in TYPES:
        assert isinstance(built, TYPES[group])
    if group == "method":
        assert built.name == choice and set(vars(built)) >= {"passes", "filters"}
    if group == "evaluation" and choice != "none":
        assert isinstance(built, Suite)
    if group == "tuning" and choice != "none":
        assert isinstance(built, Tuner)
    if group == "start" and choice != "backbone":
        assert callable(built.model)


@pytest.mark.parametrize(("group", "choice"), CHOICES, ids=lambda value: value)
def test_every_key_has_a_comment(group, choice):
    """A reader of a YAML finds the meaning, symbol or unit of each key beside or above it."""
    lines = (CONF / group / f"{choice}.yaml").read_text(encoding="utf-8").splitlines()
    assert any(line.lstrip().startswith("#") for line in lines[:3]) or choice == "default"


def test_superfilter_scores_under_its_own_template():
    """Its template is `plain` with 1,024 tokens, and it can be changed on its own; tuning keeps the run's."""
    cfg = config("method=superfilter", "method.template.max_length=77")
    assert cfg.method.template.name == "plain" and cfg.method.template.max_length == 77
    assert cfg.template.name == "alpaca"


def test_unknown_choice_is_one_sentence():
    from hydra.errors import HydraException

    from winnow.errors import user_sentence

    with pytest.raises(HydraException) as caught:
        config("method=magic")
    sentence = user_sentence(caught.value)
    assert sentence.startswith("method=magic is no option. Known are adg,") and "\n" not in sentence


def test_bad_value_is_unwrapped():
    """Hydra wraps what a constructor raises; the user reads the cause."""
    from winnow.errors import user_sentence

    with pytest.raises(Exception) as caught:  # noqa: PT011  (the wrapper is Hydra's)
        instantiate(config("selection.ratio=1.5").selection)
    assert user_sentence(caught.value).startswith("selection.ratio=1.5 must be above 0")
    assert isinstance(caught.value.__cause__, UserError)
