"""report.html: the results of a run on one page that opens offline, built from the files of the run folder.

`report.html.j2` holds wording and layout, `plots.py` the plots; this module reads the run folder and computes the
values. The page reports a stage without files as not run.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import yaml
from markupsafe import Markup

from winnow.errors import UserError
from winnow.pages import plots
from winnow.pages.answers import answers_section
from winnow.pages.card import JUDGED, ends, folded, git_phrase, show_number
from winnow.pages.diversity import diversity_section
from winnow.pages.files import read_json, render, sound
from winnow.pages.robustness import robustness_curves
from winnow.pages.svg import rank_correlation
from winnow.pages.verbs import asked_section
from winnow.scoring.scores import Scores
from winnow.store.differences import flatten
from winnow.store.files import write_atomically

if TYPE_CHECKING:
    from winnow.data.records import Record

SHOWN_RECORDS = 10
OPEN_RECORDS = 3  # of them, above the fold
MOST_METRICS = 16  # rows of the base-against-tuned plot
LINKS = {  # files of the run folder beside the page
    "attacks.html": "attacked prompts",
    "subset.*": "the subset",
    "scores.parquet": "scores",
    "selection.json": "selection",
    "results.json": "results",
    "run_card.md": "run card",
}
NOT_COMPONENTS = ("id", "row", "score", "flag")


def write_report(run_folder: str | Path, records: Sequence[Record] | None = None) -> Path:
    """Build `report.html` from the files of a run folder, the run card among them, and return its path.

    records: the pool, for the texts of the best and worst records; without it the page shows their scores only. Raises
    UserError when the folder is missing or not writable, or when a file in it cannot be read."""
    folder = Path(run_folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such run folder; expected the folder that a run wrote its files to (paths.run).")
    path = folder / "report.html"
    write_atomically(path, render("pages/report.html.j2", report_content(folder, records), percent=_percent))
    return path


def report_content(folder: Path, records: Sequence[Record] | None = None) -> dict[str, Any]:
    """The values of the template, by section; a section is None where its file is missing."""
    names = ("run_card", "selection", "results", "tuning", "detection", "diversity")
    card, selection, results, tuning, detection, diversity = (read_json(folder / f"{name}.json") for name in names)
    rows, about = None, {}
    if (folder / "scores.parquet").is_file():
        table = Scores.read(sound(folder / "scores.parquet"))
        rows, about = table.to_pylist(), Scores.about(table)
    chosen = selection and {one["row"]: one["selected"] for one in selection["decisions"]}
    content = {
        "folder": folder.resolve().name,
        "card": card,
        "stages": (card or {}).get("stages", {}),
        "selection": selection,
        "scores": None if rows is None else _scores_section(rows, about, selection, records),
        "results": None if results is None else _results_section(results),
        "tuning": None if tuning is None else _tuning_section(tuning),
        "detection": None if detection is None else {**detection, "plot": Markup(plots.detection_bars(detection))},
        "diversity": None if diversity is None else diversity_section(diversity),
        "asked": asked_section(records, selection),
        "answers": answers_section(folder / "answers.parquet", rows, chosen),
        "price": None,
        "has_texts": records is not None,
        "open_records": OPEN_RECORDS,
        "links": [(path.name, words) for name, words in LINKS.items() for path in sorted(folder.glob(name))],
        "wandb": _wandb(folder / "wandb"),
    }
    content["names"] = _names(card, about, selection)
    if card is not None:
        content["price"] = card.get("price")
        content["git"] = git_phrase(card["git"])
        content["config"] = yaml.dump(card["config"], Dumper=yaml.CSafeDumper, sort_keys=False, allow_unicode=True)
        content["data"] = list(flatten(card["data"]))
        content["longest_stage"] = max((stage["seconds"] for stage in card["stages"].values()), default=0) or 1
    return content


def _wandb(folder: Path) -> dict[str, str | None]:
    """What leads to the W&B run: `url` where a start was online, `sync` where a later one, or each, was offline."""
    url, online = None, 0.0
    if (file := folder / "run_url").is_file():
        url, online = file.read_text(encoding="utf-8").strip(), file.stat().st_mtime
    later = any(one.stat().st_mtime > online for one in folder.glob("offline-run-*"))
    return {"url": url, "sync": f"wandb sync {shlex.quote(str(folder))}/offline-run-*" if later else None}


def _tuning_section(tuning: Mapping[str, Any]) -> dict[str, Any]:
    """The content of tuning.json, its curve, and the mean loss of each epoch."""
    points = tuning["train_loss"]
    epochs: dict[int, list[float]] = {}
    for point in points:
        place = (point["step"] - 1) * tuning["epochs"] / tuning["steps"]
        epochs.setdefault(int(place) + 1, []).append(point["loss"])
    means = [(epoch, fmean(losses)) for epoch, losses in sorted(epochs.items())]
    return {**tuning, "plot": Markup(plots.training_curve(points)), "epoch_means": means}


def _names(
    card: Mapping[str, Any] | None, about: Mapping[str, Any], selection: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Short names of method, pool, backbone and scorer; None where no file names them."""
    config = (card or {}).get("config", {})

    def chosen(group: str) -> str | None:
        setting = config.get(group) or {}
        return next((setting[key] for key in ("name", "path", "source") if isinstance(setting.get(key), str)), None)

    source = (card or {}).get("data", {}).get("source")
    return {
        "method": about.get("method") or (selection or {}).get("method") or chosen("method"),
        "pool": chosen("data") if source is None else Path(str(source)).name,
        "backbone": chosen("backbone"),
        "scorer": chosen("scorer"),
    }


