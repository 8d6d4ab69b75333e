"""What a thing is: two classes, two arguments and two codes are told apart; what changes no number is not told."""

from __future__ import annotations

import datetime
import decimal
import functools
import importlib.util
import inspect
import json
import linecache
import re
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from composed import CONF, build, config
from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate
from omegaconf import OmegaConf

from winnow.errors import UserError
from winnow.store import describe as module
from winnow.store.describe import CODE, Free, Identified, current_code, describe, free, parameters, plain

nrm = partial(build, "adversary/nrm")


class Base:
    version: ClassVar[int] = 3

    def __init__(self, rate: float, workers: Free[int] = 1) -> None:
        self.rate, self.workers = rate, workers


class Child(Base):
    def __init__(self, parts=(), **rest) -> None:
        super().__init__(**rest)
        self.parts = parts


@dataclass(frozen=True)
class Plain:
    name: Free[str]
    size: int = 1


def test_arguments_are_those_of_every_constructor():
    """`parts` is the child's own, `rate` its base's; `workers` is free. 2 and 2.0 are one rate."""
    found = describe(Child(parts=[Plain("a", 2), None, Path("x")], rate=2))
    assert found.pop("class.code") == describe(Base(1.0))["class.code"]
    assert found["parts"][0].pop("class.code")
    assert found == {
        "class": f"{__name__}.Child",
        "class.version": 3,
        "parts": [{"class": f"{__name__}.Plain", "size": 2}, None, "x"],
        "rate": 2.0,
    }
    assert type(found["rate"]) is float
    assert parameters(Child).keys() == {"parts", "rate", "workers"}
    assert free(Child) == {"workers"} and free(Plain) == {"name"}


