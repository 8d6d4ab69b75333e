"""Runs passes: finds what the store already has, computes the rest under `Trainer.predict`, writes as it goes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytorch_lightning as pl
from pytorch_lightning.callbacks import BasePredictionWriter
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from winnow.backbone.loading import Backbone
from winnow.data.batching import shared_prefixes, token_budget_batches
from winnow.data.records import Record
from winnow.data.templates import Encoded, Template
from winnow.distributed import barrier, is_leader
from winnow.scoring.passes import Pass
from winnow.scoring.store import Artifact, ColumnParts, Store, fingerprint


class PassRunner:
    """Computes passes for one backbone, or takes them from the store.

    source: a BackboneSource (or anything with `.identity`, `.tokenizer` and `.load()`); its weights are loaded
    when the first unfinished pass asks for them. tokens_per_batch: padded tokens per batch; it changes the speed,
    not the numbers, and is no part of any fingerprint. flush_seconds: how much work a kill may cost.
    trainer: arguments of Lightning's Trainer.
    """

    def __init__(
        self,
        source,
        store: Store,
        trainer: dict[str, Any],
        tokens_per_batch: int = 512,
        flush_seconds: float = 10.0,
    ) -> None:
        self.source, self.store, self.trainer = source, store, trainer
        self.tokens_per_batch, self.flush_seconds = tokens_per_batch, flush_seconds
        self.computed: list[str] = []  # fingerprints of the passes that were not in the store yet
        self.used: list[str] = []
        self._backbone: Backbone | None = None

    @property
    def backbone(self) -> Backbone:
        """The loaded backbone; loading happens here, once."""
        if self._backbone is None:
            self._backbone = self.source.load()
        return self._backbone

    def compute(self, pass_: Pass, records: Sequence[Record], template: Template) -> PassTable:
        """The columns of one pass for all records; records with the same id are computed once."""
        unique = list({record.id: record for record in records}.values())
        artifact = self.artifact(pass_, unique, template)
        self.used.append(artifact.fingerprint)
        if not artifact.finished:
            self._fill(artifact, pass_, unique, template)
        table = ColumnParts(artifact.path, pass_.schema).table()
        return PassTable(table, [record.id for record in records])

    def artifact(self, pass_: Pass, records: Sequence[Record], template: Template) -> Artifact:
        """Where the columns live. The key holds the records' ids as a set: neither file order nor copies matter."""
        ids = sorted({record.id for record in records})
        meta = {
            "pass": pass_.settings(),
            "data": {"records": len(ids), "ids": fingerprint({"ids": ids})},
            "template": template.settings(),
            # The tokenizer alone decides where no backbone is run.
            "backbone": self.source.identity if hasattr(pass_, "module") else self.source.identity["tokenizer"],
        }
        return self.store.artifact("passes", meta)

    def _fill(self, artifact: Artifact, pass_: Pass, records: Sequence[Record], template: Template) -> None:
        if not is_leader():  # another rank of the process that holds the lock
            self._predict(artifact, pass_, records, template)
            return
        with artifact.claim() as must_compute:
            if must_compute:
                self.computed.append(artifact.fingerprint)
                self._predict(artifact, pass_, records, template)

    def _predict(self, artifact: Artifact, pass_: Pass, records: Sequence[Record], template: Template) -> None:
        parts = ColumnParts(artifact.path, pass_.schema)
        encoded = pass_.encode(records, template, self.source.tokenizer)
        if not hasattr(pass_, "module"):
            parts.write("all", pass_.columns(encoded))
        else:
            data = _Pending(pass_, encoded, parts, self.tokens_per_batch, " ".join(str(pass_.settings().get(k, "")) for k in ("pass", "view")).strip())
            callbacks = [_PartWriter(parts, self.flush_seconds)]
            if self.trainer.get("enable_progress_bar", True):
                callbacks.append(_RecordProgress())
            trainer = pl.Trainer(
                **self.trainer | {"enable_progress_bar": False},  # Lightning's own bar counts batches
                callbacks=callbacks,
                logger=False,
                enable_checkpointing=False,
                enable_model_summary=False,
                use_distributed_sampler=True,
            )
            trainer.predict(pass_.module(self.backbone), datamodule=data, return_predictions=False)
            trainer.strategy.barrier()
        if is_leader():
            parts.merge()
            artifact.finish()
        barrier()


