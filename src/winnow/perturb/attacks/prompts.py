"""Attacked prompts: made once per (record, attack, settings), resumable, in parallel over processes.

The columns `prompts/<fingerprint>` of the store hold one row per record, whatever pool it came in. A worker process is
handed ids and instructions and nothing else of a record, so an attack cannot change, or even see, the rest.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from itertools import islice
from multiprocessing import get_context, parent_process

import pyarrow as pa
import torch
from rapidfuzz.distance import Levenshtein
from tqdm import tqdm

from winnow.data.records import Record
from winnow.distributed import barrier, compute_once, end_after, is_leader, share
from winnow.errors import UserError
from winnow.perturb.attacks.base import ATTACK_FAILS, Losses, Outcome, PromptAttack
from winnow.store.artifacts import Store
from winnow.store.columns import Columns, origin
from winnow.store.describe import describe

CHUNK = 16  # records that a process takes at once
AHEAD = 32  # chunks handed out at once: enough to keep workers busy, little to throw away when a run is stopped
FLUSH_SECONDS = 10.0  # how often finished prompts are written: the most that a kill can cost
VERSION = 1  # of the columns and the way they are measured
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("attack", pa.string()),
        ("prompt", pa.string()),
        ("words_changed", pa.int32()),
        ("similarity", pa.float32()),
        ("edit_distance", pa.int32()),
        ("queries", pa.int32()),
        ("success", pa.bool_()),
        ("flag", pa.string()),
        ("resources", pa.string()),
    ]
)

AnswerLosses = Callable[[Record, Sequence[str]], Sequence[float]]
Text = tuple[str, str]  # id and instruction


class PromptTable:
    """Attacked prompts, lined up with the records that were asked for (copies included).

    Columns: `prompt`, the attacked instruction or null; `words_changed`; `similarity`, cosine of MiniLM's vectors of
    the two instructions; `edit_distance`, Levenshtein, in characters; `queries`, instructions whose loss was asked;
    `success`; `flag`, why there is no prompt; `resources`, what it was made with. fingerprint: the columns'. origin:
    `computed` now, `reused` from the store, or `resumed`, where the store had some of the records.
    """

    def __init__(self, table: pa.Table, ids: Sequence[str], fingerprint: str, origin: str = "reused") -> None:
        place = {record_id: i for i, record_id in enumerate(table["id"].to_pylist())}
        places = pa.array([place[record_id] for record_id in ids], pa.int64())
        self.table, self.fingerprint, self.origin = table.take(places), fingerprint, origin

    def __len__(self) -> int:
        return self.table.num_rows

    def prompts(self) -> list[str | None]:
        """The attacked instruction of each record, None where the attack found none."""
        return self.table["prompt"].to_pylist()

    def flags(self) -> list[str | None]:
        """Why a record has no attacked prompt, or None."""
        return self.table["flag"].to_pylist()


def attacked_prompts(
    attack: PromptAttack,
    records: Sequence[Record],
    store: Store,
    answer_loss: AnswerLosses | None = None,
    loss_identity: dict | None = None,
    progress: bool = True,
    pool: ProcessPoolExecutor | None = None,
) -> PromptTable:
    """The attacked instructions of all records: taken from the store, or made now.

    Every process of a group calls it at once and makes its share. answer_loss: for search=greedy, the losses of a
    record's answer under several instructions; loss_identity: what they depend on. pool: see `worker_pool`; for
    search=random, each worker on one thread; search=greedy works in this process, where the backbone is. No prompt
    depends on the pool.
    """
    greedy = attack.search == "greedy"
    if greedy and (answer_loss is None or loss_identity is None):
        raise ValueError("search=greedy needs answer_loss and loss_identity")
    unique = {record.id: record for record in records}
    meta = {"attack": describe(attack), "loss": loss_identity if greedy else None, "version": VERSION}
    columns = Columns(store, "prompts", meta, SCHEMA)

    def work(missing: list[str]) -> None:
        there = len(unique) - len(missing)
        if there and is_leader():
            known = f"{there} of {len(unique)} records are in the store"
            print(f"Attack {attack.name}: {known}, {len(missing)} to make.", flush=True)
        pending = [unique[record_id] for record_id in share(missing)]
        name, off = f"Attack {attack.name}", not (progress and is_leader())
        with tqdm(total=there + len(pending), initial=there, desc=name, unit="rec", disable=off) as bar:
            _make(attack, pending, columns, answer_loss, pool, bar)
        barrier()

    missing = compute_once(columns, work, unique)
    return PromptTable(
        columns.read(unique), [record.id for record in records], columns.fingerprint, origin(len(missing), len(unique))
    )


@contextmanager
def worker_pool(processes: int) -> Iterator[ProcessPoolExecutor | None]:
    """Processes that make prompts for several attacks one after the other, started afresh; None for one process.

    What a worker has loaded for one attack serves it for the next.
    """
    if processes < 2:
        yield None
        return
    # Spawned, not forked: this process may hold threads and a GPU.
    pool = ProcessPoolExecutor(processes, mp_context=get_context("spawn"), initializer=_start_worker)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker() -> None:
    from winnow.quiet import quiet

    quiet()
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the leader, which ends its workers
    end_after(parent_process().join)  # a leader that is killed cannot: its worker would wait for work forever


def _make(attack, pending, columns, answer_loss, pool, bar) -> None:
    """Writes a part every few seconds, and what there is when it ends or is stopped."""
    chunks = [pending[start : start + CHUNK] for start in range(0, len(pending), CHUNK)]
    apart = attack.search == "random" and pool is not None and len(chunks) > 1
    waiting: dict[str, list] = {}
    flushed_at = time.monotonic()
    with _one_thread(attack.search == "random"):
        try:
            for rows in _in_workers(attack, chunks, pool) if apart else _here(attack, chunks, answer_loss):
                for name, values in rows.items():
                    waiting.setdefault(name, []).extend(values)
                bar.update(len(rows["id"]))
                if time.monotonic() - flushed_at >= FLUSH_SECONDS:
                    columns.append(waiting)
                    waiting, flushed_at = {}, time.monotonic()
        finally:
            if waiting:
                columns.append(waiting)


def _here(attack, chunks: list[list[Record]], answer_loss) -> Iterator[dict[str, list]]:
    for chunk in chunks:
        asks = None if answer_loss is None else [partial(answer_loss, record) for record in chunk]
        yield rows_of(attack, [(record.id, record.instruction) for record in chunk], asks)


def _in_workers(attack, chunks: list[list[Record]], pool: ProcessPoolExecutor) -> Iterator[dict[str, list]]:
    if attack.resources == "paper":
        attack.prepare()  # fetched here, not by all workers at once
    texts = ([(record.id, record.instruction) for record in chunk] for chunk in chunks)
    calls = (pool.submit(rows_of, attack, chunk) for chunk in texts)
    running = set(islice(calls, AHEAD))
    try:
        while running:
            finished, running = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                yield future.result()
            running |= set(islice(calls, len(finished)))
    except BrokenProcessPool:
        raise UserError(
            f"A process that made prompts for {attack.name} ended before its time, most likely for want of memory; "
            f"start again with fewer (attack.processes=1): what was finished is kept."
        ) from None


def rows_of(attack: PromptAttack, texts: Sequence[Text], asks: Sequence[Losses] | None = None) -> dict[str, list]:
    """Columns of `SCHEMA` for some instructions. asks: for each of them, whom to ask for losses."""
    from winnow.perturb.attacks.sentence_vectors import forget_vectors, remembered_vectors

    attack.prepare()  # what cannot be loaded is no fault of a record
    forget_vectors()
    outcomes = [
        _outcome(attack, record_id, instruction, None if asks is None else asks[i])
        for i, (record_id, instruction) in enumerate(texts)
    ]
    done = [i for i, outcome in enumerate(outcomes) if outcome.prompt is not None]
    done.sort(key=lambda i: len(texts[i][1]))  # neighbours in length share a batch of the encoder
    similarity: dict[int, float] = {}
    if done:
        vectors = remembered_vectors([text for i in done for text in (texts[i][1], outcomes[i].prompt)])
        similarity = dict(zip(done, (vectors[0::2] * vectors[1::2]).sum(1).tolist(), strict=True))
    return {
        "id": [record_id for record_id, _ in texts],
        "attack": [attack.name] * len(texts),
        "prompt": [outcome.prompt for outcome in outcomes],
        "words_changed": [outcome.words_changed for outcome in outcomes],
        "similarity": [similarity.get(i) for i in range(len(texts))],
        "edit_distance": [
            None if outcome.prompt is None else Levenshtein.distance(text, outcome.prompt)
            for (_, text), outcome in zip(texts, outcomes, strict=True)
        ],
        "queries": [outcome.queries for outcome in outcomes],
        "success": [outcome.prompt is not None for outcome in outcomes],
        "flag": [outcome.flag for outcome in outcomes],
        "resources": [attack.source()] * len(texts),
    }


def _outcome(attack: PromptAttack, record_id: str, instruction: str, losses: Losses | None) -> Outcome:
    """What the attack makes of one instruction; a flag with its error where it fails on this text alone."""
    try:
        return attack.attack(record_id, instruction, losses)
    except (UserError, MemoryError, OSError, RuntimeError):  # the settings' or the machine's, torch's errors among them
        raise
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        return Outcome(None, flag=f"{ATTACK_FAILS}: {reason[:160]}")


@contextmanager
def _one_thread(wanted: bool) -> Iterator[None]:
    """One thread, as in a worker: sums then round alike everywhere, and a borderline candidate is judged alike."""
    before = torch.get_num_threads()
    try:
        if wanted:
            torch.set_num_threads(1)
        yield
    finally:
        torch.set_num_threads(before)
