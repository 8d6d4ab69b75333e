"""The select stage: which records of the pool are taken, why the others are not, and how good the choice looks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from winnow.data.records import Pool, Record
from winnow.data.templates import Template
from winnow.data.writers import write_subset
from winnow.distributed import is_leader, read_by_leader
from winnow.errors import UserError
from winnow.scoring.protocols import Method
from winnow.scoring.runner import PassRunner
from winnow.scoring.scores import Scores
from winnow.selection.budget import Budget
from winnow.selection.detection import detection
from winnow.selection.diversity_report import write_diversity
from winnow.store.describe import describe
from winnow.store.differences import Differences, difference_summary, differences
from winnow.store.files import read_json, write_json, write_sum
from winnow.store.run_folder import drop_outputs_from, earlier_output
from winnow.tracking.run_card import StageRecord


def select(
    record: StageRecord,
    folder: Path,
    pool: Pool,
    method: Method,
    selection: Budget,
    runner: PassRunner,
    template: Template,
    scores: Mapping[str, Any],
    identity: dict[str, Any],
) -> dict[str, Any]:
    """Write `selection.json`, the subset in the schema it came in, its diversity, and how well planted defects were
    found. scores, identity: the identities of the scores that are wanted and of the selection."""
    table = score_table(folder, pool, scores) if is_leader() else None  # before passes that may take long
    vectors, lengths, compared = _columns(record, pool, selection, runner, template)
    if table is None:
        return {}
    about = Scores.about(table)
    method_parts = (about["higher_is_better"], method.filters, method.takes_all)
    chosen = selection.select(table, *method_parts, vectors, lengths, pool.keep_duplicates, compared)
    manifest = {"method": about["method"]} | chosen.manifest() | {"made_with": identity}
    manifest |= {"categories": categories(pool.records, chosen.chosen)}
    drop_outputs_from(folder, "select")
    write_json(folder / "selection.json", manifest)
    write_sum(folder / "selection.json")
    write_subset(pool, chosen.chosen, folder)
    for sentence in filter(None, (chosen.filtered(), chosen.shortfall())):
        print(sentence, flush=True)
    results = {"selected": len(chosen.chosen), "valid": chosen.n_valid, "cut": chosen.cut}
    covered = write_diversity(folder, vectors, chosen, selection)
    results |= {} if covered is None else {"classes_covered": covered}
    if all("defect" in one.raw for one in pool.records):  # a pool that labels its defects, as the embedded one does
        results["detection_auc"] = _detect(folder, pool, about["higher_is_better"], chosen.decisions)
    return results


def selection_identity(
    scores: Mapping[str, Any], method: Method, selection: Budget, pool: Pool, runner: PassRunner, template: Template
) -> dict[str, Any]:
    """All that the subset depends on besides the records. scores: the identity of the scores."""
    unasked = ("ratio", "count", "budget", "order") if method.takes_all else ()
    return {
        **scores,
        "selection": {key: value for key, value in describe(selection).items() if key not in unasked},
        "filters": describe(method.filters),
        "keep_duplicates": pool.keep_duplicates,
        "vectors": {name: runner.made_with(pass_, template) for name, pass_ in selection.passes.items()},
    }


def selected_records(folder: Path, pool: Pool, identity: Mapping[str, Any]) -> list[Record]:
    """The records of the pool that `selection.json` takes, the leader's for all processes.

    Raises UserError if the file is missing or broken, or was made with another identity or from other records.
    """
    file = folder / "selection.json"
    manifest = read_by_leader(lambda: _manifest(earlier_output(folder, file.name, "select"), identity))
    ids = {decision["row"]: decision["id"] for decision in manifest["decisions"] if decision["selected"]}
    subset = [record for record in pool.records if ids.get(record.row) == record.id]
    if len(subset) != len(ids):
        raise UserError(
            f"{file} was made from other records than data={pool.source}; "
            f"run the stage `select` again with this run folder."
        )
    return subset


def _manifest(file: Path, identity: Mapping[str, Any]) -> dict[str, Any]:
    cure = "run stages=[select,tune] again with this run folder"
    manifest = read_json(file, "decisions", "made_with", cure=cure)
    changes = differences(manifest["made_with"], identity)
    if changes:
        of_scores = {"method", "pre_experience", "passes", "target", "column"}
        scores = any(key.partition(".")[0] in of_scores for key in changes)
        stages = "score,select,tune" if scores else "select,tune"
        raise UserError(
            f"{file} was made with other settings ({difference_summary(changes)}); run stages=[{stages}] again with "
            f"this run folder, or set them back{_scorer(changes)}."
        )
    return manifest


def _scorer(changes: Differences) -> str:
    """The end of a sentence on the differences: another cure, where all are of the backbone that ran the passes."""
    own = all(".backbone." in f"{key}." for key in changes)
    return ", or name the backbone that scored with backbone@scorer=..." if own else ""


def score_table(folder: Path, pool: Pool, identity: Mapping[str, Any]) -> pa.Table:
    """The scores in the run folder. Raises UserError if they are not those that are asked for."""
    path = earlier_output(folder, "scores.parquet", "score")
    table = Scores.read(path)
    about = Scores.about(table)
    again = "run stages=[score,select] again with this run folder"
    changes = differences(about.get("made_with", {}), identity)
    if changes:
        raise UserError(
            f"{path} holds scores of method={about['method']} that were made with other settings "
            f"({difference_summary(changes)}); {again}, or set them back{_scorer(changes)}."
        )
    if table["id"].to_pylist() != [record.id for record in pool.records]:
        raise UserError(f"{path} was made from other records than data={pool.source}; {again}.")
    return table


def _columns(
    record: StageRecord, pool: Pool, selection: Budget, runner: PassRunner, template: Template
) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]:
    """(records, width) vectors, (records,) answer tokens and (records, width) vectors of the instructions, from the
    selection's passes, which all processes compute; None for a pass that it does not have."""
    tables = {name: runner.compute(pass_, pool.records, template) for name, pass_ in selection.passes.items()}
    used = runner.used[len(runner.used) - len(tables) :]
    record.reused, record.resumed = runner.counts(used)
    record.fingerprint = " ".join(used) or None
    vectors, compared = (
        tables[name].vectors("vector") if name in tables else None for name in ("embedding", "instructions")
    )
    return vectors, tables["count"].numbers("answer_tokens") if "count" in tables else None, compared


def categories(records: Sequence[Record], chosen: Sequence[int]) -> dict[str, dict[str, float]] | None:
    """How many records of each category pool and subset have, largest first, from the column `category` of the pool's
    rows; None if no row has one.

    reduction_percent: 100 (pool - selected) / pool, as in the consistency paper's Table 6. chosen: positions of the
    subset. A row without a category counts as `none`."""
    if not any(isinstance(one.raw.get("category"), str) for one in records):
        return None
    own = [str(one.raw.get("category") or "none") for one in records]
    selected = Counter(own[i] for i in chosen)
    return {
        name: {"pool": n, "selected": selected[name], "reduction_percent": round(100 * (n - selected[name]) / n, 2)}
        for name, n in Counter(own).most_common()
    }


def _detect(folder: Path, pool: Pool, higher_is_better: bool, decisions: list[dict[str, Any]]) -> float | None:
    """Write `detection.json`; the area under the ROC curve over all defects."""
    result = detection(decisions, [one.raw["defect"] for one in pool.records], higher_is_better)
    write_json(folder / "detection.json", result)
    return result["overall"]["auc"]
