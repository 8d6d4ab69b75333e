"""Tables from hand-made run folders: means, spreads, differences, footnotes, and what is missing."""

from __future__ import annotations

import csv
import json
import math
from datetime import datetime, timezone
from pathlib import Path

import pytest
from experiments.run_folders import run_folder
from omegaconf import OmegaConf

from winnow.errors import UserError
from winnow.experiments import commands
from winnow.experiments.collect import read_jobs
from winnow.experiments.publish import publish
from winnow.experiments.tables import Row, build, matches, read_paper
from winnow.sweep import note_failure

PAPER = Path(__file__).resolve().parents[2] / "experiments"
TABLE3 = {"row": {"ratio": 0.12}, "table": "noise/table3"}


def table(name: str, jobs: Path, **changes):
    settings = commands.table_settings(name) | changes
    return build(settings, read_paper(PAPER / name / "paper.csv"), read_jobs(jobs, settings))


def row(found, **wanted) -> Row:
    return next(one for one in found.rows if all(one.identity.get(key) == value for key, value in wanted.items()))


def test_mean_spread_and_difference(tmp_path):
    """Random, two seeds, MMLU 0.40 and 0.46: mean 43, standard deviation sqrt((3^2 + 3^2) / 1) = 4.2426; the paper
    prints 45.97, so the difference is -2.97. The high-consistency row has one seed: no spread."""
    run_folder(tmp_path / "a", metrics={"mmlu/acc": 0.40}, seed=0, **TABLE3)
    run_folder(tmp_path / "b", metrics={"mmlu/acc": 0.46}, seed=1, **TABLE3)
    high = {"row": {"ratio": 0.12, "order": "high"}, "choices": {"method": "noise"}, "table": "noise/table3"}
    run_folder(tmp_path / "c", metrics={"mmlu/acc": 0.5}, **high)
    found = table("noise/table3", tmp_path)
    cell = row(found, method="random").cells["mmlu"]
    assert cell.mean == pytest.approx(43.0) and cell.std == pytest.approx(math.sqrt(18)) and cell.n == 50
    assert cell.difference == pytest.approx(43.0 - 45.97)
    other = row(found, method="noise_consistency", order="high").cells["mmlu"]
    assert other.mean == 50.0 and other.std is None
    missing = row(found, method="noise_consistency", order="low")
    assert missing.printed and all(cell.mean is None for cell in missing.cells.values())
    assert len(found.rows) == 3 and "vicuna" in found.metrics


def test_a_wrong_average_is_footnoted_and_not_compared_with():
    """Table 3's high consistency prints 30.45; its cells give (46.34 + 13.87 + 15.24 + 53.32 + 29.11) / 5 = 31.576."""
    found = table("noise/table3", Path("/nowhere"))
    cell = row(found, order="high").cells["average"]
    assert cell.paper == [30.45] and cell.expected == pytest.approx(31.576)
    assert len(found.footnotes) == 1 and "30.45" in found.footnotes[0] and "31.58" in found.footnotes[0]


def test_the_footnotes_are_the_known_inconsistencies():
    """Over all tables the printed averages that do not follow from their cells are five: 55.78 and 61.23 (Cherry),
    30.45 and 30.90 (noise), 67.10 (ADG). Means that are 0.01 off are rounded or truncated, and get none."""
    notes = set()
    for name in commands.experiments():
        if "figure" not in name:  # figures repeat rows of tables
            notes |= {note.split("printed as ")[1].split(",")[0] for note in table(name, Path("/nowhere")).footnotes}
    assert notes == {"55.78", "61.23", "30.45", "30.90", "67.10"}


