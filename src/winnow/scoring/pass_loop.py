"""What `Trainer.predict` runs a pass with: its batches, the writer of its parts, its progress bar."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import BasePredictionWriter
from torch.utils.data import DataLoader, Dataset, Subset
from tqdm import tqdm

from winnow.data.batching import shared_prefixes, token_budget_batches
from winnow.data.templates import Encoded
from winnow.distributed import is_leader
from winnow.scoring.protocols import Pass
from winnow.store.columns import Columns


class Pending(pl.LightningDataModule):
    """Ready-made batches of the records that the store lacks. there: how many it has already."""

    def __init__(
        self, pass_: Pass, encoded: list[Encoded], columns: Columns, budget: int, label: str, there: int
    ) -> None:
        super().__init__()
        self.pass_, self.columns, self.budget, self.label = pass_, columns, budget, label
        self.total = there + len(encoded)
        self.pending = [record for record in encoded if record.flag is None]
        self.flagged = [record for record in encoded if record.flag is not None]

    def setup(self, stage: str) -> None:
        if self.flagged and is_leader():
            rows = [{"id": r.id, "flag": r.flag} | self.pass_.flagged(r) for r in self.flagged]
            self.columns.append({key: [row[key] for row in rows] for key in rows[0]})

    def predict_dataloader(self) -> DataLoader:
        rows = [record.ids for record in self.pending]
        before_text = [record.spans.get("instruction", (0, 0))[0] for record in self.pending]
        shared = shared_prefixes(rows, before_text)
        batches = token_budget_batches(
            [self.pass_.cost(record, common) for record, common in zip(self.pending, shared, strict=True)],
            self.budget,
            [tuple(row[:common]) for row, common in zip(rows, shared, strict=True)],
        )
        dataset = _Batches([([self.pending[i] for i in batch], shared[batch[0]]) for batch in batches], self.pass_)
        # Dealt out like cards: neighbours are of about equal size, so every process has about equal work.
        assert self.trainer is not None  # Lightning asks for batches from inside a Trainer
        mine = range(self.trainer.global_rank, len(dataset), self.trainer.world_size)
        return DataLoader(Subset(dataset, mine), batch_size=None, shuffle=False)


class _Batches(Dataset):
    """One item is one whole batch."""

    def __init__(self, batches: list[tuple[list[Encoded], int]], pass_: Pass) -> None:
        self.batches, self.pass_ = batches, pass_

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> dict[str, Any]:
        records, shared = self.batches[index]
        return self.pass_.collate(records) | {"shared": shared}


class PartWriter(BasePredictionWriter):
    """Collects what `predict_step` returns and writes a part every few seconds."""

    def __init__(self, columns: Columns, flush_seconds: float) -> None:
        super().__init__(write_interval="batch")
        self.columns, self.flush_seconds = columns, flush_seconds
        self.waiting: dict[str, list] = {}
        self.flushed_at = time.monotonic()

    def on_predict_start(self, trainer, module) -> None:
        self.flushed_at = time.monotonic()

    def write_on_batch_end(self, trainer, module, prediction, batch_indices, batch, batch_idx, loader_idx) -> None:
        for name, values in prediction.items():
            self.waiting.setdefault(name, []).extend(values)
        if time.monotonic() - self.flushed_at >= self.flush_seconds:
            self._flush()

    def on_predict_end(self, trainer, module) -> None:
        self._flush()

    def _flush(self) -> None:
        if self.waiting:
            self.columns.append(self.waiting)
            self.waiting = {}
        self.flushed_at = time.monotonic()


class RecordProgress(pl.Callback):
    """A bar that counts records, not batches: batches differ in size."""

    def on_predict_start(self, trainer, module) -> None:
        data = trainer.datamodule
        self.bar = tqdm(
            total=data.total,
            initial=data.total - len(data.pending),
            desc=f"Pass {data.label}",
            unit="rec",
            disable=trainer.global_rank != 0,
        )
        self.counts: Counter[str] = Counter()

    def on_predict_batch_end(self, trainer, module, outputs, batch, batch_idx, dataloader_idx=0) -> None:
        self.counts.update(trainer.datamodule.pass_.progress(outputs))
        if self.counts:
            self.bar.set_postfix({name: f"{count * trainer.world_size:,}" for name, count in self.counts.items()})
        self.bar.update(len(batch["columns"]) * trainer.world_size)

    def on_predict_end(self, trainer, module) -> None:
        self.bar.close()
