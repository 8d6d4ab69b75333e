"""Parts built from the shipped configuration files, so that tests see what users see."""

from __future__ import annotations

from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf

CONF = Path(__file__).resolve().parents[1] / "conf"


def template(name: str, **options):
    """A template as `template=name` gives it, with some keys replaced."""
    settings = OmegaConf.to_container(OmegaConf.merge(OmegaConf.load(CONF / "template" / f"{name}.yaml"), options))
    return get_class(settings.pop("_target_"))(**settings)


def config(*overrides: str) -> DictConfig:
    """The whole configuration as `python -m winnow <overrides>` resolves it, without Hydra's own part."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", overrides=list(overrides))