def test_differences_from_another_row(tmp_path):
    """Table 1's delta is the average minus that of full data on the same backbone: 0.35 - 0.30 = 5 points; +2.93 is
    printed."""
    common = {"table": "noise/table1"}
    run_folder(tmp_path / "full", choices={"method": "full"}, metrics={"average/small": 0.30}, **common)
    run_folder(
        tmp_path / "other",
        choices={"method": "full", "backbone": "qwen2_0_5b"},
        metrics={"average/small": 0.1},
        **common,
    )
    ours = {"choices": {"method": "noise", "selection": "noise"}, "row": {"ratio": 0.12, "beta": 10}}
    run_folder(tmp_path / "ours", metrics={"average/small": 0.35}, **ours, **common)
    found = table("noise/table1", tmp_path)
    cell = row(found, backbone="llama2_7b", method="noise_consistency+diversity").cells["delta"]
    assert cell.mean == pytest.approx(5.0) and cell.difference == pytest.approx(5.0 - 2.93)
    assert "delta" not in row(found, backbone="llama2_7b", method="full").cells


def test_a_printed_range_has_no_difference(tmp_path):
    """AIFD's gain over IFD is printed as 1.2 to 1.67 for all pairs together: two points of ours stand beside the
    range."""
    common = {"row": {"ratio": 0.05}, "table": "aifd/headline"}
    for name, value in (("ifd", 0.50), ("aifd", 0.52)):
        run_folder(tmp_path / name, choices={"method": name}, metrics={"average/leaderboard": value}, **common)
    cell = row(table("aifd/headline", tmp_path), method="aifd").cells["average_gain"]
    assert cell.mean == pytest.approx(2.0) and sorted(cell.paper) == [1.2, 1.67] and cell.difference is None


def test_the_best_noise_of_a_cell(tmp_path):
    """Table 3 of ANIT prints the best of six noises: of 0.90 and 0.93 it is 93, and the gain over 0.92 is 1 point."""
    common = {"table": "anit/table3", "row": {"instruction": "detailed"}}
    plain = {"data": "sst2", "method": "full", "backbone": "gemma_2b"}
    for name, noising, adversary, value in (
        ("none", "none", "none", 0.92),
        ("one", "truncation", "nrm", 0.90),
        ("two", "padding", "nrm", 0.93),
    ):
        labels = common["row"] | ({"distortion": "rule_based"} if adversary == "nrm" else {})
        folder = run_folder(
            tmp_path / name,
            choices=plain | {"noising": noising, "adversary": adversary},
            metrics={"sst2/micro_f1": value},
            table="anit/table3",
            row=labels,
        )
        card = json.loads((folder / "run_card.json").read_text())
        card["config"]["data"] = {"dataset": "sst2"}
        (folder / "run_card.json").write_text(json.dumps(card))
    best = row(table("anit/table3", tmp_path), backbone="gemma_2b", pool="sst2", noise="best", distortion="rule_based")
    assert best.cells["micro_f1"].mean == pytest.approx(93.0)
    assert best.cells["micro_f1_gain"].mean == pytest.approx(1.0)


def test_clean_and_noised_instructions_are_columns_of_their_own(tmp_path):
    """A robustness evaluation's shares 0.8 (clean) and 0.6, 0.7 (means over noised ones) are 80, 60 and 70 percent, under
    names that do not hang on the data set, so that the rows of two data sets share their columns."""
    measured = {"lap14/clean/micro_f1": 0.8, "average/lap14/noisy": 0.6, "average/lap14/replacement": 0.7}
    folder = run_folder(tmp_path / "one", choices={"data": "lap14"}, metrics=measured, table="anit/robustness", row={})
    card = json.loads((folder / "run_card.json").read_text())
    card["config"]["data"] = {"dataset": "lap14"}
    (folder / "run_card.json").write_text(json.dumps(card))
    cells = table("anit/robustness", tmp_path).rows[0].cells
    assert {name: cells[name].mean for name in ("micro_f1", "micro_f1_noisy", "micro_f1_replacement")} == {
        "micro_f1": 80.0,
        "micro_f1_noisy": 60.0,
        "micro_f1_replacement": 70.0,
    }