def test_free_without_postponed_annotations(tmp_path, monkeypatch):
    """The mark is seen where annotations are objects too, as in a module without the future import."""
    source = (
        "from winnow.store.describe import Free\nclass Idea:\n    def __init__(self, n: Free[int] = 1, m: int = 2):\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "loose_idea.py").write_text(source + "        self.n, self.m = n, m\n")
    assert free(importlib.import_module("loose_idea").Idea) == {"n"}


def test_what_is_not_kept_is_named():
    """A constructor that drops an argument could hide a change of it."""

    class Forgetful:
        def __init__(self, beta: float) -> None: ...

    with pytest.raises(TypeError, match=r"Forgetful does not keep its argument beta.*set self\.beta"):
        describe(Forgetful(1.0))


def test_functions():
    """By path; a lambda has none, and a partial is its function and what it is given."""
    assert describe(Path.exists) == {"class": "pathlib.Path.exists"}
    assert describe(functools.partial(Path.exists, follow_symlinks=True))["keywords"] == {"follow_symlinks": True}
    with pytest.raises(TypeError, match="no name of its own"):
        describe(lambda: 1)


def test_values_that_no_constructor_of_python_makes():
    """Numbers of numpy and patterns are told by what they are; what would be told by its class alone is refused."""
    assert describe([np.int64(2), np.float32(0.5), np.bool_(True)]) == [2, 0.5, True]
    told = [re.compile("a"), re.compile("b"), re.compile("a", re.I), np.exp, np.log]
    assert len({json.dumps(describe(one)) for one in told}) == 5
    own = [np.ones(2), np.longdouble(1), np.complex64(1), torch.float32, torch.ones(1), torch.nn.Parameter()]
    for value in (*own, decimal.Decimal(1), datetime.date(2020, 1, 1), 1j, re, ValueError("a")):
        with pytest.raises(TypeError, match="has no description; keep a number, a text or a list"):
            describe(value)


def test_content_in_place_of_arguments():
    """Two folders with one content are one thing; a subclass that reads it otherwise is another, and each argument that
    it adds is told."""

    class Files(Identified):
        def __init__(self, path: str) -> None:
            self.path, self.identity = path, {"content": "abc"}

    class Reversed(Files):
        pass

    class Hashed(Identified):
        def __init__(self, path: str) -> None:
            self.given = path

        identity = property(lambda self: {"content": "abc"})

    class Cut(Hashed):
        def __init__(self, length: int, workers: Free[int] = 1, **rest) -> None:
            super().__init__(**rest)
            self.length = length

    assert describe(Files("a")) == describe(Files("b")) != describe(Reversed("a"))
    assert describe(Cut(1, path="a")) == describe(Cut(1, 2, path="b")) != describe(Cut(2, path="a"))
    assert describe(Cut(1, path="a")).keys() == {"class", "class.code", "content", "length"}


def edited(folder: Path, text: str, name: str = "own_idea"):
    """The class `Idea` of a module with this text, imported afresh."""
    sys.modules.pop(name, None)
    (folder / f"{name}.py").write_text(text)
    importlib.invalidate_caches()
    spec = importlib.util.spec_from_file_location(name, folder / f"{name}.py")
    loaded = sys.modules[name] = importlib.util.module_from_spec(spec)
    linecache.checkcache()
    exec(compile((folder / f"{name}.py").read_text(), str(folder / f"{name}.py"), "exec"), loaded.__dict__)
    return loaded.Idea


def test_code_from_elsewhere_counts(tmp_path):
    """A constant, a function beside the class or a method: each edit is another identity. A comment, a docstring or an
    empty line is none."""
    base = "STEP = 1\n\n\ndef step():\n    return STEP\n\n\n"
    base += 'class Idea:\n    """What it is."""\n\n    def run(self):\n        return step()\n'
    first = describe(edited(tmp_path, base)())
    same = base.replace("What it is.", "Told otherwise.").replace("STEP = 1", "# a comment\n\nSTEP = 1")
    assert describe(edited(tmp_path, same)()) == first
    for old, new in (("STEP = 1", "STEP = 2"), ("return STEP", "return -STEP"), ("return step()", "return 2 * step()")):
        assert describe(edited(tmp_path, base.replace(old, new))()) != first, new


def test_the_hash_of_code_is_that_of_every_python():
    """Made with 3.11, 3.12 and 3.13, whose syntax trees have other empty fields."""
    code = 'def f(a, b=None):\n    return f"{a:<{b}}", [""], print()\n'
    assert module._hash(code) == "f479a665d7c9f15c" != module._hash(code.replace("None", "[]"))


def test_a_base_from_elsewhere_counts(tmp_path):
    """NRM with another loss is no NRM, and its own code is what tells it, not that of the package."""
    text = "from winnow.tuning.adversary.nrm import NRM\n\n\nclass Idea(NRM):\n    pass\n"
    given = nrm()
    own = describe(edited(tmp_path, text)(**{name: getattr(given, name) for name in parameters(type(given))}))
    assert own["class"] == "own_idea.Idea" and len(own["class.code"].split()) == 1
    assert "class.code" not in describe(nrm())


def test_code_of_the_package_edited_in_place_counts(monkeypatch):
    """As shipped it is not told; where nrm.py is not what was shipped, it is, also in a subclass."""
    before = describe(nrm())
    monkeypatch.setattr(module, "_shipped", lambda: current_code() | {"winnow.tuning.adversary.nrm": "another"})
    module._class_code.cache_clear()
    after = describe(nrm())
    module._class_code.cache_clear()
    assert before == {key: value for key, value in after.items() if key != "class.code"} and "class.code" in after


def test_templates_are_told_by_the_module_of_their_tokens_too(monkeypatch):
    """Half of what a template does is done there."""
    assert "class.code" not in describe(build("template/alpaca"))
    monkeypatch.setattr(module, "_shipped", lambda: current_code() | {"winnow.data.tokens": "another"})
    module._class_code.cache_clear()
    after = describe(build("template/alpaca"))
    module._class_code.cache_clear()
    assert "class.code" in after


def test_code_json_is_current():
    """The shipped hashes are those of the code."""
    changed = {key for key, _ in json.loads(CODE.read_text()).items() ^ current_code().items()}
    assert not changed, (
        f"{', '.join(sorted(changed))} changed: raise `version` of each class there whose numbers change, then run "
        f"`python -m winnow.store.describe`."
    )


# Groups whose members compute nothing: where a run writes, on what it runs, whom it tells.
OTHERS = ("hydra", "experiment", "tracking", "trainer", "paths", "scale")


def named() -> dict[str, tuple[str, str]]:
    """Path of a class -> (group, option) of a YAML that builds it, for every class that one under conf/ names. What a
    group's options share (`_base`) names the class for them; the first of them is taken."""
    found: dict[str, tuple[str, str]] = {}
    for file in sorted(CONF.rglob("*.yaml"), key=lambda file: (file.stem not in ("smollm2_135m", "lora"), file)):
        group = file.parent.relative_to(CONF).as_posix()
        if file.parent == CONF or group.split("/")[0] in OTHERS:
            continue
        text = file.read_text(encoding="utf-8")
        for base in re.findall(r"^  - (?!_self_)(_\w+)", text, re.M):
            text += (file.parent / f"{base}.yaml").read_text(encoding="utf-8")
        if file.stem.startswith("_"):
            continue
        for path in re.findall(r"^\s*_target_: (winnow\.[\w.]+)", text, re.M):
            if inspect.isclass(get_object(path)):
                found.setdefault(path, (group, file.stem))
    return found


NAMED = named()
NEEDED = {
    ("start", "model"): ["start.path=model"],
    ("start", "pool"): ["data@start.pool=embedded"],
    ("method", "column"): ["method.column=score"],
}
# Argument by argument, something else that it may be.
WORDS = ["perplexity", "skip", "low", "rank", "last", "prompt", "answer", "authors", "middle", "bottom", "uniform"]
WORDS += ["vector", "linear", "bf16", "instruction", "other"]
# What the class's other arguments leave unasked, and what is told by content: a model behind a name, files at a place.
UNASKED = {
    "Opposite": {"omega"},
    "EmbeddingDistortion": {"name", "revision"},
    "SentenceEmbedding": {"name", "revision"},
    "BackboneSource": {"name", "revision", "trust_remote_code"},
    "Suite": {"mirror"},
    **{get_object(path).__name__: {"query_budget"} for path in NAMED if ".attacks." in path},  # search=random
}
CONTENT = {"ModelStart", "PoolStart", "Column"}


def others(value):
    """Candidates for another value of an argument."""
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, str):
        return [word for word in WORDS if word != value]
    if value is None or isinstance(value, (int, float)):
        return [one for one in ((value or 0) + 1, (value or 0) / 2, 0.25, 7) if one != value]
    return []


