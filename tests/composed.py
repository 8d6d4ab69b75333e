"""Parts built from the shipped configuration files, so that tests see what users see."""

from __future__ import annotations

import pickle
import re
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import hydra
import yaml
from hydra._internal import defaults_list
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, _utils, base, open_dict

from winnow.config import build, compose

CONF = Path(__file__).resolve().parents[1] / "conf"
# `key=value`; any other override chooses, adds, deletes or sweeps.
VALUE = re.compile(r"(?!hydra\.)(\w+(\.\w+)+|seed|stages|offline)=([^,]*|\[.*\]|\{.*\})")

assert defaults_list._create_interpolation_map
defaults_list._create_interpolation_map = lambda *_: None  # a third of its time; no default is interpolated
base.parse = cache(base.parse)  # two thirds of what it takes to resolve a configuration, which a run does five times
_utils.yaml = SimpleNamespace(**vars(yaml) | {"SafeLoader": yaml.CSafeLoader})  # OmegaConf's reader, ten times as fast

__all__ = ["CONF", "build", "compose", "config", "config_of_hydra", "template"]


@cache
def _chosen(words: tuple[str, ...]) -> bytes:
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        return pickle.dumps(hydra.compose("config", overrides=list(words), return_hydra_config=True))


def config_of_hydra(*overrides: str) -> DictConfig:
    """The configuration of `winnow <overrides>` with Hydra's own part. Hydra composes each set of choices once, which
    takes a tenth of a second or two; it sets values afterwards, which takes a hundredth: here on a copy."""
    values = [word for word in overrides if VALUE.fullmatch(word)]
    cfg = pickle.loads(_chosen(tuple(word for word in overrides if word not in values)))
    ConfigLoaderImpl._apply_overrides_to_config(OverridesParser.create().parse_overrides(values), cfg)
    return cfg


def config(*overrides: str) -> DictConfig:
    """`winnow.config.compose`, quicker."""
    cfg = config_of_hydra(*overrides)
    with open_dict(cfg):
        choices = {str(group): str(option) for group, option in cfg.hydra.runtime.choices.items()}
        cfg.hydra = {"choices": choices, "overrides": list(overrides)}
    return cfg


def on_tiny(folder: Path) -> list[str]:
    """The words of a command that runs on the tiny backbone, on the CPU."""
    return [
        "backbone=hub",
        f"backbone.name={folder}",
        "backbone.dtype=fp32",
        "trainer=cpu",
        "trainer.enable_progress_bar=false",
        "template.max_length=1500",  # one token per byte
    ]


def template(name: str, **changes):
    """A template as `template=name` gives it, with some keys replaced."""
    return build(f"template/{name}", **changes)


def places(folder: Path, run: str = "run") -> list[str]:
    """The words of an untracked command whose run and store lie in the folder."""
    return [f"paths.run={folder / run}", f"paths.store={folder / 'store'}", "tracking=none"]
