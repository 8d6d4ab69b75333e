"""A W&B workspace and a report that compare the methods of a group: the online twins of the dashboard."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any

from winnow.errors import UserError

SHOWN = 8  # metrics that are columns of the table of runs
OPEN = ("methods", "against the base model", "selected records")  # sections
LONGEST_TITLE = 128  # characters that W&B takes
MOST_RUNS = 500  # in one panel; W&B's own limit would be 10


def workspace(entity: str, project: str, metrics: Sequence[str], group: str | None) -> Any:
    """The workspace as an object of wandb-workspaces, not yet saved; needs no network.

    metrics: summary keys, `tuned/<task>/<metric>`. The sections are those of `_panels`.
    The table of runs is grouped by method and selected share, so that the seeds of a setting stand together.
    """
    import wandb_workspaces.workspaces as ws

    tasks = [metric.removeprefix("tuned/") for metric in metrics]
    return ws.Workspace(
        entity=entity,
        project=project,
        name=f"winnow {group or project}",
        sections=[
            ws.Section(name=name, panels=panels, is_open=name in OPEN) for name, panels in _panels(metrics).items()
        ],
        settings=ws.WorkspaceSettings(max_runs=MOST_RUNS),
        runset_settings=ws.RunsetSettings(
            filters=ws.And() if group is None else ws.And(ws.Metric("Group") == group),
            groupby=[ws.Metric("JobType"), ws.Config("selection.ratio"), ws.Config("selection.count")],
            pinned_columns=[
                column for key in tasks[:SHOWN] for column in (f"summary:tuned/{key}", f"summary:verdict/{key}")
            ],
        ),
    )


def report(entity: str, project: str, metrics: Sequence[str], group: str | None) -> Any:
    """The report as an object of wandb-workspaces, not yet saved: a heading and a grid for each part of `_panels`."""
    import wandb_workspaces.expr as expr
    import wandb_workspaces.reports.v2 as wr

    filters = expr.And() if group is None else expr.And(expr.Metric("Group") == group)
    grids = [
        block
        for name, panels in _panels(metrics).items()
        for block in (
            wr.H2(text=name.capitalize()),
            wr.PanelGrid(runsets=[wr.Runset(entity=entity, project=project, filters=filters)], panels=panels),
        )
    ]
    runs = f"Runs of the group {group}" if group else "All runs"
    what = f"{runs}. A change from the base model stands between the ends of its 95% interval."
    title = f"winnow {group or project}"[:LONGEST_TITLE].replace("/", " ")  # a part of the address
    return wr.Report(entity=entity, project=project, title=title, description=what, blocks=grids)


def build(make: Callable[..., Any], project: str, group: str | None = None) -> str:
    """Create a `workspace`, or a `report`, which can be written into and shared, in `ENTITY/PROJECT`, and return its
    address; every call makes a new one.

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
    from wandb.apis.normalize import normalize_exceptions  # else, what the server refuses is no wandb.Error

    made = make(entity, name, _summary_keys(entity, name, group), group)
    try:
        return normalize_exceptions(made.save)().url
    except wandb.Error as error:
        raise UserError(f"W&B did not take the {make.__name__} of {project}: {_one_line(error)}.") from error


def _panels(metrics: Sequence[str]) -> dict[str, list[Any]]:
    """Section -> panels: each metric over job types (the methods), beside the base model's; the change from the base
    model with the ends of its paired interval, whose verdict is a column of the table; each metric against the number
    of selected records; what the stages cost; the training loss; the best and worst records."""
    import wandb_workspaces.reports.v2 as wr

    def bars(title: str, *keys: str) -> Any:
        return wr.BarPlot(
            title=title, metrics=[*keys], groupby="JobType", groupby_aggfunc="mean", groupby_rangefunc="stddev"
        )

    def against_size(key: str) -> Any:
        return wr.ScatterPlot(title=key, x=wr.SummaryMetric("selected"), y=wr.SummaryMetric(key))

    tasks = [metric.removeprefix("tuned/") for metric in metrics]
    return {
        "methods": [bars(key, f"tuned/{key}", f"base/{key}") for key in tasks],
        "against the base model": [
            bars(f"change: {key}", f"delta/{key}/low", f"delta/{key}", f"delta/{key}/high") for key in tasks
        ],
        "selected records": [against_size(metric) for metric in metrics],
        "cost": [bars(f"seconds: {stage}", f"stages/{stage}/seconds") for stage in ("score", "select", "tune")],
        "training": [wr.LinePlot(title="training loss", x="trainer/global_step", y=["train/loss"])],
        "records": [wr.WeavePanelSummaryTable(table_name="best and worst")],
    }


def _summary_keys(entity: str, project: str, group: str | None) -> list[str]:
    """The evaluation metrics that the group's runs have in their summary, in the order in which they appear."""
    import wandb
    from wandb.apis.normalize import normalize_exceptions

    @normalize_exceptions
    def asked() -> list[str]:
        runs = wandb.Api().runs(f"{entity}/{project}", filters={} if group is None else {"group": group})
        return [key for run in runs for key in run.summary.keys()]  # noqa: SIM118  (no mapping)

    try:
        found = dict.fromkeys(key for key in asked() if key.startswith("tuned/") and not key.endswith("/stderr"))
    except wandb.Error as error:
        raise UserError(f"W&B: the runs of {entity}/{project} could not be read ({_one_line(error)}).") from error
    if not found:
        raise UserError(
            f"W&B: {entity}/{project} has no run with evaluation metrics{f' in group {group}' if group else ''}."
        )
    return list(found)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")
