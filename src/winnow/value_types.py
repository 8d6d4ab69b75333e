"""Values of the wrong type, told before anything is computed: `selection.count=ten`, `seed=abc`."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from winnow.errors import UserError

# Keys that no target takes under their own name; many others refer to them, so they are told first.
KEYS = {
    "seed": "int",
    "attack.share": "float",
    "attack.max_words": "int",
    "attack.query_budget": "int",
    "attack.seed": "int",
    "attack.processes": "int",
    "scoring.tokens_per_batch": "int",
    "scoring.flush_seconds": "float",
}
LARGEST_SEED = 2**32 - 1  # scikit-learn's k-means takes none above it, and none below 0
WORDS = {"int": "a whole number", "float": "a number", "bool": "true or false"}


def check_types(cfg: DictConfig) -> None:
    """Raises UserError for the first number or switch of the configuration that is given something else.

    What a key takes is what its target's signature says; ranges are the target's own business.
    """
    plain = OmegaConf.to_container(cfg, resolve=True)
    for key, kind in KEYS.items():
        _check(key, OmegaConf.select(cfg, key), {kind})
    if cfg.seed is None:
        raise UserError("seed=null is not a whole number; give a whole number.")
    if not 0 <= cfg.seed <= LARGEST_SEED:
        raise UserError(f"seed={cfg.seed} is out of range; give a whole number from 0 to {LARGEST_SEED}.")
    for group, value in plain.items():
        if group not in ("attack", "scale"):  # an attack is told under the method that uses it
            _walk(group, value)


def _walk(key: str, node: Any) -> None:
    if node == "None":
        raise UserError(f"{key}=None is a text; no value is written null.")
    if isinstance(node, list):
        for place, item in enumerate(node):
            _walk(f"{key}[{place}]", item)
    if not isinstance(node, Mapping):
        return
    kinds = _kinds(str(node["_target_"])) if "_target_" in node else {}
    for name, value in node.items():
        if name in kinds:
            _check(f"{key}.{name}", value, kinds[name])
        _walk(f"{key}.{name}", value)


def _kinds(target: str) -> dict[str, set[str]]:
    """Argument -> its types, for each argument of a target of ours that takes nothing but numbers or a switch."""
    if not target.startswith("winnow."):
        return {}
    try:
        found = get_object(target)
    except (ImportError, ValueError):
        return {}  # told when it is to be built
    # A subclass hands what it does not name to the class above it.
    makers: list[Callable] = [found]
    if inspect.isclass(found):
        makers = [vars(one)["__init__"] for one in reversed(found.__mro__[:-1]) if "__init__" in vars(one)]
    types = {
        name: {one.strip() for one in str(parameter.annotation).split("|")}
        for maker in makers
        for name, parameter in inspect.signature(maker).parameters.items()
    }
    return {name: own for name, own in types.items() if own - {"None"} and own <= {*WORDS, "None"}}


def _check(key: str, value: Any, types: set[str]) -> None:
    if value is None or value == "???":  # what may be left out is the target's business
        return
    fits = {
        "bool": isinstance(value, bool),
        "int": _number(value) and math.isfinite(value) and value == int(value),
        "float": _number(value),
    }
    if not any(fits[one] for one in types - {"None"}):
        wanted = " or ".join(WORDS[one] for one in sorted(types - {"None"}, key=list(WORDS).index))
        null = ", or null" if "None" in types else ""
        raise UserError(f"{key}={value} is not {wanted}; give {wanted}{null}.")


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
