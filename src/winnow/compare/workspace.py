"""A W&B workspace that compares the methods of a group: the online twin of the dashboard."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

from winnow.errors import UserError

SHOWN = 8  # metrics that are columns of the table of runs
MOST_RUNS = 500  # in one panel; W&B's own limit would be 10


def build_workspace(project: str, group: str | None = None) -> str:
    """Create the workspace in `ENTITY/PROJECT` and return its address; every call makes a new one.

    group: only runs of this group, for instance `consistency/table1/paper`. Raises UserError without the package
    wandb-workspaces, without a key, where the group has no evaluated run, and where the server does not answer.
    """
    entity, slash, name = project.partition("/")
    if not (entity and slash and name):
        raise UserError(f"winnow dashboard --wandb {project}: expected ENTITY/PROJECT, for instance my-team/winnow.")
    if find_spec("wandb_workspaces") is None:
        raise UserError(
            "winnow dashboard --wandb needs the package wandb-workspaces: pip install it, or leave --wandb "
            "out for the page that needs no network."
        )
    from winnow.tracking.wandb_mode import has_key

    if not has_key():
        raise UserError("winnow dashboard --wandb needs a W&B key: set WANDB_API_KEY or run `wandb login`.")
    import wandb

    metrics = _summary_keys(entity, name, group)
    try:
        return workspace(entity, name, metrics, group).save().url
    except (wandb.Error, OSError, ValueError) as error:
        raise UserError(f"W&B did not take the workspace of {project}: {_one_line(error)}.") from error


def workspace(entity: str, project: str, metrics: Sequence[str], group: str | None) -> Any:
    """The workspace as an object of wandb-workspaces, not yet saved; needs no network.

    metrics: summary keys, `tuned/<task>/<metric>`. Sections: a bar chart of each metric over job types (the methods);
    the change from the base model with the ends of its paired interval, whose verdict is a column of the table; each
    metric against the number of selected records; what the stages cost; the training loss; the best and worst
    records.
    The table of runs is grouped by method and selected share, so that the seeds of a setting stand together.
    """
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws

    def bars(title: str, *keys: str) -> Any:
        return wr.BarPlot(
            title=title, metrics=[*keys], groupby="JobType", groupby_aggfunc="mean", groupby_rangefunc="stddev"
        )

    def against_size(key: str) -> Any:
        return wr.ScatterPlot(title=key, x=wr.SummaryMetric("selected"), y=wr.SummaryMetric(key))

    seconds = [bars(f"seconds: {stage}", f"stages/{stage}/seconds") for stage in ("score", "select", "tune")]
    tasks = [metric.removeprefix("tuned/") for metric in metrics]
    intervals = [bars(f"change: {key}", f"delta/{key}/low", f"delta/{key}", f"delta/{key}/high") for key in tasks]
    curve = wr.LinePlot(title="training loss", x="trainer/global_step", y=["train/loss"])
    return ws.Workspace(
        entity=entity,
        project=project,
        name=f"winnow {group or project}",
        sections=[
            ws.Section(name="methods", panels=[bars(metric, metric) for metric in metrics], is_open=True),
            ws.Section(name="against the base model", panels=intervals, is_open=True),
            ws.Section(name="selected records", panels=[against_size(metric) for metric in metrics], is_open=True),
            ws.Section(name="cost", panels=seconds),
            ws.Section(name="training", panels=[curve]),
            ws.Section(name="records", panels=[wr.WeavePanelSummaryTable(table_name="best and worst")]),
        ],
        settings=ws.WorkspaceSettings(max_runs=MOST_RUNS),
        runset_settings=ws.RunsetSettings(
            filters=ws.And() if group is None else ws.And(ws.Metric("Group") == group),
            groupby=[ws.Metric("JobType"), ws.Config("selection.ratio")],
            pinned_columns=[
                column for key in tasks[:SHOWN] for column in (f"summary:tuned/{key}", f"summary:verdict/{key}")
            ],
        ),
    )


def _summary_keys(entity: str, project: str, group: str | None) -> list[str]:
    """The evaluation metrics that the group's runs have in their summary, in the order in which they appear."""
    import wandb

    try:
        runs = wandb.Api().runs(f"{entity}/{project}", filters={} if group is None else {"group": group})
        found = dict.fromkeys(key for run in runs for key in run.summary.keys() if key.startswith("tuned/"))  # noqa: SIM118  (no mapping)
    except (wandb.Error, OSError, ValueError) as error:
        raise UserError(f"W&B: the runs of {entity}/{project} could not be read ({_one_line(error)}).") from error
    if not found:
        raise UserError(
            f"W&B: {entity}/{project} has no run with evaluation metrics{f' in group {group}' if group else ''}."
        )
    return list(found)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")
