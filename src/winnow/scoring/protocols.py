"""The base classes of passes and methods, and their check before anything is computed.

What a pass or a method is, is said by its class and its constructor's arguments: see `winnow.store.describe`.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa
import pytorch_lightning as pl
import torch
from torch import nn

from winnow.backbone.prefix import SharedPrefix
from winnow.data.batching import pad_right
from winnow.data.records import Record
from winnow.data.templates import Encoded, Template
from winnow.errors import UserError
from winnow.scoring.filters import Range
from winnow.store.describe import describe

if TYPE_CHECKING:
    from winnow.backbone.loading import Backbone
    from winnow.perturb.attacks.base import PromptAttack
    from winnow.scoring.runner import PassRunner, PassTable
    from winnow.scoring.scores import Scores


class Pass:
    """One sweep of a model over the records, giving columns per record. A subclass is a frozen dataclass.

    schema: the columns, `id` first and `flag`, why a record has no values, among them. version: raised whenever the
    same arguments would give other numbers. A subclass has `step`, `module` if it keeps more than the model between
    batches, or `columns` if it needs no model.

    attack: records come with the instruction that the attack has written. encoder: source of the model that is run in
    place of the backbone; it reads records, not prompts. tokens_per_batch: padded tokens a batch; None for the run's,
    or for as many answers as the device holds, where a pass has max_new_tokens, which it adds to a prompt at most.
    needs_gradients: `step` may use `torch.enable_grad()`. checkpoint: which of the models of the preparation it runs.
    """

    schema: ClassVar[pa.Schema]
    version: ClassVar[int] = 1
    attack: PromptAttack | None = None
    encoder: Any = None
    tokens_per_batch: int | None = None
    max_new_tokens: int = 0
    checkpoint: int = 0
    needs_gradients: ClassVar[bool] = False

    def encode(self, records: Sequence[Record], template: Template, tokenizer) -> list[Encoded]:
        """Token ids of every record; one with a `flag` is not run."""
        return template.encode(records, tokenizer)

    def step(self, run: Steps, batch: dict[str, Any]) -> dict[str, list]:
        """Columns of a batch: name -> one value per record. Those in `batch["columns"]` and an empty flag are added."""
        raise NotImplementedError

    def module(self, backbone: Backbone) -> pl.LightningModule:
        """Whose `predict_step(batch, batch_idx)` returns every column of a batch: name -> one value per record."""
        return Steps(self, backbone.model)

    def columns(self, encoded: Sequence[Encoded]) -> dict[str, list]:
        """Every column of all records, for a pass without a model."""
        raise NotImplementedError

    def collate(self, batch: Sequence[Encoded]) -> dict[str, Any]:
        """What `step` gets; `columns`, one dictionary per record, must be in it. The runner adds `shared`, how many
        first tokens all rows have in common."""
        return padded(batch)

    def flagged(self, encoded: Encoded) -> dict[str, Any]:
        """The columns of a record with a flag, besides `id` and `flag`: null, but for `answer_tokens`."""
        own = [name for name in self.schema.names if name not in ("id", "flag")]
        return dict.fromkeys(own) | ({"answer_tokens": encoded.answer_total} if "answer_tokens" in own else {})

    def cost(self, encoded: Encoded, shared: int) -> int:
        """Tokens of a batch's budget that a record takes. shared: first tokens that others have run already."""
        return len(encoded.ids) - shared

    def progress(self, columns: dict[str, list]) -> dict[str, int]:
        """What a finished batch adds to the counts beside the progress bar."""
        return {}

    @property
    def label(self) -> str:
        """The pass on the progress line."""
        words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", type(self).__name__).lower()
        return words if self.attack is None else f"{words} {self.attack.name}"

    @property
    def runs_model(self) -> bool:
        """Whether a model is run: the tokenizer alone decides otherwise."""
        return type(self).step is not Pass.step or type(self).module is not Pass.module


class Steps(pl.LightningModule):
    """What a pass's `step` works with. prefix: see `SharedPrefix`; a pass with an `encoder` has none."""

    prefix: SharedPrefix

    def __init__(self, pass_: Pass, model: nn.Module) -> None:
        super().__init__()
        self.pass_, self.model = pass_, model
        if pass_.encoder is None:
            self.prefix = SharedPrefix(model)

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, list]:
        given, names = batch["columns"], self.pass_.schema.names
        known = {name: [one[name] for one in given] for name in names if name in given[0]}
        return known | {"flag": [None] * len(given)} | self.pass_.step(self, batch)


def columns_of(**own: pa.DataType) -> pa.Schema:
    """The schema of a pass: `id`, its own columns, and `flag`."""
    return pa.schema({"id": pa.string(), **own, "flag": pa.string()})


