"""Runs passes: finds what the store already has, computes the rest under `Trainer.predict`, writes as it goes."""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytorch_lightning as pl

from winnow.backbone.loading import Backbone
from winnow.backbone.memory import fitting_answers, fitting_tokens, on_device
from winnow.backbone.shared import is_shared
from winnow.data.records import Record
from winnow.data.templates import Encoded, Template
from winnow.distributed import compute_once, is_leader
from winnow.errors import UserError
from winnow.scoring.answer_loss import AnswerLoss
from winnow.scoring.pass_loop import InHalves, PartWriter, Pending, RecordProgress
from winnow.scoring.price import Meter
from winnow.scoring.protocols import Pass
from winnow.store.artifacts import Store
from winnow.store.columns import Columns, origin
from winnow.store.describe import describe
from winnow.trainer import interruptible, make_trainer

if TYPE_CHECKING:
    from winnow.perturb.attacks.base import PromptAttack
    from winnow.perturb.attacks.prompts import PromptTable


class PassRunner:
    """Computes passes for one backbone, or takes them from the store.

    source: a BackboneSource (or another `Identified` with `tokenizer` and `load()`); its weights are loaded
    when the first unfinished pass asks for them. tokens_per_batch: padded tokens per batch, or `auto` for
    what suits the device; it changes the speed, and numbers by rounding alone, and is no part of any fingerprint.
    flush_seconds: how much work a kill may cost.
    attack_processes: how many make attacked prompts at once.
    trainer: arguments of Lightning's Trainer.

    The columns of a pass with a model of its own (`encoder`) are kept under that model's identity, whatever the
    backbone and the template.
    """

    def __init__(
        self,
        source,
        store: Store,
        trainer: dict[str, Any],
        tokens_per_batch: int | str = 512,
        flush_seconds: float = 10.0,
        attack_processes: int = 1,
    ) -> None:
        if not (tokens_per_batch == "auto" or (isinstance(tokens_per_batch, int) and tokens_per_batch > 0)):
            raise UserError(
                f"scoring.tokens_per_batch={tokens_per_batch} must be a whole number of at least 1, or auto."
            )
        self.source, self.store, self.trainer = source, store, trainer
        self.tokens_per_batch, self.flush_seconds = tokens_per_batch, flush_seconds
        self.attack_processes = attack_processes
        self.computed: list[str] = []  # fingerprints of the passes of which the store had not all records
        self.used: list[str] = []
        self.origin: dict[str, str] = {}  # of passes and prompts when first asked for: computed, resumed or reused
        self._backbone: Backbone | None = None

    @property
    def backbone(self) -> Backbone:
        """The loaded backbone, whole; loading happens here, once, or anew if the processes share what was loaded."""
        self.forget()  # before the next one is there
        gc.collect()  # models of earlier passes, which Lightning holds in cycles on a GPU
        self._backbone = self._backbone or self._load()
        if self.trainer.get("strategy") != "fsdp":
            on_device(self._backbone.model, self.trainer)  # before adapters share its weights: moved later, each copies
        return self._backbone

    @property
    def loaded(self) -> Backbone:
        """The loaded backbone, whole or shared by the processes: for forward passes."""
        self._backbone = self._backbone or self._load()
        return self._backbone

    def _load(self) -> Backbone:
        gc.collect()  # models of earlier passes, which Lightning holds in cycles on a GPU
        return self.source.load()

    def forget(self, whole: bool = False) -> None:
        """Drops a backbone that the processes share, whose parts stay on their devices otherwise. whole: any."""
        if self._backbone is not None and (whole or is_shared(self._backbone.model)):
            self._backbone = None
            gc.collect()

    def release(self) -> Backbone:
        """The backbone, which the runner forgets: for one who changes its weights. The next use loads it again."""
        backbone, self._backbone = self.backbone, None
        return backbone

    def _budget(self, model, backward: bool = False) -> int:
        """Padded tokens per batch."""
        if self.tokens_per_batch == "auto":
            return fitting_tokens(model, self.trainer, backward)
        return int(self.tokens_per_batch)

    def over(self, source) -> PassRunner:
        """A runner over another backbone with the same settings and the same counts."""
        other = copy.copy(self)
        other.source, other._backbone = source, None
        return other

    def compute(self, pass_: Pass, records: Sequence[Record], template: Template) -> PassTable:
        """The columns of one pass for all records; a record is computed once, whatever pool it comes in."""
        unique = {record.id: record for record in records}
        columns = self.columns(pass_, template)

        def work(missing: list[str]) -> None:
            there = len(unique) - len(missing)
            if there and is_leader():
                known = f"{there} of {len(unique)} records are in the store"
                print(f"Pass {pass_.label}: {known}, {len(missing)} to compute.", flush=True)
            encoded = self._encoded(pass_, [unique[record_id] for record_id in missing], template)
            if pass_.runs_model:
                self._predict(pass_, encoded, columns, there)
            elif is_leader():
                columns.append(pass_.columns(encoded))

        missing = compute_once(columns, work, unique)
        self.used.append(columns.fingerprint)
        if missing:
            self.computed.append(columns.fingerprint)
        self.origin.setdefault(columns.fingerprint, origin(len(missing), len(unique)))
        held = columns.read(unique, [column.name for column in pass_.schema if not pa.types.is_list(column.type)])
        return PassTable(held, [record.id for record in records], lambda name: columns.read(unique, ["id", name]))

    def counts(self, fingerprints: Iterable[str] | None = None) -> tuple[int, int]:
        """(reused, resumed): how many of these artifacts, by default of all so far, the store had, whole or in part."""
        origins = [self.origin[one] for one in (self.origin if fingerprints is None else fingerprints)]
        return origins.count("reused"), origins.count("resumed")

    def columns(self, pass_: Pass, template: Template) -> Columns:
        """Where the columns live, of all records that were ever asked for."""
        return Columns(self.store, "passes", self.made_with(pass_, template), pass_.schema)

    def made_with(self, pass_: Pass, template: Template) -> dict[str, Any]:
        """All that the columns of a record depend on besides the record."""
        source = self._source(pass_)
        return {
            "pass": describe(pass_),
            "template": describe(template) if source is self.source else None,
            # The tokenizer alone decides where no backbone is run.
            "backbone": describe(source) if pass_.runs_model else source.identity["tokenizer"],
        }

    def _source(self, pass_: Pass):
        return self.source if pass_.encoder is None else pass_.encoder

    def prompts(
        self, attacks: Mapping[str, PromptAttack], records: Sequence[Record], template: Template
    ) -> dict[str, PromptTable]:
        """The instructions of all records under each attack: from the store, or made now by all processes."""
        from winnow.perturb.attacks.prompts import attacked_prompts, worker_pool

        @cache  # one model for all attacks, loaded when the first loss is asked
        def measure() -> AnswerLoss:
            return AnswerLoss(self.backbone, template, self._budget(self.backbone.model))

        def loss(record: Record, instructions: Sequence[str]) -> list[float]:
            return measure()(record, instructions)

        # What a greedy search finds depends on the model that leads it.
        identity = {"backbone": describe(self.source), "template": describe(template)}
        shown = self.trainer.get("enable_progress_bar", True)
        tables = {}
        with worker_pool(self.attack_processes) as pool:
            for name, attack in attacks.items():
                led, by = (loss, identity) if attack.search == "greedy" else (None, None)
                tables[name] = attacked_prompts(attack, records, self.store, led, by, shown, pool)
                self.origin.setdefault(tables[name].fingerprint, tables[name].origin)
        return tables

    def _encoded(self, pass_: Pass, records: Sequence[Record], template: Template) -> list[Encoded]:
        """The records as the pass sees them: attacked, if it has an attack; flagged, where the attack found nothing."""
        tokenizer, attack = self._source(pass_).tokenizer, pass_.attack
        if attack is None:
            return pass_.encode(records, template, tokenizer)
        table = self.prompts({attack.name: attack}, records, template)[attack.name]
        rewritten = [
            record if prompt is None else replace(record, instruction=prompt)
            for record, prompt in zip(records, table.prompts(), strict=True)
        ]
        return [
            encoded if reason is None else replace(encoded, ids=[], spans={}, flag=encoded.flag or reason)
            for encoded, reason in zip(pass_.encode(rewritten, template, tokenizer), table.flags(), strict=True)
        ]

    def _predict(self, pass_: Pass, encoded: list[Encoded], columns: Columns, there: int) -> None:
        model = self.loaded if pass_.encoder is None else pass_.encoder.load()
        if pass_.max_new_tokens:
            suited = fitting_answers(model.model, self.trainer)
        else:
            suited = self._budget(model.model, pass_.needs_gradients)
        data = Pending(pass_, encoded, columns, pass_.tokens_per_batch or suited, there)
        meter = Meter(model.model, encoder=pass_.encoder is not None, backward=pass_.needs_gradients)
        callbacks: list[pl.Callback] = [PartWriter(columns, self.flush_seconds, meter, pass_.label)]
        if self.trainer.get("enable_progress_bar", True):
            callbacks.append(RecordProgress())
        # Lightning's own bar counts batches.
        quiet = {"enable_progress_bar": False, "callbacks": callbacks, "logger": False}
        inference = not pass_.needs_gradients and self.trainer.get("strategy") != "fsdp"
        trainer = make_trainer(self.trainer, **quiet, inference_mode=inference)
        module = InHalves(pass_.module(model), data, model.model if pass_.encoder is None else None)
        with interruptible(trainer):
            trainer.predict(module, datamodule=data, return_predictions=False)
        trainer.strategy.barrier()


