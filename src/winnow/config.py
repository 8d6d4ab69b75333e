"""Where the configuration files lie, and what is made of them: the whole, one part of it, and the check of both."""

from __future__ import annotations

import inspect
import math
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from winnow.errors import UserError
from winnow.store.describe import signatures

if TYPE_CHECKING:
    from omegaconf import DictConfig

CONF = (Path(__file__).parent / "conf").resolve()  # in the repository a link to its conf/
# Keys that belong to no target. Many others refer to them, so they are checked first.
KEYS = {
    "seed": int,
    "offline": bool,
    "attack.share": float,
    "attack.max_words": int,
    "attack.query_budget": int,
    "attack.seed": int,
    "attack.processes": int,
    "scoring.tokens_per_batch": int | str,
    "scoring.flush_seconds": float,
}
SHARES = ("selection.ratio", "attack.share")  # above 0, at most 1
POSITIVE = (  # above 0
    *("data.limit", "data.sample", "selection.count", "template.max_length", "scoring.tokens_per_batch"),
    *("tuning.epochs", "tuning.max_steps", "tuning.batch_size", "tuning.micro_batch_size", "tuning.learning_rate"),
    *("evaluation.limit", "evaluation.batch_size"),
)
PATHS = ("data.path", "data.exclude", "target.path", "target.exclude", "method.path")  # of files and folders here
STAGE_PATHS = {"tune": ("start.path", "start.pool.path"), "evaluate": ("evaluation.mirror", "evaluation.path")}
COMMANDS = ("compare", "dashboard", "table", "card", "lds", "store", "audit", "answer", "publish")  # of winnow.commands
LARGEST_SEED = 2**32 - 1  # scikit-learn's k-means takes none above it, and none below 0
WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", list: "a list", dict: "keys"}


def nothing() -> None:
    """The target of every `none` choice: the group builds nothing."""
    return


def compose(*overrides: str) -> DictConfig:
    """The configuration of `winnow <overrides>`. Of Hydra's own part it keeps what `told` returns, as `hydra`."""
    import hydra
    from omegaconf import open_dict

    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = hydra.compose("config", overrides=list(overrides), return_hydra_config=True)
    with open_dict(cfg):
        cfg.hydra = _told(cfg.hydra)
    return cfg


def told(cfg: DictConfig) -> dict[str, Any]:
    """What Hydra was told for a configuration: `choices`, group -> option, and `overrides`; empty where neither
    `compose` nor a job of Hydra made it."""
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    if "hydra" in cfg:
        return OmegaConf.to_container(cfg.hydra, resolve=False)
    return _told(HydraConfig.get()) if HydraConfig.initialized() else {}


def _told(own: DictConfig) -> dict[str, Any]:
    from omegaconf import OmegaConf

    choices = {str(group): str(option) for group, option in own.runtime.choices.items()}
    return {"choices": choices, "overrides": OmegaConf.to_container(own.overrides.task, resolve=False)}


def build(option: str, *overrides: str, **changes: Any) -> Any:
    """The object of one option with some arguments changed: `build("method/ifd", strict=True)`.

    The option stands in the whole configuration, so that `${seed}` and the like have a value. overrides: of the rest,
    as `winnow` takes them (`seed=3`). Raises UserError for arguments that the option does not take, and the
    constructor's own for values that it refuses.
    """
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate

    node = _node(option, overrides)
    _check_node(option.rpartition("/")[0], {**node, **changes})
    rest = {name: value for name, value in node.items() if name not in changes}
    try:
        return instantiate(rest, _partial_=True)(**changes)  # Hydra would copy and convert the changes
    except InstantiationException as error:
        if isinstance(error.__cause__, UserError):
            raise error.__cause__ from None
        raise


@cache
def _node(option: str, overrides: tuple[str, ...]) -> dict[str, Any]:
    from omegaconf import OmegaConf

    group, _, choice = option.rpartition("/")
    cfg = compose(f"{group}={choice}" if group != "attack" else f"attack=[{choice}]", *overrides)
    node = OmegaConf.to_container(cfg.attack.use[choice] if group == "attack" else cfg[group], resolve=True)
    if group == "method":
        node.pop("template", None)  # the pipeline's, beside the method
    return node


