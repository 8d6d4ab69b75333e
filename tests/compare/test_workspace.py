"""The W&B workspace: what its specification holds, and what is sent, to a server in this process that records it."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from winnow.commands import dashboard
from winnow.compare.workspace import build, report, workspace
from winnow.errors import UserError

GROUP = "consistency/table1/paper"
METRICS = ["tuned/mmlu/acc", "tuned/gsm8k/exact_match,flexible-extract"]
PROJECT = {
    "__typename": "Project",
    "id": "1",
    "name": "winnow",
    "entityName": "team",
    "createdAt": "2026-01-01T00:00:00Z",
    "isBenchmark": False,
    "user": {
        "__typename": "User",
        "id": "u",
        "name": "me",
        "username": "me",
        "admin": False,
        "flags": "{}",
        "entity": "team",
        "deletedAt": None,
        "apiKeys": None,
        "teams": None,
        "email": None,
    },
}
RUN = {
    "id": "UnVu",
    "projectId": "1",
    "name": "abc",
    "displayName": "noise 0.1",
    "state": "finished",
    "tags": [],
    "group": GROUP,
    "jobType": "consistency",
    "readOnly": False,
    "createdAt": "2026-01-01T00:00:00Z",
    "config": "{}",
    "systemMetrics": "{}",
    "summaryMetrics": json.dumps(dict.fromkeys(METRICS, 0.5) | {f"{METRICS[0]}/stderr": 0.1, "base/mmlu/acc": 0.4}),
    "historyKeys": None,
    "user": {"name": "me", "username": "me"},
}


class Requests(list):
    """refused: what a query holds that the server answers with an error."""

    refused = ""


@pytest.fixture
def package():
    return pytest.importorskip("wandb_workspaces", reason="wandb-workspaces is not installed")


@pytest.fixture
def asked(monkeypatch, tmp_path) -> list[dict]:
    """GraphQL requests to a server that has one run; W&B is pointed at it."""
    requests: list[dict] = Requests()

    def answer(request: dict) -> dict:
        query = request["query"]
        if "upsertView" in query:
            view = {"id": "view", "name": request["variables"]["name"], "spec": request["variables"]["spec"]}
            return {"upsertView": {"view": view, "inserted": True}}
        if "models(" in query:
            pages = {"__typename": "PageInfo", "endCursor": None, "hasNextPage": False}
            return {"models": {"edges": [{"node": PROJECT}], "pageInfo": pages}}
        if "runs(" in query:
            found = [{"node": RUN, "cursor": "1"}] if GROUP in request["variables"]["filters"] else []
            pages = {"endCursor": "1", "hasNextPage": False}
            runs = {"edges": found, "pageInfo": pages}
            return {"project": {"internalId": "1", "runCount": len(found), "readOnly": False, "runs": runs}}
        if "projectInternalId" in query or "ProjectInternalId" in query:
            return {"project": {"internalId": "1"}}
        if "run(" in query:
            return {"project": {"internalId": "1", "run": RUN}}
        return {"viewer": {"id": "u", "username": "me", "entity": "team", "flags": "{}", "teams": {"edges": []}}}

    class Server(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            reply = b"{}"
            if self.path == "/graphql":
                request = json.loads(body)
                requests.append(request)
                refused = requests.refused and requests.refused in request["query"]
                errors = {"errors": [{"message": "permission denied"}], "data": None}
                reply = json.dumps(errors if refused else {"data": answer(request)}).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(reply)))
            self.end_headers()
            self.wfile.write(reply)

        def log_message(self, *words):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    import wandb

    wandb.teardown()  # its settings are read once per process
    for key in ("HOME", "WANDB_DIR"):
        monkeypatch.setenv(key, str(tmp_path))
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.server_port}")
    yield requests
    wandb.teardown()
    server.shutdown()


def parts(spec: dict) -> tuple[dict, dict[str, list[dict]]]:
    """(the set of runs, section -> panels) of a workspace's specification."""
    section = spec["section"]
    (runs,) = section["runSets"]
    return runs, {one["name"]: one["panels"] for one in section["panelBankConfig"]["sections"]}