def _scores_section(
    rows: list[dict[str, Any]],
    about: Mapping[str, Any],
    selection: Mapping[str, Any] | None,
    records: Sequence[Record] | None,
) -> dict[str, Any]:
    scores = [row["score"] for row in rows]
    name = f"score ({about['method']})"
    decisions = {} if selection is None else {one["row"]: one for one in selection["decisions"]}
    selected = None if selection is None else [decisions.get(row["row"], {}).get("selected", False) for row in rows]
    filters, limits = _filters(selection)
    filtered = [decisions.get(row["row"], {}).get("reason") in filters for row in rows]
    section: dict[str, Any] = {
        "n": len(rows),
        "n_scored": sum(score is not None for score in scores),
        "higher_is_better": about["higher_is_better"],
        "columns": about.get("columns", {}),
        "histogram": Markup(
            plots.score_histogram(scores, selected, (selection or {}).get("cut"), name, filtered, limits)
        ),
        "flags": Counter(row["flag"] or "no reason given" for row in rows if row["score"] is None).most_common(),
        "against_length": None,
        "correlation": None,
    }
    if rows and "answer_tokens" in rows[0]:
        lengths = [row["answer_tokens"] for row in rows]
        titles = [f"row {row['row']}: {show_number(row['score'])}, {row['answer_tokens']} tokens" for row in rows]
        plot = plots.score_against_length(scores, lengths, selected, name, filtered, limits, titles)
        section["against_length"] = Markup(plot)
        section["correlation"] = rank_correlation(scores, lengths)
    ranked = [row for row in rows if row["score"] is not None]
    if any(one.get("rank") is not None for one in decisions.values()):
        ranked = [row for row in ranked if decisions.get(row["row"], {}).get("rank") is not None]
    ranked.sort(key=lambda row: (-row["score"] if about["higher_is_better"] else row["score"], row["row"]))
    texts = {} if records is None else {record.id: record for record in records}
    shown = ends(ranked, SHOWN_RECORDS)
    cards = [_record_card(place, row, decisions.get(row["row"]), texts.get(row["id"])) for place, row in shown]
    section["best"] = cards[:SHOWN_RECORDS]
    section["worst"] = cards[SHOWN_RECORDS:]
    section["n_ranked"] = len(ranked)
    return section


def _filters(selection: Mapping[str, Any] | None) -> tuple[set[str], dict[str, float]]:
    """The reasons of a selection's filters, and {what it is: limit} of those on the score itself."""
    made = (selection or {}).get("made_with") or {}
    filters = [*(made.get("filters") or []), *(made.get("selection", {}).get("filters") or [])]
    limits = {}
    for one in filters:
        if one["column"] == "score":
            ends = {"min": one["min"], "max": one["max"]}
            limits |= {f"filter: {end} {show_number(value)}": value for end, value in ends.items() if value is not None}
    return set((selection or {}).get("filters") or []), limits


def _record_card(
    place: int, row: Mapping[str, Any], decision: Mapping[str, Any] | None, record: Record | None
) -> dict[str, Any]:
    parts = []
    if record is not None:
        earlier = "\n\n".join(f"{role}: {text}" for role, text in record.turns)
        fields = (("earlier turns", earlier), ("instruction", record.instruction), ("input", record.input))
        parts = [(label, folded(text)) for label, text in fields if text]
        parts.append(("answer", folded(record.output)))
    return {
        "place": place,
        "row": row["row"],
        "id": row["id"],
        "score": row["score"],
        "decision": decision,
        "parts": parts,
        "badges": [],
        "defect": None if record is None else record.raw.get("defect") or None,
        "components": [(key, value) for key, value in row.items() if key not in NOT_COMPONENTS and value is not None],
    }


def _results_section(results: Mapping[str, Any]) -> dict[str, Any]:
    models = results["models"]
    metrics = list(dict.fromkeys(metric for model in models.values() for metric in model["metrics"]))
    headline = [metric for metric in results.get("headline") or [] if metric in metrics] or metrics[:MOST_METRICS]
    rows = {metric: _comparison(metric, results) for metric in metrics}
    return {
        "suite": results["suite"],
        "settings": list(flatten(results.get("settings") or {})),
        "headline": [rows[metric] for metric in headline],
        "others": [rows[metric] for metric in metrics if metric not in headline],
        "plot": Markup(plots.base_against_tuned(models, headline[:MOST_METRICS])),
        "compared": {"base", "tuned"} <= set(models),
        "untested": {
            key: why for key, why in (results.get("untested") or {}).items() if rows[key]["delta"] is not None
        },
        "noised": [Markup(curve) for curve in robustness_curves(results)],
    }


def _comparison(metric: str, results: Mapping[str, Any]) -> dict[str, Any]:
    """One row of the table: both models, the change with its paired 95% interval, and the verdict of the paired test:
    better, worse, tie, or untested where the run has no samples of the metric."""
    base, tuned = (results["models"].get(name, {}).get("metrics", {}).get(metric) for name in ("base", "tuned"))
    row = {"metric": metric, "base": base, "tuned": tuned, "delta": None, "low": None, "high": None, "verdict": ""}
    test = results.get("comparison", {}).get(metric)
    if test is not None:
        row |= {"delta": test["difference"], "low": test["low"], "high": test["high"]}
        row["verdict"] = JUDGED[test["verdict"]]
    elif base and tuned:
        row |= {"delta": tuned["value"] - base["value"], "verdict": "untested"}
    return row


def _percent(share: float) -> str:
    return f"{100 * share:.3g}%"