def check(cfg: DictConfig) -> None:
    """`check_values`; also raises UserError for the first key that its target does not take, and the first value of a
    wrong type.

    What a target takes is what its signature says; further ranges and names are the target's own business.
    """
    from omegaconf import OmegaConf

    check_values(cfg)
    plain = OmegaConf.to_container(cfg, resolve=True)
    own = plain["method"].pop("template", None)
    for group, value in ({**plain, "method.template": own}).items():
        if group not in ("attack", "scale"):  # an attack is checked under the method that uses it
            _walk(group, value)


def check_values(cfg: DictConfig) -> None:
    """Raises UserError for the first group that was deleted, the first number out of range and the first path that is
    not there. Imports no target."""
    from omegaconf import OmegaConf

    for group in sorted({path.name for path in CONF.iterdir() if path.is_dir()} - {"experiment", "hydra", *cfg}):
        cure = f"write {group}=none" if "none" in choices(group) else f"leave ~{group} out"
        raise UserError(f"{group} is missing: {cure}.")
    for key, kind in KEYS.items():
        _check_value(key, OmegaConf.select(cfg, key), kind)
    if not 0 <= cfg.seed <= LARGEST_SEED:
        raise UserError(f"seed={cfg.seed} is out of range; give a whole number from 0 to {LARGEST_SEED}.")
    for key in (*SHARES, *POSITIVE):
        value = OmegaConf.select(cfg, key)
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if number and not 0 < value <= (1 if key in SHARES else math.inf):
            most = " and at most 1; 0.05 is 5 percent" if key in SHARES else ""
            raise UserError(f"{key}={value} must be above 0{most}.")
    for key in (*PATHS, *(one for stage in STAGE_PATHS if stage in cfg.stages for one in STAGE_PATHS[stage])):
        path = OmegaConf.select(cfg, key)
        if isinstance(path, str) and path != "None" and not Path(path).expanduser().exists():
            raise UserError(f"{path} does not exist: give a file or folder that is there with {key}=...")


def arguments(target: Callable) -> dict[str, tuple[Any, bool]]:
    """Argument -> (type, whether it has a default) of a function or class; "**" for one that takes any name.

    A class that hands further arguments on takes those of the class above it. An annotation that cannot be read, as it
    has a name that only a type checker imports, stands for any type.
    """
    found: dict[str, tuple[Any, bool]] = {}
    for maker, own in signatures(target):
        for name, one in own.items():
            if one.kind is one.VAR_KEYWORD:
                found["**"] = (Any, True)
            elif one.kind is not one.VAR_POSITIONAL:
                found.setdefault(name, (_type(one.annotation, maker), one.default is not one.empty))
    return found


def _type(annotation: Any, maker: Callable) -> Any:
    if isinstance(annotation, str):
        try:
            annotation = eval(annotation, maker.__globals__)
        except Exception:  # whatever the missing name leads to
            return Any
    if typing.get_origin(annotation) is typing.Annotated:  # Free[int] takes what int takes
        return annotation.__origin__
    return Any if annotation is inspect.Parameter.empty else annotation


def _walk(key: str, node: Any) -> None:
    if isinstance(node, list):
        for place, item in enumerate(node):
            _walk(f"{key}[{place}]", item)
    if isinstance(node, Mapping):
        if "_target_" in node:
            _check_node(key, node)
        for name, value in node.items():
            _walk(f"{key}.{name}", value)


def _check_node(key: str, node: Mapping[str, Any]) -> None:
    from hydra.utils import get_object

    try:
        known = arguments(get_object(node["_target_"]))
    except (ImportError, ValueError):  # Hydra says so when it is to be built; builtins have no signature
        return
    given = {name: value for name, value in node.items() if not re.fullmatch(r"_\w+_", name)}
    for name, value in given.items():
        if name in known:
            _check_value(f"{key}.{name}", value, known[name][0])
        elif "**" not in known:
            raise UserError(f"{key}.{name} is no setting{instead(name, known, key)}")
    missing = [name for name, (_, has_default) in known.items() if not has_default and name not in given]
    if missing and not node.get("_partial_") and "_args_" not in node:
        raise UserError(f"{key}.{missing[0]} is missing; give {key}.{missing[0]}=...")


