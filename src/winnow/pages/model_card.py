"""The card of a run's tuned model, as `model_card.md` and, published, as its README.md.

The model's own README.md lies in the store, where it serves all runs with the same records and the same recipe,
whatever method chose the records. So the run adds how they were chosen, and what the evaluation found.
"""

from __future__ import annotations

from pathlib import Path

from winnow.pages.card import change_lines
from winnow.store.files import read_json
from winnow.store.run_folder import earlier_output, present


def tuned_model_card(run: Path) -> str:
    """The model's own card, then method, pool, share and command, then the results, if there are any.

    Raises UserError if a file of the run folder is missing or damaged.
    """
    card = read_json(present(run, "run_card.json", "report"), "command", "data")
    manifest = read_json(earlier_output(run, "selection.json", "select"), "method", "n_records", "n_selected")
    own = present(run, "model/README.md", "tune").read_text(encoding="utf-8").rstrip()
    total, number = manifest["n_records"], manifest["n_selected"]
    scorer, data = card["config"].get("scorer"), card["data"]
    scored = f", scored by {public_name(scorer['name'])}" if scorer else ""
    chosen = [
        f"- method: {manifest['method']}{scored}",
        f"- pool: {public_name(str(data['source']))}, {total:,} records, fingerprint {data['fingerprint']}",
        f"- selected: {number:,} records, {number / total:.1%} of the pool",
        f"- command: `{card['command']}`",
    ]
    return "\n\n".join([own, "## How its records were chosen", "\n".join(chosen), *result_parts(run)]) + "\n"


def result_parts(run: Path) -> list[str]:
    """A heading and the lines of the metrics that lead, with verdicts; nothing for a run that has not evaluated."""
    file = run / "results.json"
    if not file.exists():
        return []
    results = read_json(file, "suite", "models", "headline")
    harness = results["models"]["base"]["versions"]["lm-eval"]
    about = (
        f"Suite `{results['suite']}`, lm-eval {harness}. A difference is tuned - base, with its paired 95% interval."
    )
    return ["## Results", about, "\n".join(f"- {line.strip()}" for line in change_lines(results))]


def public_name(name: str) -> str:
    """A name on the hub as it is; of a path the last part: where a file lay says nothing to others."""
    return Path(name).name if name.startswith(("/", "~", ".")) or Path(name).is_dir() else name
