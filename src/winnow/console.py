"""What a run says about itself on the screen, when it begins and when it ends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from winnow.data.records import Pool
from winnow.stages.parts import Parts
from winnow.store.files import read_json
from winnow.tracking.run_card import RunCard

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


def announce(parts: Parts, data: dict[str, Any]) -> None:
    """One line that says what is about to happen."""
    source = parts.runner.source
    extra = [
        f"{data[key]} {word}" for key, word in (("duplicates",) * 2, ("n_quarantined", "quarantined")) if data[key]
    ]
    note = f" ({', '.join(extra)})" if extra else ""
    aim = f" | target {data['target']['source']}, {data['target']['n_records']} records" if "target" in data else ""
    print(
        f"Winnow: {', '.join(parts.stages)} | method {parts.method.name} | pool {data['source']}, "
        f"{data['n_records']} records{note}{aim} | backbone {source.name}, {source.dtype}",
        flush=True,
    )
    if data["unread"]:
        more = len(data["unread"]) - UNREAD_SHOWN
        names = ", ".join(data["unread"][:UNREAD_SHOWN]) + (f" and {more} more" if more > 0 else "")
        print(f"Not read of the rows: {names}. data.columns names the columns that are read.", flush=True)


def summarise(parts: Parts, card: RunCard) -> None:
    """What came out and where it is."""
    print("\nDone.")
    for stage, record in card.stages.items():
        if record.status != "skipped":
            print(f"  {stage:<9} {record.seconds:8.1f} s  {record.status}")
    file = parts.folder / "results.json"
    results = read_json(file, "models") if "evaluate" in parts.stages and file.exists() else {}
    lines = changes(results)
    for name, value in card.results.items():
        model, _, key = name.partition("/")
        if key in lines and model in ("base", "tuned"):
            if model == "tuned":
                print(f"  {key:<38} {lines[key]}")
            continue
        print(f"  {name:<38} {value:.4f}" if isinstance(value, float) else f"  {name:<38} {value}")
    print(f"  run       {parts.folder}")
    print(f"  store     {parts.runner.store.root}")
    if "report" in parts.stages:
        print(f"  report    {parts.folder / 'report.html'}")


def changes(results: Mapping[str, Any]) -> dict[str, str]:
    """{metric: base, tuned, the difference with its paired 95% interval, and what the test says}, of `results.json`."""
    words = {"win": "better", "loss": "worse", "tie": "tie"}
    return {
        key: f"base {one['theirs']:.4f}, tuned {one['ours']:.4f}: {one['difference']:+.4f} "
        f"[{one['low']:+.4f}, {one['high']:+.4f}], {words[one['verdict']]}"
        for key, one in results.get("comparison", {}).items()
    }
