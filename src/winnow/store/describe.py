"""What a thing is, for fingerprints: derived from its class, its code and its constructor's arguments.

    describe(Likelihood("direct"))   {"class": "winnow.scoring.passes.likelihood.Likelihood", "class.version": 2,
                                      "view": "direct", "attack": None}

Two things with the same description give the same numbers. A class therefore keeps each argument of its constructor as
the attribute of the same name, in the form in which it is used, and declares an argument that changes no number where
it is taken: `batch_size: Free[int] = 8`.

The package ships `code.json`, the hash of each of its modules that holds such a class: code that differs from it, and
all code from elsewhere, is part of the description. `python -m winnow.store.describe` writes the file anew.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import inspect
import json
import re
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Annotated, Any, TypeVar

import numpy as np

from winnow.store.files import write_json

T = TypeVar("T")
Free = Annotated[T, "changes no number: a name, a place, speed or memory"]
ForSelection = Annotated[T, "changes which records may be selected, and no score"]

CODE = Path(__file__).with_name("code.json")
DESCRIBED = (
    *("backbone/loading.py", "backbone/sentence_encoder.py", "data/records.py"),
    *("data/templates.py", "data/tokens.py"),
    *("evaluation/nlu.py", "evaluation/suite.py"),
    *("perturb/distortion.py", "perturb/attacks/*.py", "perturb/noising/*.py"),
    *("scoring/filters.py", "scoring/protocols.py", "scoring/methods/*.py", "scoring/passes/*.py"),
    *("selection/around.py", "selection/budget.py", "selection/rules/*.py"),
    *("tuning/adversary/*.py", "tuning/pre_experience.py", "tuning/start.py", "tuning/tuner.py", "tuning/warm_up.py"),
)
# Module of a described class -> one beside it that holds half of what the class does.
_SECOND = {"winnow.data.templates": "winnow.data.tokens"}
# Classes of these libraries are told by their releases, which the run card names.
_LIBRARIES = {"torch", "pytorch_lightning", "lightning", "lightning_utilities", "lightning_fabric"}
_MARKED = re.compile(r"^(Free|ForSelection)\[(.*)\]$", re.S)


class Identified:
    """Base of a thing whose content, not the arguments that name it, says what it is: a model, a pool, files."""

    identity: Any  # JSON-able; takes the place of the arguments of the class that defines it


def describe(value: Any) -> Any:
    """`value` as JSON; an object as its class, version, code where needed (see above) and arguments, recursively.

    Raises TypeError for an object that does not keep an argument, and for a value that has no description.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, re.Pattern):
        return [value.pattern, value.flags]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): describe(one) for key, one in value.items()}
    if isinstance(value, Set):
        return sorted((describe(one) for one in value), key=json.dumps)
    if isinstance(value, Sequence):
        return [describe(one) for one in value]
    if isinstance(value, functools.partial):
        return {"function": describe(value.func), "args": describe(value.args), "keywords": describe(value.keywords)}
    if isinstance(value, (type, np.ufunc)) or inspect.isroutine(value):
        return _named(value)
    kind: Any = type(value)
    if isinstance(value, Identified):  # and the arguments that a class below the one with the identity adds
        known = parameters(next((one for one in kind.__mro__ if "identity" in vars(one)), kind))
        return _named(kind) | describe(arguments(value, known)) | describe(value.identity)
    if not inspect.isfunction(kind.__init__) and (
        kind.__init__ is not object.__init__ or kind.__new__ is not object.__new__ or not hasattr(value, "__dict__")
    ):
        raise TypeError(f"{_path(kind)} has no description; keep a number, a text or a list in its place.")
    return _named(kind) | describe(arguments(value))


def arguments(value: Any, known: Collection[str] = ()) -> dict[str, Any]:
    """The constructor arguments on which numbers depend, as `value` keeps them; without those that are known."""
    found = {}
    for name, annotation in parameters(type(value)).items():
        if name not in known and not _MARKED.match(annotation):
            try:
                found[name] = getattr(value, name)
            except AttributeError:
                raise TypeError(
                    f"{_path(type(value))} does not keep its argument {name}, so that its numbers could not be told "
                    f"from those of another {name}; set self.{name}."
                ) from None
            if isinstance(found[name], int) and plain(annotation) in ("float", "float | None"):
                found[name] = float(found[name])  # 1 and 1.0 are one setting
    return found


def parameters(target: Callable) -> dict[str, str]:
    """Name -> annotation of each argument of a class or function, those of the constructors above it first."""
    found: dict[str, str] = {}
    for _, own in signatures(target):
        found = {name: _written(one.annotation) for name, one in own.items()} | found
    return found


