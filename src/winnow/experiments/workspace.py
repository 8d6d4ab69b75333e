"""A W&B workspace that compares the methods of a group: the online twin of the dashboard."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

from winnow.errors import UserError


def build_workspace(project: str, group: str | None = None) -> str:
    """Create the workspace in `ENTITY/PROJECT` and return its address.

    group: only runs of this group, for instance `noise/table1/paper`. Sections: headline metrics as bars by job type
    (the method), training loss; the table of runs is W&B's own. Raises UserError without the package
    wandb-workspaces, without a key, and where the server cannot be reached.
    """
    entity, slash, name = project.partition("/")
    if not (entity and slash and name):
        raise UserError(f"winnow dashboard --wandb {project}: expected ENTITY/PROJECT, for instance my-team/winnow.")
    if find_spec("wandb_workspaces") is None:
        raise UserError(
            "winnow dashboard --wandb needs the package wandb-workspaces: pip install it, or leave --wandb "
            "out for the page that needs no network."
        )
    from winnow.tracking.wandb_run import has_key

    if not has_key():
        raise UserError("winnow dashboard --wandb needs a W&B key: set WANDB_API_KEY or run `wandb login`.")
    metrics = _summary_keys(entity, name, group)
    try:
        return workspace(entity, name, metrics, group).save().url
    except (OSError, ValueError) as error:
        raise UserError(f"W&B did not take the workspace of {project}: {error}") from error


def workspace(entity: str, project: str, metrics: Sequence[str], group: str | None) -> Any:
    """The workspace as an object of wandb-workspaces, not yet saved; needs no network."""
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws

    bars = [wr.BarPlot(title=metric, metrics=[metric], groupby="JobType", groupby_aggfunc="mean") for metric in metrics]
    curve = wr.LinePlot(title="training loss", x="trainer/global_step", y=["train/loss"])
    return ws.Workspace(
        entity=entity,
        project=project,
        name=f"winnow {group or project}",
        sections=[
            ws.Section(name="methods", panels=bars, is_open=True),
            ws.Section(name="training", panels=[curve]),
        ],
        runset_settings=ws.RunsetSettings(
            filters=[] if group is None else [ws.Metric("Group") == group],
            groupby=[ws.Metric("JobType")],
        ),
    )


def _summary_keys(entity: str, project: str, group: str | None) -> list[str]:
    """The evaluation metrics that the group's runs have in their summary."""
    import wandb

    try:
        runs = wandb.Api().runs(f"{entity}/{project}", filters={} if group is None else {"group": group})
        found = dict.fromkeys(key for run in runs for key in run.summary if key.startswith("tuned/"))
    except (wandb.Error, OSError, ValueError) as error:
        raise UserError(f"W&B: the runs of {entity}/{project} could not be read ({error}).") from error
    if not found:
        raise UserError(
            f"W&B: {entity}/{project} has no run with evaluation metrics{f' in group {group}' if group else ''}."
        )
    return list(found)
