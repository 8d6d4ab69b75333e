"""What `Trainer.predict` runs a pass with: its batches, the writer of its parts, its progress bar."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import BasePredictionWriter
from torch import nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from winnow.backbone.memory import Halves
from winnow.backbone.shared import is_shared, join_in, share_model
from winnow.data.batching import shared_prefixes, token_budget_batches
from winnow.data.templates import Encoded
from winnow.distributed import from_leader, is_leader
from winnow.errors import out_of_memory
from winnow.scoring.price import Meter, charge
from winnow.scoring.protocols import Pass
from winnow.store.columns import Columns

NOTHING = -1  # number of a batch without records


class Pending(pl.LightningDataModule):
    """Ready-made batches of the records that the store lacks. there: how many it has already."""

    def __init__(self, pass_: Pass, encoded: list[Encoded], columns: Columns, budget: int, there: int) -> None:
        super().__init__()
        self.pass_, self.columns, self.budget = pass_, columns, budget
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
            from_leader(self.budget),  # on which the order of the batches hangs; processes may have measured others
            [tuple(row[:common]) for row, common in zip(rows, shared, strict=True)],
        )
        self.batches = [([self.pending[i] for i in batch], shared[batch[0]]) for batch in batches]
        # Dealt out like cards: neighbours are of about equal size, so every process has about equal work.
        assert self.trainer is not None  # Lightning asks for batches from inside a Trainer
        mine: Any = range(self.trainer.global_rank, len(batches), self.trainer.world_size)
        # Lightning refuses a process without batches where others have some.
        mine = mine or [NOTHING][: len(batches)]
        return DataLoader(mine, batch_size=None, shuffle=False, collate_fn=self._batch)

    def _batch(self, number: Any) -> dict[str, Any]:  # an int; torch expects lists
        if number == NOTHING:
            return {"columns": [], "number": NOTHING}
        records, shared = self.batches[number]
        return self.pass_.collate(records) | {"shared": shared, "number": number}


class InHalves(pl.LightningModule):
    """A pass's module; where memory ends, its batch is run in parts, which changes no number: see `Halves`. A model
    that the processes share runs batches whole.

    model: that the processes may share; None of a pass with a model of its own.
    """

    def __init__(self, module: pl.LightningModule, data: Pending, model: nn.Module | None) -> None:
        super().__init__()
        self.module, self.data, self.model = module, data, model
        self.halves = Halves(self._tell)

    def cpu(self) -> InHalves:
        """Itself: after each pass Lightning would move the weights to the CPU, and the next one back."""
        return self

    def configure_model(self) -> None:
        if self.model is not None:
            share_model(self.trainer, self.model)

    def on_predict_epoch_end(self) -> None:
        if self.model is not None:
            join_in(self.model)

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, list]:
        if batch["number"] == NOTHING:
            return {}
        if self.model is not None and is_shared(self.model):
            # The others wait in the block in which memory ended, so nothing can be run again.
            return self.module.predict_step(batch, batch_idx)
        records, shared = self.data.batches[batch["number"]]
        pass_ = self.data.pass_

        def size(part: Sequence[Encoded]) -> int:
            return len(part) * max(pass_.cost(record, shared) for record in part)

        def work(part: Sequence[Encoded]) -> dict[str, list]:
            if len(part) == len(records):
                return self.module.predict_step(batch, batch_idx)
            own = self.transfer_batch_to_device(pass_.collate(part) | {"shared": shared}, self.device, 0)
            return self.module.predict_step(own, batch_idx)

        parts = self.halves(records, size, work)
        return {name: [value for part in parts for value in part[name]] for name in parts[0]}

    def _tell(self, records: int, tokens: int) -> None:
        tqdm.write(
            f"Pass {self.data.pass_.label}: a batch of {records} records ({tokens} tokens) is more than memory holds. "
            f"Its halves are run one after the other, and so is every batch of that size; nothing is lost."
        )


class PartWriter(BasePredictionWriter):
    """Collects what `predict_step` returns, and writes a part every few seconds, and what it took into the ledger: of
    n processes that compute at once, an nth of the time each."""

    def __init__(self, columns: Columns, flush_seconds: float, meter: Meter, label: str) -> None:
        super().__init__(write_interval="batch")
        self.columns, self.flush_seconds, self.meter, self.label = columns, flush_seconds, meter, label
        self.waiting: dict[str, list] = {}
        self.flushed_at = time.monotonic()

    def on_predict_start(self, trainer, module) -> None:
        self.flushed_at, self.processes = time.monotonic(), trainer.world_size
        self.meter.open()

    def on_exception(self, trainer, module, exception) -> None:
        if out_of_memory(exception):
            self._flush()
        self.meter.close()

    def write_on_batch_end(self, trainer, module, prediction, batch_indices, batch, batch_idx, loader_idx) -> None:
        for name, values in prediction.items():
            self.waiting.setdefault(name, []).extend(values)
        if time.monotonic() - self.flushed_at >= self.flush_seconds:
            self._flush()

    def on_predict_epoch_end(self, trainer, module) -> None:
        # Before this process joins in with the others, whose failure would lose what it has, and whose passes cost it.
        self._flush()
        self.meter.close()

    def _flush(self) -> None:
        if self.waiting:
            self.columns.append(self.waiting)
            spent = (time.monotonic() - self.flushed_at) / self.processes
            charge(self.columns.path, self.meter.entry(self.label, len(self.waiting["id"]), spent))
            self.waiting = {}
        self.flushed_at = time.monotonic()


class RecordProgress(pl.Callback):
    """A bar that counts records, not batches: batches differ in size."""

    def on_predict_start(self, trainer, module) -> None:
        data = trainer.datamodule
        self.bar = tqdm(
            total=data.total,
            initial=data.total - len(data.pending),
            desc=f"Pass {data.pass_.label}",
            unit="rec",
            disable=trainer.global_rank != 0,
        )
        self.counts: Counter[str] = Counter()

    def on_predict_batch_end(self, trainer, module, outputs, batch, batch_idx, dataloader_idx=0) -> None:
        self.counts.update(trainer.datamodule.pass_.progress(outputs) if outputs else {})
        if self.counts:
            self.bar.set_postfix({name: f"{count * trainer.world_size:,}" for name, count in self.counts.items()})
        self.bar.update(len(batch["columns"]) * trainer.world_size)

    def on_predict_end(self, trainer, module) -> None:
        self.bar.close()