class PassTable:
    """Columns of a pass, lined up with the records that were asked for (copies included)."""

    def __init__(self, table: pa.Table, ids: Sequence[str]) -> None:
        position = {record_id: i for i, record_id in enumerate(table["id"].to_pylist())}
        missing = [record_id for record_id in ids if record_id not in position]
        if missing:
            raise RuntimeError(f"{len(missing)} records have no columns, the first is {missing[0]}")
        self.table = table.take([position[record_id] for record_id in ids])

    def __len__(self) -> int:
        return self.table.num_rows

    def numbers(self, name: str) -> np.ndarray:
        """A numeric column as (records,) floats, NaN where there is no value."""
        return self.table[name].cast(pa.float64()).to_numpy(zero_copy_only=False)

    def flags(self) -> list[str | None]:
        """Why a record has no values, or None."""
        return self.table["flag"].to_pylist()

    def ragged(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """A list column as its values, end to end, and (records + 1,) offsets into them."""
        column = self.table[name].combine_chunks()
        lengths = column.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
        values = column.flatten().to_numpy(zero_copy_only=False)
        return values.astype(np.float64), np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)

    def vectors(self, name: str) -> np.ndarray:
        """A column of equally long vectors as (records, width); only for tables without flags."""
        values, offsets = self.ragged(name)
        return values.reshape(len(self), -1).astype(np.float32) if offsets[-1] else np.zeros((len(self), 0))


class _Pending(pl.LightningDataModule):
    """Ready-made batches of the records that the parts on disk do not hold yet."""

    def __init__(self, pass_: Pass, encoded: list[Encoded], parts: ColumnParts, budget: int, label: str) -> None:
        super().__init__()
        self.pass_, self.encoded, self.parts, self.budget, self.label = pass_, encoded, parts, budget, label
        self.pending: list[Encoded] = []

    def setup(self, stage: str) -> None:
        done = self.parts.done_ids()
        if done:
            print(f"Resuming {self.label}: {len(done)} of {len(self.encoded)} records are there already.")
        # No rank may write a part before every rank has seen the same state of the folder.
        self.trainer.strategy.barrier()
        self.pending = [record for record in self.encoded if record.id not in done and record.flag is None]
        flagged = [record for record in self.encoded if record.id not in done and record.flag is not None]
        if flagged and is_leader():
            rows = [{"id": r.id, "flag": r.flag} | self.pass_.flagged(r) for r in flagged]
            self.parts.write(f"flagged-{self.parts.count():05d}", {k: [row[k] for row in rows] for k in rows[0]})

    def predict_dataloader(self) -> DataLoader:
        rows = [record.ids for record in self.pending]
        before_text = [record.spans.get("instruction", (0, 0))[0] for record in self.pending]
        shared = shared_prefixes(rows, before_text)
        batches = token_budget_batches(
            [len(row) - common for row, common in zip(rows, shared, strict=True)],
            self.budget,
            [tuple(row[:common]) for row, common in zip(rows, shared, strict=True)],
        )
        dataset = _Batches([([self.pending[i] for i in batch], shared[batch[0]]) for batch in batches], self.pass_)
        return DataLoader(dataset, batch_size=None, shuffle=False)


class _Batches(Dataset):
    """One item is one batch, so that Lightning's sharding over processes deals out whole batches."""

    def __init__(self, batches: list[tuple[list[Encoded], int]], pass_: Pass) -> None:
        self.batches, self.pass_ = batches, pass_

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> dict[str, Any]:
        records, shared = self.batches[index]
        return self.pass_.collate(records) | {"shared": shared}


class _PartWriter(BasePredictionWriter):
    """Collects what `predict_step` returns and writes a part every few seconds."""

    def __init__(self, parts: ColumnParts, flush_seconds: float) -> None:
        super().__init__(write_interval="batch")
        self.parts, self.flush_seconds = parts, flush_seconds
        self.waiting: dict[str, list] = {}
        self.flushed_at = time.monotonic()
        self.written = 0

    def on_predict_start(self, trainer, module) -> None:
        self.first = self.parts.count()
        self.flushed_at = time.monotonic()

    def write_on_batch_end(self, trainer, module, prediction, batch_indices, batch, batch_idx, loader_idx) -> None:
        for name, values in prediction.items():
            self.waiting.setdefault(name, []).extend(values)
        if time.monotonic() - self.flushed_at >= self.flush_seconds:
            self._flush(trainer.global_rank)

    def on_predict_end(self, trainer, module) -> None:
        self._flush(trainer.global_rank)

    def _flush(self, rank: int) -> None:
        if self.waiting:
            # Names never repeat: `first` counts what earlier, interrupted runs have left.
            self.parts.write(f"rank{rank}-{self.first:05d}-{self.written:05d}", self.waiting)
            self.written += 1
            self.waiting = {}
        self.flushed_at = time.monotonic()


class _RecordProgress(pl.Callback):
    """A bar that counts records, not batches: batches differ in size."""

    def on_predict_start(self, trainer, module) -> None:
        data = trainer.datamodule
        self.bar = tqdm(
            total=len(data.encoded),
            initial=len(data.encoded) - len(data.pending),
            desc=f"Pass {data.label}",
            unit="rec",
            disable=trainer.global_rank != 0,
        )

    def on_predict_batch_end(self, trainer, module, outputs, batch, batch_idx, dataloader_idx=0) -> None:
        self.bar.update(len(batch["columns"]) * trainer.world_size)

    def on_predict_end(self, trainer, module) -> None:
        self.bar.close()
