"""Every YAML under conf/ is composed and instantiated; the files are found by walking the tree. Experiments, which are
whole sweeps, have a test of their own."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest
import yaml
from composed import CONF, compose, config
from hydra.utils import get_object, instantiate
from omegaconf import OmegaConf

from winnow.config import arguments, told
from winnow.data.templates import Template
from winnow.errors import UserError
from winnow.evaluation.suite import Suite
from winnow.scoring.protocols import Method
from winnow.selection.budget import Budget
from winnow.tuning.tuner import Tuner

CHOICES = sorted(
    (path.parent.relative_to(CONF).as_posix(), path.stem)
    for path in CONF.rglob("*.yaml")
    if path.parent != CONF and path.relative_to(CONF).parts[0] not in ("hydra", "experiment") and path.stem[0] != "_"
)
NEEDED = {
    "backbone=hub": ["backbone.name=some/model"],
    "data=file": ["data.path=x.json"],
    "data=hub": ["data.source=a/b"],
    "data=suite": ["data.task=arc_easy"],
    "method=column": ["method.column=ifd"],
    "evaluation=heldout": [
        *(f"data@evaluation.pools.{name}=embedded" for name in ("alpaca", "dolly", "flan_cot")),
        *("data.limit=100", "evaluation.own=5", "evaluation.others=5"),
    ],
    "start=model": ["start.path=model"],
    "start=pool": ["data@start.pool=embedded"],
}
TYPES = {"template": Template, "selection": Budget}


@pytest.mark.parametrize(
    "words",
    [
        "",
        "seed=3 offline=true stages=[score,select]",
        "method=ifd selection.ratio=0.1 tuning.max_steps=7 tuning.epochs=null",
        "data=file data.path=a/b.json data.limit=5 paths.run=run",
        "tuning=full tuning.learning_rate=1e-5 tuning.micro_batch_size=1 adversary=nrm adversary.epsilon=0.3",
        "method=less data@target=embedded target.limit=4",
        "attack=[textfooler,checklist] attack.share=0.5 attack.use.textfooler.seed=2",
        "experiment=ifd/main scale=smoke selection.ratio=0.2 seed=1",
        "+row.job='a,b' tuning.lora_target_modules=[q_proj,v_proj] evaluation=none",
        "evaluation=embedded evaluation.limit=4 ~evaluation.averages tracking=csv backbone.dtype=bf16",
    ],
)
def test_the_tests_compose_as_a_user_does(words):
    """The quicker way of all tests, which sets values behind Hydra's back, gives what Hydra itself gives."""
    ours, theirs = (OmegaConf.to_container(way(*words.split()), resolve=False) for way in (config, compose))
    assert ours == theirs and list(ours) == list(theirs)


def test_the_walk_finds_the_groups():
    """A renamed folder must not turn the test below into an empty one."""
    groups = {group for group, _ in CHOICES}
    assert groups >= {"data", "backbone", "template", "method", "selection", "tuning", "adversary", "evaluation"}
    assert ("start", "pool") in CHOICES
    assert len(CHOICES) > 40


