"""What a run says about itself: on the screen when it begins and ends, and to the tracker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from winnow.data.records import Pool
from winnow.tracking.run_card import RunCard

if TYPE_CHECKING:
    from winnow.pipeline import Run

SHOWN = 10  # best and worst records in the tracker's table
LONGEST = 500  # characters of an answer in that table


def data_summary(pool: Pool) -> dict[str, Any]:
    """The pool as the run card shows it."""
    return {
        "source": pool.source,
        "schema": pool.schema,
        "format": pool.format,
        "n_records": len(pool.records),
        "n_quarantined": len(pool.quarantined),
        "duplicates": pool.duplicates,
        "fingerprint": pool.fingerprint,
    }


def announce(run: Run, data: dict[str, Any]) -> None:
    """One line that says what is about to happen."""
    extra = [f"{data[key]} {word}" for key, word in (("duplicates",) * 2, ("n_quarantined", "quarantined")) if data[key]]
    note = f" ({', '.join(extra)})" if extra else ""
    print(
        f"Winnow: {', '.join(run.stages)} | method {run.method.name} | pool {data['source']}, "
        f"{data['n_records']} records{note} | backbone {run.source.name}, {run.source.dtype}",
        flush=True,
    )


def summarise(run: Run, card: RunCard) -> None:
    """What came out and where it is."""
    print("\nDone.")
    for stage, record in card.stages.items():
        if record.status != "skipped":
            print(f"  {stage:<9} {record.seconds:8.1f} s  {record.status}")
    for name, value in card.results.items():
        print(f"  {name:<38} {value:.4f}" if isinstance(value, float) else f"  {name:<38} {value}")
    print(f"  run       {run.folder}")
    print(f"  store     {run.store.root}")
    if "report" in run.stages:
        print(f"  report    {run.folder / 'report.html'}")


def track_results(run: Run, card: RunCard) -> None:
    """Provenance, headline numbers, and the best and worst records, to where runs are compared."""
    told = card.as_dict()
    run.tracker.update_config({key: told[key] for key in ("command", "git", "packages", "hardware", "data")})
    run.tracker.summary(card.results)
    if run.manifest is not None:
        ranked = sorted((d for d in run.manifest["decisions"] if d["rank"]), key=lambda d: d["rank"])
        records = {record.row: record for record in run.pool.records}
        ends = {decision["rank"]: decision for decision in ranked[:SHOWN] + ranked[-SHOWN:]}.values()
        rows = []
        for decision in ends:
            record = records[decision["row"]]
            rows.append([decision["rank"], decision["score"], record.instruction, record.output[:LONGEST]])
        run.tracker.log_table("best and worst", ["rank", "score", "instruction", "answer"], rows)
    for name in ("run_card.json", "report.html"):
        if (run.folder / name).exists():
            run.tracker.save_file(run.folder / name)
