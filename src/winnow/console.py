"""What a run says about itself on the screen when it begins and when it ends, and a sweep when it ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

import yaml

from winnow.data.overlap import near_copies, sharing
from winnow.data.records import Pool
from winnow.errors import UserError
from winnow.evaluation.items import asked_texts
from winnow.pages.card import JUDGED, change_lines, show_number, show_seconds
from winnow.stages.parts import Parts
from winnow.store.files import read_json
from winnow.sweeps.summary import CARD, table_name
from winnow.tracking.run_card import RunCard

if TYPE_CHECKING:
    from winnow.compare.runs import ComparedRun
    from winnow.evaluation.suite import Suite

COMPARISONS_SHOWN = 3  # of a sweep
UNREAD_SHOWN = 12  # names of columns that a line holds
RESULTS = {  # what a stage reports besides the metrics of models: (how it is called, its unit)
    "final_loss": ("training loss, last step", "nats per answer token"),
    "detection_auc": ("clean records ranked above defective ones", "AUC"),
    "classes_covered": ("classes with a selected record", ""),
    "cut": ("score of the last selected record", ""),
}


def data_summary(pool: Pool, suite: Suite | None) -> dict[str, Any]:
    """The pool as the run card shows it. suite: the one that will be asked; None or without tasks: no overlap."""
    near = pool.near_threshold
    return {
        "source": pool.source,
        "schema": pool.schema,
        "format": pool.format,
        "n_records": len(pool.records),
        "n_quarantined": len(pool.quarantined),
        "duplicates": pool.duplicates,
        "near_duplicates": None if near is None else len(near_copies(pool.records, near)),
        "overlap": len(sharing(pool.records, asked_texts(suite))) if suite is not None and suite.tasks else None,
        "unread": list(pool.unread),
        "fingerprint": pool.fingerprint,
    }


def announce(parts: Parts, data: dict[str, Any]) -> None:
    """One line that says what is about to happen."""
    source = parts.runner.source
    words = {
        "duplicates": "duplicates",
        "near_duplicates": "near copies",
        "overlap": "that overlap with the evaluation",
        "n_quarantined": "quarantined",
    }
    extra = [f"{data[key]} {word}" for key, word in words.items() if data[key]]
    note = f" ({', '.join(extra)})" if extra else ""
    scorer = f", scored by {parts.scorer.source.name}" if parts.scorer is not parts.runner else ""
    aim = f" | target {data['target']['source']}, {data['target']['n_records']} records" if "target" in data else ""
    print(
        f"Winnow: {', '.join(parts.stages)} | method {parts.method.name} | pool {data['source']}, "
        f"{data['n_records']} records{note}{aim} | backbone {source.name}, {source.dtype}{scorer}",
        flush=True,
    )
    if data["unread"]:
        more = len(data["unread"]) - UNREAD_SHOWN
        names = ", ".join(data["unread"][:UNREAD_SHOWN]) + (f" and {more} more" if more > 0 else "")
        print(f"Not read of the rows: {names}. data.columns names the columns that are read.", flush=True)


def summarise(parts: Parts, card: RunCard, tracked: str | None) -> None:
    """What came out and where it is. tracked: where the tracker has the run."""
    file = parts.folder / "results.json"
    results = read_json(file, "models") if "evaluate" in parts.stages and file.exists() else {}
    stages = {stage: record for stage, record in card.stages.items() if record.status != "skipped"}
    times = (
        f"{stage} {'from the store' if record.status == 'reused' else show_seconds(record.seconds)}"
        for stage, record in stages.items()
    )
    print(f"\nDone: {', '.join(times)}.")
    print("\n".join([*result_lines(card.results), *change_lines(results)]))
    print(f"  run       {parts.folder}")
    print(f"  store     {parts.runner.store.root}")
    if tracked is not None:
        print(f"  tracking  {tracked}")
    if "report" in parts.stages:
        print(f"  report    {parts.folder / 'report.html'}", flush=True)


def result_lines(results: Mapping[str, Any]) -> list[str]:
    """What scoring, selection and tuning report, a line each."""
    lines = []
    if "scored" in results:
        lines.append(f"  {results['scored']:,} of {results['records']:,} records have a score")
    if "selected" in results:
        lines.append(f"  {results['selected']:,} of {results['valid']:,} valid records are selected")
    if "steps" in results:
        lines.append(f"  {results['steps']:,} steps of tuning")
    for key, (name, unit) in RESULTS.items():
        if results.get(key) is not None:
            lines.append(f"  {name}: {show_number(results[key])} {unit}".rstrip())
    return lines


def sweep_lines(folder: Path, jobs: Sequence[Mapping[str, Any]], table: Mapping[str, Any] | None) -> list[str]:
    """What came out of a sweep: its settings, best first, with the difference to a reference and its paired interval;
    the best trial of a search; where everything is, and what to do next. Writes the dashboard.

    jobs: the notes of those that began. table: of the experiment. Runs that cannot be compared, as those of two
    templates, are a sentence.
    """
    from winnow.compare.dashboard import write_dashboard
    from winnow.compare.runs import read_runs

    runs = read_runs(folder)
    try:
        standings = standing_lines(runs)
    except UserError as error:
        standings = [f"  No comparison: {error}"]
    lines = [*trial_lines(folder, jobs), *standings, f"  folder     {folder}"]
    if runs:
        lines.append(f"  dashboard  {write_dashboard(folder)}")
    if any(run.metrics for run in runs):
        lines.append(f"  next       winnow compare {quote(str(folder))}")
    if table is not None and runs:
        lines.append(f"             winnow table {table_name(table)} {quote(f'runs={folder}')}")
    return ["", *lines]


def standing_lines(runs: Sequence[ComparedRun]) -> list[str]:
    """The settings of the runs, best first, for the metrics that lead; the runs as they are where none is evaluated."""
    from winnow.compare.verdicts import BASE, verdicts

    evaluated = [run for run in runs if run.metrics]
    if not evaluated:
        return [f"  {run.name}: {run.label}, {len(run.subset):,} records selected" for run in runs]
    comparisons = verdicts(evaluated)["comparisons"] or verdicts(evaluated, BASE)["comparisons"]
    lines = []
    for one in comparisons[:COMPARISONS_SHOWN]:
        good, seeds = "high" if one["higher_is_better"] else "low", max(len(row["seeds"]) for row in one["standings"])
        mean = f", mean of {seeds} seeds" if seeds > 1 else ""
        lines.append(f"{one['metric']} ({good} is good{mean}) on {one['pool']}, best first:")
        width = max(len(row["method"]) for row in one["standings"])
        for row in one["standings"]:
            line = f"  {row['method']:<{width}}  {row['value']:.4f}"
            if row["against"] is not None:
                line += f"  {row['difference']:+.4f} [{row['low']:+.4f}, {row['high']:+.4f}] against {row['against']}: "
                line += JUDGED[row["verdict"]]
            if row["no_verdict"]:
                line += f"  no verdict: {row['no_verdict']}"
            lines.append(line)
    more = len(comparisons) - COMPARISONS_SHOWN
    return [*lines, *([f"and {more} more comparisons"] if more > 0 else [])]


def trial_lines(folder: Path, jobs: Sequence[Mapping[str, Any]]) -> list[str]:
    """The best trial of an Optuna search of one objective: value, parameters, folder; nothing for another sweep."""
    file = folder / "optimization_results.yaml"
    if not file.is_file():
        return []
    found = yaml.safe_load(file.read_text(encoding="utf-8"))
    if "best_params" not in found:
        return []
    words = [f"{key}={value}" for key, value in found["best_params"].items()]
    settings = " ".join(words)
    for job in jobs:
        path = Path(job["folder"]) / CARD
        card = read_json(path, "config", "results") if path.is_file() else {"config": {}, "results": {}}
        objective = card["config"].get("objective")
        own = (card.get("hydra") or {}).get("overrides", words)  # other trials may have the same value
        if card["results"].get(objective) == found["best_value"] and set(words) <= set(own):
            return [f"Best trial: {objective} {found['best_value']:.4f} with {settings} ({job['folder']})"]
    return [f"Best trial: {found['best_value']:.4f} with {settings}"]