def node_of(path: str) -> dict:
    """The configuration of the class, as a user's choice of that option composes it."""
    group, option = NAMED[path]
    cfg = config(f"{group}={option}", *NEEDED.get((group, option), []))
    found: list[dict] = []

    def walk(node) -> None:
        for value in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
            walk(value)
        if isinstance(node, dict) and node.get("_target_") == path:
            found.append(node)

    walk(OmegaConf.to_container(cfg, resolve=True)[group.split("/")[0]])
    return {key: value for key, value in found[0].items() if key != "template"}


def test_the_walk_finds_the_classes():
    """A renamed folder must not turn the test below into an empty one."""
    assert len(NAMED) > 35 and {"winnow.tuning.tuner.Tuner", "winnow.scoring.methods.ifd.IFD"} <= set(NAMED)


@pytest.mark.parametrize("path", NAMED)
def test_every_class_that_conf_names(path, tmp_path, monkeypatch):
    """A subclass, an argument that it adds and a changed argument have another identity; a free setting has not; none
    brings its code, because `code.json` knows it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "adapter_model.safetensors").write_bytes(b"weights")
    node, kind = node_of(path), get_object(path)
    if "cache" in node:  # another name of the same folder; one that is empty takes half a minute to be filled
        (tmp_path / WORDS[0]).symlink_to(Path(node["cache"]).expanduser())
    value = instantiate(node)
    own = describe(value)
    assert own["class"] == path and "class.code" not in str(own)

    def init(self, added, **rest):
        kind.__init__(self, **rest)
        vars(self).update(added=added, rest=rest)  # the latter counts where no constructor stands above

    child = type(kind.__name__, (kind,), {"__module__": __name__, "__doc__": "", "__init__": init})
    monkeypatch.setitem(globals(), kind.__name__, child)
    path_ = f"{__name__}.{kind.__name__}"
    other, more = (describe(instantiate(node | {"_target_": path_, "added": added})) for added in (1, 2))
    assert other["class"] == path_ and "class.code" in other and other | {"added": 2} == more != other
    changed = set()
    for name, annotation in parameters(kind).items():
        for candidate in others(node[name]) if name in node and name not in UNASKED.get(kind.__name__, ()) else ():
            try:
                found = describe(instantiate(node | {name: candidate}))
            except InstantiationException as error:  # out of its range
                if not isinstance(error.__cause__, (UserError, TypeError)):
                    raise
                continue
            unmarked = plain(annotation) == annotation
            assert (found != own) == unmarked or kind.__name__ in CONTENT, (name, candidate)
            changed.add(name)
            break
    assert changed or not node.keys() - {"_target_", "pool", "path"}