def test_times_of_reused_stages_are_not_shown(tmp_path):
    """10 records in 4 + 1 seconds: 2 a second, 5/3600 hours. A job that found its pass in the store tells no time."""
    fresh, reused = (
        {"score": (4.0, "computed"), "select": (1.0, "computed")},
        {"score": (0.1, "reused"), "select": (1.0, "computed")},
    )
    settings = commands.table_settings("adg/time")
    run_folder(tmp_path / "a", choices={"method": "adg", "data": "alpaca_gpt4"}, seconds=fresh, table="adg/time")
    run_folder(tmp_path / "b", choices={"method": "ifd", "data": "alpaca_gpt4"}, seconds=reused, table="adg/time")
    first, second = read_jobs(tmp_path, settings)
    assert first.metrics["examples_per_second"].value == 2.0 and first.metrics["selection_hours"].value == 5 / 3600
    assert not second.metrics


def test_files_say_what_is_missing_and_what_failed(tmp_path):
    """CSV, Markdown, HTML: numbers of ours beside the paper's, missing cells as `missing`, the failed job by its
    sentence, command and commit; the page asks for nothing outside itself."""
    run_folder(tmp_path / "runs" / "a", metrics={"mmlu/acc": 0.5}, **TABLE3)
    run_folder(tmp_path / "runs" / "b", status="failed", error="no such <pool>", **TABLE3)
    (tmp_path / "runs" / "a" / "wandb").mkdir()
    (tmp_path / "runs" / "a" / "wandb" / "run_card.json").write_text("a copy that W&B keeps")
    settings = commands.table_settings("noise/table3") | {"folder": str(tmp_path / "out")}
    page = publish(settings, tmp_path / "runs", "smoke").read_text()
    lines = list(csv.DictReader((tmp_path / "out" / "results-smoke.csv").open()))
    cell = next(line for line in lines if line["method"] == "random" and line["metric"] == "mmlu")
    assert (cell["printed"], cell["ours"], cell["std"], cell["seeds"]) == ("45.97", "50", "", "1")
    assert float(cell["difference"]) == pytest.approx(4.03) and cell["commit"] == "0123456789ab" and cell["n"] == "50"
    text = (tmp_path / "out" / "results-smoke.md").read_text()
    assert "50.00 (45.97; +4.03)" in text and "missing (" in text and "no such <pool>" in text
    assert "Not the paper's setting" in text and "`data.limit=60`" in text and "+experiment=noise/table3" in text
    assert (
        "no such &lt;pool&gt;" in page and "<script" not in page and 'src="http' not in page and "url(http" not in page
    )


def test_the_printed_numbers_are_never_written_over(tmp_path):
    """At scale=paper the table goes into the folder where `paper.csv` lies: that file stays as it is."""
    printed = tmp_path / "out" / "paper.csv"
    printed.parent.mkdir()
    printed.write_text("as printed")
    run_folder(tmp_path / "runs" / "a", metrics={"mmlu/acc": 0.5}, **TABLE3)
    settings = commands.table_settings("noise/table3") | {"folder": str(printed.parent)}
    publish(settings, tmp_path / "runs", "paper")
    assert printed.read_text() == "as printed"
    assert {path.name for path in printed.parent.iterdir()} >= {f"results-paper.{kind}" for kind in ("csv", "md", "html")}


def markdown(tmp_path, runs) -> str:
    settings = commands.table_settings("noise/table3") | {"folder": str(tmp_path / "out")}
    publish(settings, runs, "smoke")
    return (tmp_path / "out" / "results-smoke.md").read_text()