def _check_value(key: str, value: Any, kind: Any) -> None:
    if value == "None":
        raise UserError(f"{key}=None is a text; no value is written null.")
    if value == "???" or _fits(value, kind):
        return
    if isinstance(value, float) and value.is_integer() and _fits(int(value), kind):
        raise UserError(f"{key}={value} has a decimal point; write {key}={value:.0f}.")
    kinds = [one for one in (typing.get_args(kind) if _is_union(kind) else (kind,)) if one is not types.NoneType]
    named = [WORDS[_plain(one)] for one in kinds if not (one is int and float in kinds)]
    wanted = " or ".join(dict.fromkeys(named))
    shown = "null" if value is None else str(value).lower() if isinstance(value, bool) else value
    raise UserError(f"{key}={shown} is not {wanted}; give {wanted}{', or null' if _fits(None, kind) else ''}.")


def _fits(value: Any, kind: Any) -> bool:
    """Whether a plain value is of a type; one that has no plain values (a pass, a tuner) is taken as it is."""
    inner = typing.get_args(kind)
    if _is_union(kind):
        return any(_fits(value, one) for one in inner)
    if kind is types.NoneType or kind is None:
        return value is None
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    plain = _plain(kind)
    if plain is int:
        return number and isinstance(value, int)
    if plain is float:
        return number
    if plain is list:
        items = [one for one in inner if one is not ...][:1]
        return isinstance(value, (list, tuple)) and all(_fits(one, item) for one in value for item in items)
    if plain is dict:
        return isinstance(value, Mapping) and all(_fits(one, inner[1]) for one in value.values() if inner)
    return isinstance(value, plain) if plain in (bool, str) else True


def _is_union(kind: Any) -> bool:
    return typing.get_origin(kind) in (typing.Union, types.UnionType)


def _plain(kind: Any) -> Any:
    """The type of YAML that a type is written as: list for Sequence[int], dict for Mapping[str, float]."""
    origin = typing.get_origin(kind) or kind
    return {Sequence: list, tuple: list, Iterable: list, Mapping: dict}.get(origin, origin)


def choices(group: str) -> list[str]:
    """The choices of a group of the package's own files, `ifd/main` where they lie in folders; not the shared bases."""
    paths = sorted((CONF / group).rglob("*.yaml"))
    return [path.relative_to(CONF / group).with_suffix("").as_posix() for path in paths if path.name[0] != "_"]


def help_page() -> str:
    """What `winnow --help` prints. Hydra fills the same page, but composes and lists everything for it, which takes
    longer than all the rest."""
    import yaml

    page = yaml.safe_load((CONF / "hydra" / "help" / "winnow.yaml").read_text(encoding="utf-8"))
    groups = sorted({path.parent.relative_to(CONF).as_posix() for path in CONF.rglob("[!_]*.yaml")} - {"."})
    lines = [
        f"{group}: {', '.join(sorted(path.stem for path in (CONF / group).glob('[!_]*.yaml')))}"
        for group in groups
        if not group.startswith("hydra/")
    ]
    text = page["template"].replace("$APP_CONFIG_GROUPS", "\n".join(lines))
    for part in ("header", "footer"):
        text = text.replace(f"${{hydra.help.{part}}}", page[part])
    return text.replace("$$", "$")  # as Hydra's template has it


def instead(name: str, known: Iterable[str], parent: str, sign: str = ".") -> str:
    """The end of a sentence about an unknown name: the likeliest known one, and all of them."""
    known = [one for one in known if not one.startswith("_")]
    close = [f"{parent}{sign}{one}" if parent else one for one in get_close_matches(name, known, 1, 0.65)]
    return f"{'; did you mean ' + close[0] + '?' if close else '.'} Known are {', '.join(known) or 'none'}."
