"""What a run tells the tracker: what it is called, where it comes from, and what each stage made of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from winnow.config import nothing
from winnow.data.records import Pool
from winnow.scoring.scores import Scores
from winnow.store.files import read_json
from winnow.tracking.names import control, identity, pool_name, share
from winnow.tracking.run_card import RunCard, StageRecord
from winnow.tracking.wandb_run import Tracker

SHOWN = 10  # best and worst records in the tracker's table
LONGEST = 500  # characters of an instruction or answer in that table
LONGEST_TAG = 64  # characters that W&B takes
NOTHING = f"{nothing.__module__}.{nothing.__qualname__}"  # the target of a group that builds nothing


def naming(
    config: Mapping[str, Any], choices: Mapping[str, str], method: str, backbone: str, pool: str
) -> dict[str, Any]:
    """Name, group, job type and tags of a run: what `tracking` sets, or what the run is.

    group: the experiment at its scale; in a sweep of another kind the name of the sweep's folder. job_type: the method
    as the experiment's table calls it; elsewhere the method, with the adversary if there is one. name: the job's name,
    which says what varies between jobs; elsewhere job type and selected share. tags: `tracking.tags`, method, backbone
    and pool in use, and `key=value` for the selected share and whatever tells the rows of the table apart.

    config: resolved. choices: group -> option. backbone, pool: a name or a path, of which the last part counts.
    """
    row, table, own = config.get("row") or {}, config.get("table"), config["tracking"]
    values = {"method": method} | share(config)
    if table and choices:
        values |= identity(row, choices, table["paper"])
    else:
        adversary = choices.get("adversary", "none")
        values["method"] = control(method, choices) + (f"+{adversary}" if adversary != "none" else "")
    job_type = own.get("job_type") or values["method"]
    group = own.get("group")
    if group is None and HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN:
        group = Path(HydraConfig.get().sweep.dir).name
    words = [method, Path(backbone).name, pool_name(pool), *(f"{key}={value}" for key, value in values.items())]
    tags = [*own.get("tags", []), *words]
    return {
        "name": own.get("name") or row.get("job") or " ".join([job_type, *share(config).values()]),
        "group": group,
        "job_type": job_type,
        "tags": list(dict.fromkeys(str(tag)[:LONGEST_TAG] for tag in tags)),
    }


def logged(config: Mapping[str, Any], choices: Mapping[str, str], attacks: bool, distortion: bool) -> dict[str, Any]:
    """The configuration that the tracker gets: without the groups that build nothing and those of attacks and
    distortion that the run does not use, and with Hydra's choice of each group as `choices/<group>`.

    attacks, distortion: whether the method has attacks, and whether the adversary measures how far noise goes.
    """
    unused = [key for key, used in (("attack", attacks), ("distortion", distortion)) if not used]
    unused += [key for key, node in config.items() if isinstance(node, Mapping) and node.get("_target_") == NOTHING]
    own = {f"choices/{group}": choice for group, choice in choices.items() if not group.startswith("hydra/")}
    return {key: node for key, node in config.items() if key not in unused} | own


def track_stage(tracker: Tracker, folder: Path, pool: Pool, stage: str, record: StageRecord) -> None:
    """Seconds and status of a finished stage, and what it left in the run folder: the scores, the best and worst
    records and the subset, the training curve and the model, all metrics of the evaluation.

    Summary keys: `stages/<stage>/seconds`, `stages/<stage>/status`, `<base or tuned>/<task>/<metric>` with its standard
    error, `/stderr`; `delta/<task>/<metric>`, tuned minus base, with its paired interval, `/low` and `/high`;
    `verdict/<task>/<metric>`, win, tie or loss of the tuned model.
    """
    tracker.summary({f"stages/{stage}/seconds": record.seconds, f"stages/{stage}/status": record.status})
    if record.status == "skipped":
        return
    if stage == "score":
        tracker.log_scores(Scores.read(folder / "scores.parquet")["score"].to_pylist())
    elif stage == "select":
        _track_selection(tracker, folder, pool)
    elif stage == "tune":
        _track_tuning(tracker, folder, record)
    elif stage == "evaluate":
        tuning = folder / "tuning.json"
        step = read_json(tuning)["steps"] if tuning.exists() else None
        _track_evaluation(tracker, read_json(folder / "results.json"), step)


def track_results(tracker: Tracker, folder: Path, card: RunCard) -> None:
    """Headline numbers, and the pages that tell the rest. Nothing but this is left of the run, so its card says that it
    is finished; an error here takes that back."""
    card.status = "finished"
    card.write(folder)
    tracker.summary(card.results)
    for name in ("run_card.json", "report.html"):
        if (folder / name).exists():
            tracker.save_file(folder / name)


def _track_selection(tracker: Tracker, folder: Path, pool: Pool) -> None:
    manifest = read_json(folder / "selection.json")
    ranked = sorted((d for d in manifest["decisions"] if d["rank"]), key=lambda d: d["rank"])
    records = {record.row: record for record in pool.records}
    rows = []
    for decision in {one["rank"]: one for one in ranked[:SHOWN] + ranked[-SHOWN:]}.values():
        record = records[decision["row"]]
        texts = record.instruction[:LONGEST], record.output[:LONGEST]
        rows.append([decision["rank"], decision["score"], decision["selected"], *texts])
    tracker.log_table("best and worst", ["rank", "score", "selected", "instruction", "answer"], rows)
    about = {key: manifest[key] for key in ("method", "ratio", "count", "n_records", "n_valid", "n_selected")}
    for path in folder.glob("subset.*"):
        tracker.save_artifact("subset", path, about | {"pool": pool.fingerprint})


def _track_tuning(tracker: Tracker, folder: Path, record: StageRecord) -> None:
    tuned = read_json(folder / "tuning.json")
    if record.status == "reused":  # no trainer logged its curve in this run
        for point in tuned["train_loss"]:  # Lightning calls the first step 0
            tracker.log_metrics({"train/loss": point["loss"], "train/lr": point["lr"]}, step=point["step"] - 1)
    model = (folder / "model").resolve()
    kind = "adapter" if (model / "adapter_config.json").exists() else "model"
    about = {key: tuned[key] for key in ("steps", "records", "answer_tokens", "trainable_parameters")}
    tracker.save_artifact(kind, model, about | {"fingerprint": record.fingerprint})


def _track_evaluation(tracker: Tracker, results: dict[str, Any], step: int | None) -> None:
    """step: the end of the tuning, None without one."""
    for name, model in results["models"].items():
        metrics = {f"{name}/{key}": metric["value"] for key, metric in model["metrics"].items()}
        tracker.log_metrics(metrics, step)
        errors = {f"{name}/{key}/stderr": one["stderr"] for key, one in model["metrics"].items()}
        tracker.summary(metrics | {key: error for key, error in errors.items() if error is not None})
    tracker.summary({f"delta/{key}": value for key, value in results["delta"].items()})
    for key, one in results.get("comparison", {}).items():
        ends = {f"delta/{key}/{end}": one[end] for end in ("low", "high")}
        tracker.summary({f"verdict/{key}": one["verdict"]} | ends)