def signatures(target: Callable) -> Iterator[tuple[Callable, dict[str, inspect.Parameter]]]:
    """A function, or the constructors of a class, with the arguments of each. What a constructor takes as `**kwargs`
    are the arguments of the one above it; where there is none above, the `**` argument itself."""
    makers = [target]
    if isinstance(target, type):
        makers = [vars(one)["__init__"] for one in target.__mro__[:-1] if "__init__" in vars(one)]
    for maker in makers:
        own = {name: one for name, one in inspect.signature(maker).parameters.items() if name != "self"}
        rest = [name for name, one in own.items() if one.kind is one.VAR_KEYWORD]
        if maker is not makers[-1]:
            own = {name: one for name, one in own.items() if name not in rest}
        yield maker, own
        if not rest:
            return


def free(target: Callable) -> set[str]:
    """The arguments of a class or function that change no number at all."""
    return {name for name, annotation in parameters(target).items() if annotation.startswith("Free[")}


def plain(annotation: str) -> str:
    """The annotation without its mark: `int` of `Free[int]`."""
    marked = _MARKED.match(annotation)
    return marked[2] if marked else annotation


def _written(annotation: Any) -> str:
    """An annotation as text, also in a module that does not postpone annotations."""
    if isinstance(annotation, str):
        return annotation
    for mark, alias in (("Free", Free), ("ForSelection", ForSelection)):
        if alias.__metadata__ == getattr(annotation, "__metadata__", None):
            return f"{mark}[{_written(annotation.__origin__)}]"
    return inspect.formatannotation(annotation)


def _path(value: Any) -> str:
    return f"{value.__module__}.{value.__qualname__}"


def _named(value: Any) -> dict[str, Any]:
    """Path, version and code of a class or function."""
    if not isinstance(value, type):
        if "<" in value.__qualname__:
            raise TypeError(f"{_path(value)} has no name of its own; give a function of a module in its place.")
        return {"class": _path(value)} | _code((value.__module__,))
    version = next((vars(one)["version"] for one in value.__mro__ if "version" in vars(one)), None)
    return {"class": _path(value)} | ({} if version is None else {"class.version": version}) | _class_code(value)


@functools.cache  # what was loaded, though the file may be edited while the run goes on
def _class_code(kind: type) -> dict[str, str]:
    return _code(dict.fromkeys(one.__module__ for one in kind.__mro__))


def _code(modules: Iterable[str]) -> dict[str, str]:
    """The hashes of those of the modules that are neither of a library nor as they were shipped; {} without such."""
    found = []
    modules = list(modules)
    for name in [*modules, *(_SECOND[name] for name in modules if name in _SECOND)]:
        root = name.partition(".")[0]
        if name == __name__ or root in _LIBRARIES or (root in sys.stdlib_module_names and name != "__main__"):
            continue
        own = _module_hash(name)
        if own != _shipped().get(name):
            found.append(own)
    return {"class.code": " ".join(found)} if found else {}


def _module_hash(name: str) -> str:
    """Of the whole module: a class has functions and constants beside it."""
    try:
        return _hash(inspect.getsource(sys.modules[name]))
    except (KeyError, OSError, TypeError):
        raise TypeError(
            f"The source of the module {name} cannot be read, so a change of its classes would not be seen: put them "
            f"into a file that can be imported."
        ) from None


def _hash(source: str) -> str:
    """Of the code; comments, docstrings and layout do not count."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            # A constant that stands alone does nothing: a docstring.
            node.body = [
                one for one in node.body if not (isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant))
            ]
        elif isinstance(node, ast.JoinedStr):  # Python 3.12 puts an empty text behind a nested field
            node.values = [one for one in node.values if getattr(one, "value", None) != ""]
    return hashlib.sha256(_dump(tree).encode()).hexdigest()[:16]


def _dump(node: Any) -> str:
    """A syntax tree as text, without the empty fields, of which each version of Python writes others."""
    if isinstance(node, list):
        return f"[{','.join(map(_dump, node))}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = [f"{name}={_dump(value)}" for name, value in ast.iter_fields(node) if value is not None and value != []]
    return f"{type(node).__name__}({','.join(fields)})"


@functools.cache
def _shipped() -> dict[str, str]:
    return json.loads(CODE.read_text(encoding="utf-8")) if CODE.exists() else {}


def current_code() -> dict[str, str]:
    """Module -> hash, of each module of the package that holds a class which is described."""
    root = CODE.parents[1]
    files = sorted({file for glob in DESCRIBED for file in root.glob(glob)})
    sources = {".".join(file.relative_to(root.parent).with_suffix("").parts): file for file in files}
    return {
        name: _hash(text) for name, file in sources.items() if "\nclass " in (text := file.read_text(encoding="utf-8"))
    }


if __name__ == "__main__":
    write_json(CODE, current_code())