def test_failures_of_an_earlier_sweep_say_so(tmp_path):
    """The last sweep began at 14:00 (UTC): of two failed jobs, that of 12:00 is of an earlier one and can be deleted,
    that of 15:00 is the last one's own. Without a record of a last sweep both are told alike."""
    runs = tmp_path / "runs"
    for name, hour in (("gone", "12"), ("here", "15")):
        told = {"status": "failed", "error": f"no {name}", "started": f"2026-03-01T{hour}:00:00+00:00"}
        run_folder(runs / name, **told, **TABLE3)
    assert "earlier sweep" not in markdown(tmp_path, runs)
    began = datetime(2026, 3, 1, 14, tzinfo=timezone.utc).timestamp()
    (runs / "sweep.json").write_text(json.dumps({"began": began}))
    gone, here = (line for line in markdown(tmp_path, runs).splitlines() if line.startswith("- failed"))
    assert "no gone (of an earlier sweep, 2026-0" in gone and f"delete {runs / 'gone'})" in gone
    assert here == "- failed or unfinished job here: no here"


def test_the_last_attempt_of_a_job_counts(tmp_path):
    """A finished job whose repetition failed before it had a card of its own: the failure is listed and its old number
    is not shown. A job that never had a card is listed too; one of another table is not."""
    runs = tmp_path / "runs"
    folder = run_folder(runs / "again", metrics={"mmlu/acc": 0.5}, **TABLE3)
    assert "50.00" in markdown(tmp_path, runs)
    note_failure(folder, UserError("the pool is gone"))
    for name, table_ in (("early", "table3"), ("other", "table4")):
        (runs / name / ".hydra").mkdir(parents=True)
        OmegaConf.save({"table": {"paper": "noise", "name": table_}}, runs / name / ".hydra" / "config.yaml")
        note_failure(runs / name, UserError("selection.ratio=7 is too much"))
    found = markdown(tmp_path, runs)
    assert "50.00" not in found and "unfinished job again: the pool is gone" in found
    assert "unfinished job early: selection.ratio=7 is too much" in found and "job other" not in found


def test_of_two_jobs_for_one_row_and_seed_the_later_one_counts(tmp_path):
    """0.4 of January, 0.5 of February, in folders whose order is the other way round: 50, one seed, no spread."""
    run_folder(tmp_path / "b", metrics={"mmlu/acc": 0.4}, **TABLE3)
    run_folder(tmp_path / "a", metrics={"mmlu/acc": 0.5}, started="2026-02-01T12:00:00+00:00", **TABLE3)
    cell = row(table("noise/table3", tmp_path), method="random").cells["mmlu"]
    assert cell.mean == 50.0 and cell.std is None


def test_a_stand_in_for_the_data_is_told(tmp_path):
    """`table.data` of the jobs, once, among the notes."""
    for number in (0, 1):
        run_folder(tmp_path / "runs" / str(number), metrics={"mmlu/acc": 0.5}, seed=number, stand_in="ours", **TABLE3)
    assert markdown(tmp_path, tmp_path / "runs").count("- Data: ours.") == 1


def test_figures_have_the_papers_points(tmp_path):
    """Table 8 is a curve over beta: the paper's four points are drawn before anything has been run."""
    settings = commands.table_settings("noise/table8") | {"folder": str(tmp_path)}
    publish(settings, tmp_path, "paper")
    drawn = (tmp_path / "results-paper-beta.svg").read_text()
    assert "noise_consistency+diversity, paper" in drawn and ", ours" not in drawn


def test_matching_compares_what_both_state():
    assert matches({"method": "ifd", "ratio": "0.05"}, {"method": "ifd", "pool": "alpaca"})
    assert not matches({"method": "ifd", "ratio": "0.05"}, {"method": "ifd", "ratio": "0.1"})


def test_commands_tell_what_they_want(tmp_path):
    with pytest.raises(UserError, match="choose adg/budget"):
        commands.table(["noise/table5"])
    with pytest.raises(UserError, match="run `python -m winnow \\+experiment=noise/table1 scale=small` first"):
        commands.table(["noise/table1", "scale=small"])
    with pytest.raises(UserError, match="size=3: unknown option"):
        commands.table(["noise/table1", "size=3"])
    with pytest.raises(UserError, match="no finished run"):
        commands.dashboard([str(tmp_path)])
    with pytest.raises(UserError, match="ENTITY/PROJECT"):
        commands.dashboard(["--wandb", "project"])