def padded(batch: Sequence[Encoded]) -> dict[str, Any]:
    """Padded ids and the places of the answers' predictions: position t - 1 predicts token t.

    input_ids: (batch, length), padded on the right with 0, which a causal model needs no mask for. row, position,
    target: (scored tokens,), record by record. columns: of each record its id, tokens, prompt_tokens (the answer's
    first place), answer_tokens (before any cut), skipped (answer tokens without a predecessor), scored (those with one)
    and instruction (its span, None without one).
    """
    columns, places = [], []
    for i, record in enumerate(batch):
        first = max(record.answer_start, 1)  # the very first token of a text has no predecessor
        places += [(i, t - 1, record.ids[t]) for t in range(first, len(record.ids))]
        columns.append(
            {
                "id": record.id,
                "tokens": len(record.ids),
                "prompt_tokens": record.answer_start,
                "answer_tokens": record.answer_total,
                "skipped": first - record.answer_start,
                "scored": len(record.ids) - first,
                "instruction": record.spans.get("instruction"),
            }
        )
    row, position, target = torch.tensor(places, dtype=torch.long).reshape(len(places), 3).T.contiguous()
    ids = torch.tensor(pad_right([record.ids for record in batch], 0))
    return {"input_ids": ids, "row": row, "position": position, "target": target, "columns": columns}


class Preparation:
    """Makes the models that score in place of the backbone. checkpoints: how many."""

    checkpoints: int = 1

    def prepare(self, runner: PassRunner, records: Sequence[Record], template: Template) -> Sequence[Any]:
        """Their sources, from the store if they are there; see `PassRunner`. runner: over the backbone."""
        raise NotImplementedError


class Method:
    """A formula over the columns of passes.

    name: under which it is kept and shown. passes: by name, computed in their order. target_passes: by name, over the
    records of the target, a second pool of what the model should get better at; a method with such passes needs one.
    filters: which scored records may be selected. attacks: whose prompts are made first and shown with the scores.
    takes_all: every eligible record is selected. preparation: of the models that the passes run, None for the
    backbone. reads: the column of the pool's own rows that the scores are made of, None for none.
    """

    name: str
    version: ClassVar[int] = 1
    passes: Mapping[str, Pass] = MappingProxyType({})
    target_passes: Mapping[str, Pass] = MappingProxyType({})
    filters: Sequence[Range] = ()
    attacks: Mapping[str, PromptAttack] = MappingProxyType({})
    takes_all: ClassVar[bool] = False
    preparation: Preparation | None = None
    reads: str | None = None

    def score(self, tables: dict[str, PassTable], records: Sequence[Record]) -> Scores:
        """The scores of the records. tables: the columns of each pass, in the order of the records; of each target
        pass, in the order of the target's."""
        raise NotImplementedError

    def records_for(self, name: str, tables: dict[str, PassTable], records: Sequence[Record]) -> Sequence[Record]:
        """The records that the pass `name` runs over, one for each of `records`: these, or others made of them and of
        what the passes before it found. tables: of those passes."""
        return records

    def write_outputs(self, tables: dict[str, PassTable], records: Sequence[Record], folder: Path) -> None:
        """Write what is to be seen besides the scores into the run folder."""


def check_method(method: Any) -> None:
    """Raises UserError, before anything is computed, for a method that could not be run to its end."""
    from winnow.perturb.attacks.base import PromptAttack

    kind = type(method).__qualname__
    check_kind("method", method, Method, "score")
    if not isinstance(getattr(method, "name", None), str):
        raise UserError(f"method={kind} has no name; set self.name to a text.")
    for name, pass_ in [*method.passes.items(), *method.target_passes.items()]:
        check_pass(f"method={method.name}, pass {name}", pass_)
    if both := method.passes.keys() & method.target_passes.keys():
        raise UserError(f"method={method.name}: {min(both)} is a pass and a target pass; give one another name.")
    if method.preparation is not None:
        check_kind(f"method={method.name}, preparation", method.preparation, Preparation, "prepare")
    for name, attack in method.attacks.items():
        check_kind(f"method={method.name}, attack {name}", attack, PromptAttack, "attack")
    for rule in method.filters:
        if not isinstance(rule, Range):
            raise UserError(f"method={method.name} filters by {rule!r}; give a winnow.scoring.filters.Range.")


def check_pass(place: str, pass_: Any) -> None:
    """As `check_method`, for one pass. place: where the sentence says it is."""
    check_kind(place, pass_, Pass)
    kind = type(pass_).__qualname__
    if pass_.runs_model == (type(pass_).columns is not Pass.columns):
        raise UserError(f"{place}: {kind} must define `step`, or `columns` if it needs no model, and not both.")
    try:
        schema = pass_.schema
    except AttributeError:
        raise UserError(f"{place}: {kind} has no `schema`; give a pyarrow schema of its columns.") from None
    names = schema.names if isinstance(schema, pa.Schema) else []
    if names[:1] != ["id"] or "flag" not in names:
        raise UserError(
            f"{place}: the schema of {kind} has the columns {names}; `id` must come first, and `flag` be there."
        )


def check_kind(place: str, part: Any, base: type, *methods: str) -> None:
    """Raises UserError unless `part` is of the class `base`, has its own form of `methods`, and can be described."""
    kind = type(part)
    if not isinstance(part, base):
        raise UserError(
            f"{place}: {kind.__qualname__} is no {base.__name__}; derive it from {base.__module__}.{base.__name__}."
        )
    for name in methods:
        if inspect.getattr_static(kind, name) is inspect.getattr_static(base, name):
            raise UserError(
                f"{place}: {kind.__qualname__} does not define `{name}`, which every {base.__name__} needs."
            )
    try:
        describe(part)
    except TypeError as error:
        raise UserError(f"{place}: {error}") from None
