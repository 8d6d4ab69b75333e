"""What a run says about itself on the screen, when it begins and when it ends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from winnow.data.records import Pool
from winnow.store.files import read_json
from winnow.tracking.run_card import RunCard

if TYPE_CHECKING:
    from winnow.pipeline import Run


UNREAD_SHOWN = 12  # names of columns that a line holds


def data_summary(pool: Pool) -> dict[str, Any]:
    """The pool as the run card shows it."""
    return {
        "source": pool.source,
        "schema": pool.schema,
        "format": pool.format,
        "n_records": len(pool.records),
        "n_quarantined": len(pool.quarantined),
        "duplicates": pool.duplicates,
        "unread": list(pool.unread),
        "fingerprint": pool.fingerprint,
    }


def announce(run: Run, data: dict[str, Any]) -> None:
    """One line that says what is about to happen."""
    extra = [
        f"{data[key]} {word}" for key, word in (("duplicates",) * 2, ("n_quarantined", "quarantined")) if data[key]
    ]
    note = f" ({', '.join(extra)})" if extra else ""
    print(
        f"Winnow: {', '.join(run.stages)} | method {run.method.name} | pool {data['source']}, "
        f"{data['n_records']} records{note} | backbone {run.source.name}, {run.source.dtype}",
        flush=True,
    )
    if data["unread"]:
        more = len(data["unread"]) - UNREAD_SHOWN
        names = ", ".join(data["unread"][:UNREAD_SHOWN]) + (f" and {more} more" if more > 0 else "")
        print(f"Not read of the rows: {names}. To read them, name them with data.columns.", flush=True)


def summarise(run: Run, card: RunCard) -> None:
    """What came out and where it is."""
    print("\nDone.")
    for stage, record in card.stages.items():
        if record.status != "skipped":
            print(f"  {stage:<9} {record.seconds:8.1f} s  {record.status}")
    results = run.folder / "results.json"
    found = read_json(results, "models") if "evaluate" in run.stages and results.exists() else {}
    told = changes(found)
    for name, value in card.results.items():
        model, _, key = name.partition("/")
        if key in told and model in ("base", "tuned"):
            if model == "tuned":
                print(f"  {key:<38} {told[key]}")
            continue
        print(f"  {name:<38} {value:.4f}" if isinstance(value, float) else f"  {name:<38} {value}")
    print(f"  run       {run.folder}")
    print(f"  store     {run.store.root}")
    if "report" in run.stages:
        print(f"  report    {run.folder / 'report.html'}")


def changes(results: Mapping[str, Any]) -> dict[str, str]:
    """{metric: base, tuned, the difference with its paired 95% interval, and what the test says}, of `results.json`."""
    words = {"win": "better", "loss": "worse", "tie": "tie"}
    return {
        key: f"base {one['theirs']:.4f}, tuned {one['ours']:.4f}: {one['difference']:+.4f} "
        f"[{one['low']:+.4f}, {one['high']:+.4f}], {words[one['verdict']]}"
        for key, one in results.get("comparison", {}).items()
    }