class PassTable:
    """Columns of a pass, lined up with the records that were asked for (copies included).

    table: `id` and further columns, its rows in any order. later: reads `id` and one of the other columns when that is
    asked for: vectors of a million records take GBs.
    """

    def __init__(self, table: pa.Table, ids: Sequence[str], later: Callable[[str], pa.Table] | None = None) -> None:
        self._table, self._ids, self._later = table, ids, later
        self._places = self._find(table)

    def __len__(self) -> int:
        return len(self._ids)

    def column(self, name: str) -> pa.ChunkedArray:
        """One column; offsets of lists and texts have 64 bits: those of a whole pool's may not fit into 32."""
        column, places = self._stored(name)
        return column.cast(_wide(column.type)).take(places)

    def _stored(self, name: str) -> tuple[pa.ChunkedArray, np.ndarray]:
        """A column in the order of its table, and where in it each record stands."""
        if self._later is None or name in self._table.column_names:
            return self._table[name], self._places
        table = self._later(name)
        return table[name], self._find(table)

    def _find(self, table: pa.Table) -> np.ndarray:
        position = {record_id: i for i, record_id in enumerate(table["id"].to_pylist())}
        return np.array([position[record_id] for record_id in self._ids], np.int64)

    def numbers(self, name: str) -> np.ndarray:
        """A numeric column as (records,) floats, NaN where there is no value."""
        return self.column(name).cast(pa.float64()).to_numpy(zero_copy_only=False)

    def flags(self) -> list[str | None]:
        """Why a record has no values, or None."""
        return self.column("flag").to_pylist()

    def ragged(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """A list column as its values, end to end, and (records + 1,) offsets into them."""
        column = self.column(name).combine_chunks()
        lengths = column.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
        values = column.flatten().to_numpy(zero_copy_only=False)
        return values.astype(np.float64), np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)

    def matrix(self, name: str, width: int) -> np.ndarray:
        """A list column of `width` values a record as (records, width) floats; NaN rows where there is none."""
        values, offsets = self.ragged(name)
        rows = np.full((len(self), width), np.nan)
        rows[np.diff(offsets) > 0] = values.reshape(-1, width)
        return rows

    def vectors(self, name: str) -> np.ndarray:
        """A list column of equally long vectors as (records, width) float32; NaN rows where there is none.

        Raises UserError if no record has a vector, RuntimeError if vectors differ in length.
        """
        column, places = self._stored(name)
        widths = pc.unique(pc.list_value_length(column).drop_null()).to_pylist()
        if not widths:
            raise UserError(f"The embedding pass gave no vector for any of {len(self)} records; see its column `flag`.")
        if len(widths) > 1:
            raise RuntimeError(f"vectors of one pass have several lengths: {sorted(widths)}")
        rows = np.full((len(self), widths[0]), np.nan, np.float32)
        order, starts = np.argsort(places), np.cumsum([0, *map(len, column.chunks)])
        parts = np.split(order, np.searchsorted(places[order], starts[1:-1]))
        for chunk, start, part in zip(column.chunks, starts[:-1], parts, strict=True):
            own = chunk.take(places[part] - start)
            there = own.is_valid().to_numpy(zero_copy_only=False)
            rows[part[there]] = own.flatten().to_numpy().reshape(-1, widths[0])
        return rows


def _wide(kind: pa.DataType) -> pa.DataType:
    """The type with offsets of 64 bits."""
    if pa.types.is_list(kind):
        return pa.large_list(_wide(kind.value_type))
    return pa.large_string() if pa.types.is_string(kind) else kind
