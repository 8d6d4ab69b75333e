"""The card of a run's tuned model, as `model_card.md` and, published, as its README.md.

The model's own README.md lies in the store, where it serves all runs with the same records and the same recipe,
whatever method chose the records. So the run adds how they were chosen, and what the evaluation found.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

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
    scorer = card["config"].get("scorer")
    scored = f", scored by {_shown(scorer['name'])}" if scorer else ""
    chosen = [
        f"- method: {manifest['method']}{scored}",
        f"- pool: {pool_name(card)}, {total:,} records, fingerprint {card['data']['fingerprint']}",
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


def pool_name(card: Mapping[str, Any]) -> str:
    """The pool's name on the hub, or the name of its file."""
    return _shown(str(card["data"]["source"]))


def _shown(name: str) -> str:
    """The last part of a path: where a file lay says nothing to others."""
    return Path(name).name if name.startswith(("/", "~", ".")) else name