@pytest.mark.parametrize(("group", "choice"), CHOICES, ids=lambda value: value)
def test_choice_composes_and_builds(group, choice, tmp_path, monkeypatch):
    """Composed as a user would name it, every interpolation resolved, and its object built; what it gives, with its
    comment and source, has no second default in the signature that takes it. Pools are read only where they come with
    the package: the others need the hub. Who looks for a tuned model finds one in the working folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "adapter_model.safetensors").touch()
    cfg = config(f"{group}={choice}", *NEEDED.get(f"{group}={choice}", []), "paths.run=run")
    assert not twice(OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True))
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
        assert built.name == choice and isinstance(built, Method)
    if group == "evaluation" and choice != "none":
        assert isinstance(built, Suite)
    if group == "tuning" and choice != "none":
        assert isinstance(built, Tuner)
    if group == "start" and choice != "backbone":
        assert callable(built.model)


FILES = sorted(CONF.rglob("*.yaml"))
HYDRAS = re.compile(r"(^|\.)(defaults|_\w+_)$")  # Hydra's own words: its documentation explains them
SOURCE = re.compile(r"\[[^\]]+\]|\(ours|ours\)|\[ours|not stated")


@cache
def keys(path: Path) -> dict[str, tuple[int, int, bool]]:
    """Dotted key -> (first line, line behind it, whether numbers stand in it) of a YAML file's values. A list, and a
    mapping in braces, is one value; other mappings are made of the keys in them."""
    found: dict[str, tuple[int, int, bool]] = {}

    def numbers(node: yaml.Node) -> bool:
        if isinstance(node, yaml.ScalarNode):
            return node.tag in ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
        return any(numbers(part) for child in node.value for part in (child if isinstance(child, tuple) else (child,)))

    def walk(node: yaml.MappingNode, prefix: str) -> None:
        for key, value in node.value:
            name = f"{prefix}{key.value}"
            if HYDRAS.search(name):
                continue
            if isinstance(value, yaml.MappingNode) and not value.flow_style:
                walk(value, f"{name}.")
            else:
                end = value.end_mark.line + (value.end_mark.column > 0)
                found[name] = (key.start_mark.line, max(end, key.start_mark.line + 1), numbers(value))

    walk(yaml.compose(path.read_text(encoding="utf-8")), "")
    return found


@cache
def comments(path: Path) -> dict[str, str]:
    """Dotted key -> the comments beside and right above it, for each key that has one."""
    lines = path.read_text(encoding="utf-8").splitlines()
    found = {}
    for key, (first, end, _) in keys(path).items():
        indent = re.match(r" *", lines[first])[0]
        above = lines[first - 1].strip() if first and lines[first - 1].startswith(f"{indent}# ") else ""
        told = [above, *(match[1] for line in lines[first:end] if (match := re.search(r"(?:^|\s)# (.*)", line)))]
        if any(told):
            found[key] = " ".join(told)
    return found


@cache
def bases(path: Path) -> list[Path]:
    """The files whose keys a file overrides: those that its defaults list names, and theirs."""
    found = []
    for one in (yaml.safe_load(path.read_text(encoding="utf-8")) or {}).get("defaults", []):
        name = next(iter(one.values())) if isinstance(one, dict) else one
        group = next(iter(one)).split("@")[0].removeprefix("override ") if isinstance(one, dict) else ""
        for place in (path.parent, CONF) if not group else (CONF / group.lstrip("/"),):
            base = place / f"{str(name).split('@')[0].lstrip('/')}.yaml"
            if base.is_file() and base != path:
                found += [base, *bases(base)]
                break
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(CONF).as_posix())
def test_every_key_has_a_comment(path):
    """A reader finds the meaning, symbol or unit of each key beside it or right above it, or in the base that it is
    taken from; and, if its value is a number, where that comes from: a paper, published code, or us.

    A base counts once: what it explains needs no second comment where an option changes it. An experiment sets keys of
    all groups, so each of them may explain its key."""
    explained = comments(path)
    groups = path.relative_to(CONF).parts[0] == "experiment"
    inherited = {key: text for base in bases(path) for key, text in comments(base).items()}
    if groups:
        for file in FILES:
            group = file.relative_to(CONF).parent.as_posix()
            prefix = "" if group in (".", "experiment") else group.replace("/", ".") + "."
            inherited |= {prefix + key: text for key, text in comments(file).items()}
    bare = [key for key in keys(path) if key not in explained | inherited]
    assert not bare, f"{path.relative_to(CONF)}: no comment beside {', '.join(bare)}"
    lines = path.read_text(encoding="utf-8").splitlines()
    head = " ".join(line for line in lines[:4] if line.startswith("#"))
    numbers = [key for key, (_, _, number) in keys(path).items() if number]
    unsourced = [key for key in numbers if not SOURCE.search(f"{explained.get(key)} {inherited.get(key)} {head}")]
    assert not unsourced, f"{path.relative_to(CONF)}: no source ([paper], [code], (ours)) beside {', '.join(unsourced)}"


def test_the_comment_test_finds_a_bare_key(tmp_path):
    """The reader of comments sees keys in lists and braces, and takes a hash inside a text for no comment."""
    file = tmp_path / "a.yaml"
    file.write_text(
        "# Head.\n\na: 1  # one [paper]\nb:\n  c: 'x ## y'\n  # above\n  d: 2\ne: [{f: 0.5}]\ng:\n- 1  # ours\n"
    )
    assert keys(file) == {
        "a": (2, 3, True),
        "b.c": (4, 5, False),
        "b.d": (6, 7, True),
        "e": (7, 8, True),
        "g": (8, 10, True),
    }
    assert comments(file) == {"a": " one [paper]", "b.d": "# above", "g": " ours"}


def twice(node) -> set[str]:
    """The arguments of the package's targets that a configuration gives and the signature gives as well."""
    children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    found = set().union(*map(twice, children))
    if isinstance(node, dict) and str(node.get("_target_", "")).startswith("winnow."):
        defaults = {name for name, (_, default) in arguments(get_object(node["_target_"])).items() if default}
        found |= {f"{node['_target_']}: {name}" for name in defaults & node.keys()}
    return found


def test_a_second_default_is_found():
    """`sign` has a default in the signature of `instead`, `name` has none."""
    one = {"_target_": "winnow.config.instead", "name": "a", "sign": "."}
    assert twice({"group": [one]}) == {"winnow.config.instead: sign"}


def test_superfilter_scores_under_its_own_template():
    """Its template is `plain` with 1,024 tokens, and it can be changed on its own; tuning keeps the run's."""
    cfg = config("method=superfilter", "method.template.max_length=77")
    assert cfg.method.template.name == "plain" and cfg.method.template.max_length == 77
    assert cfg.template.name == "alpaca"


def test_bad_value_is_unwrapped():
    """Hydra wraps what a constructor raises; the user reads the cause."""
    from winnow.messages import user_sentence

    with pytest.raises(Exception) as caught:  # noqa: PT011  (the wrapper is Hydra's)
        instantiate(config("selection.ratio=1.5").selection)
    assert user_sentence(caught.value).startswith("selection.ratio=1.5 must be above 0")
    assert isinstance(caught.value.__cause__, UserError)


def test_a_composed_configuration_tells_its_words_as_they_are():
    """A word that refers to its neighbour is a text there, resolved nowhere."""
    words = ("seed=3", "selection.seed=${..seed}")
    cfg = compose(*words)
    assert told(cfg)["overrides"] == list(words) and told(cfg)["choices"]["selection"] == "top"
    assert cfg.selection.seed == 3