def check(spec: dict) -> None:
    """Runs of the group alone, by method and share; each metric as bars over methods and against selected records."""
    runs, panels = parts(spec)
    (only,) = runs["filters"]["filters"]
    assert only == {"key": {"section": "run", "name": "group"}, "op": "=", "value": GROUP, "disabled": False}
    assert runs["grouping"] == [
        {"section": "run", "name": "jobType"},
        {"section": "config", "name": "selection.value.ratio"},
        {"section": "config", "name": "selection.value.count"},
    ]
    assert list(panels) == ["methods", "against the base model", "selected records", "cost", "training", "records"]
    for panel, metric in zip(panels["methods"], METRICS, strict=True):
        config = panel["config"]
        base = metric.replace("tuned/", "base/")
        assert (panel["viewType"], config["metrics"]) == ("Bar Chart", [metric, base])
        assert (config["groupBy"], config["groupAgg"], config["aggregate"]) == ("jobType", "mean", True)
    for panel, metric in zip(panels["against the base model"], METRICS, strict=True):
        key = metric.removeprefix("tuned/")
        assert panel["config"]["metrics"] == [f"delta/{key}/low", f"delta/{key}", f"delta/{key}/high"]
    for panel, metric in zip(panels["selected records"], METRICS, strict=True):
        assert (panel["config"]["xAxis"], panel["config"]["yAxis"]) == ("summary:selected", f"summary:{metric}")
    assert [panel["config"]["metrics"] for panel in panels["cost"]] == [
        [f"stages/{stage}/seconds"] for stage in ("score", "select", "tune")
    ]
    (curve,) = panels["training"]
    assert (curve["config"]["xAxis"], curve["config"]["metrics"]) == ("trainer/global_step", ["train/loss"])
    assert "best and worst" in json.dumps(panels["records"])


def test_specification(package, recwarn):
    """Made without a network, and without a warning that the package is used in a way it gives up."""
    recwarn.clear()
    made = workspace("team", "winnow", METRICS, GROUP)
    check(made._to_model().spec.model_dump(by_alias=True, exclude_none=True))
    assert not [one for one in recwarn if "FilterExpr" in str(one.message)]
    runs, _ = parts(workspace("team", "winnow", METRICS, None)._to_model().spec.model_dump(by_alias=True))
    assert runs["filters"]["filters"] == []


def test_what_is_sent(package, asked, capsys):
    """`winnow dashboard --wandb` asks for the group's runs, takes the tuned metrics of their summaries, and sends a
    workspace and a report to the project; the address it prints is the view's. The report holds the group's runs."""
    dashboard(["--wandb", "team/winnow", f"group={GROUP}"])
    sent, report = [request["variables"] for request in asked if "upsertView" in request["query"]]
    assert (report["entityName"], report["projectName"], report["type"]) == ("team", "winnow", "runs")
    grids = [block for block in json.loads(report["spec"])["blocks"] if block["type"] == "panel-grid"]
    assert len(grids) == 6 and all(GROUP in json.dumps(one["metadata"]["runSets"]) for one in grids)
    first = [panel["config"]["metrics"] for panel in grids[0]["metadata"]["panelBankSectionConfig"]["panels"]]
    assert first == [[metric, metric.replace("tuned/", "base/")] for metric in METRICS]
    assert (sent["entityName"], sent["projectName"], sent["type"]) == ("team", "winnow", "project-view")
    assert sent["displayName"] == f"winnow {GROUP}"
    check(json.loads(sent["spec"]))
    address = capsys.readouterr().out.splitlines()[0].rsplit(" ", 1)[1]
    assert address.endswith(f"/team/winnow?nw={sent['name'].removeprefix('nw-').removesuffix('-v')}")


def test_the_address_of_a_report(package, asked):
    """W&B reads it as owner, project, `reports`, title and id: the group's / is not a further part."""
    from wandb_workspaces.reports.v2.interface import _url_to_report_id

    assert _url_to_report_id(build(report, "team/winnow", GROUP)).startswith("view")


@pytest.mark.parametrize("query", ["runs(", "upsertView"])
def test_what_the_server_refuses_is_one_sentence(package, asked, query):
    """Runs that cannot be read; a view that a reader may not write."""
    asked.refused = query
    with pytest.raises(UserError, match="W&B.*permission denied"):
        build(workspace, "team/winnow", GROUP)


def test_a_group_without_runs_is_one_sentence(package, asked):
    with pytest.raises(UserError, match="team/winnow has no run with evaluation metrics in group other"):
        build(workspace, "team/winnow", "other")
    assert not any("upsertView" in request["query"] for request in asked)


def test_what_is_missing_is_one_sentence(monkeypatch, tmp_path: Path):
    """A project without its owner; the package."""
    with pytest.raises(UserError, match="expected ENTITY/PROJECT"):
        build(workspace, "winnow")
    monkeypatch.setattr("winnow.compare.workspace.find_spec", lambda name: None)
    with pytest.raises(UserError, match="needs the package wandb-workspaces"):
        build(workspace, "team/winnow")
