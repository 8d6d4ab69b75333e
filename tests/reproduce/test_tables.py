"""Tables from hand-made run folders: means, spreads, differences, footnotes, and what is missing."""

from __future__ import annotations

import csv
import json
import math
from datetime import UTC, datetime
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from run_folders import run_folder

from winnow import commands
from winnow.compare.runs import read_runs
from winnow.compare.verdicts import verdicts
from winnow.errors import UserError
from winnow.pages.card import JUDGED
from winnow.reproduce.collect import read_jobs
from winnow.reproduce.figures import draw
from winnow.reproduce.publish import index, publish, show_cell
from winnow.reproduce.tables import Cell, Row, build, matches, read_paper
from winnow.sweeps.summary import note_failure

PAPER = Path(__file__).resolve().parents[2] / "experiments"
TABLE3 = {"row": {"ratio": 0.12}, "table": "consistency/table3"}
HIGH = {"row": {"ratio": 0.12, "order": "high"}, "choices": {"method": "consistency"}, "table": "consistency/table3"}


def table(name: str, jobs: Path, **changes):
    settings = commands.table_settings(name) | changes
    return build(settings, read_paper(PAPER / name / "paper.csv"), read_jobs(jobs, settings, "smoke"))


def row(found, **wanted) -> Row:
    return next(one for one in found.rows if all(one.identity.get(key) == value for key, value in wanted.items()))


def test_mean_spread_and_difference(tmp_path):
    """Random, two seeds, MMLU 0.40 and 0.46: mean 43, standard deviation sqrt((3^2 + 3^2) / 1) = 4.2426; the paper
    prints 45.97, so the difference is -2.97. The high-consistency row has one seed: no spread."""
    run_folder(tmp_path / "a", metrics={"mmlu/acc": 0.40}, seed=0, **TABLE3)
    run_folder(tmp_path / "b", metrics={"mmlu/acc": 0.46}, seed=1, **TABLE3)
    run_folder(tmp_path / "c", metrics={"mmlu/acc": 0.5}, **HIGH)
    found = table("consistency/table3", tmp_path)
    cell = row(found, method="random").cells["mmlu"]
    assert cell.mean == pytest.approx(43.0) and cell.std == pytest.approx(math.sqrt(18)) and cell.n == {50}
    assert cell.difference == pytest.approx(43.0 - 45.97)
    other = row(found, method="noise_consistency", order="high").cells["mmlu"]
    assert other.mean == 50.0 and other.std is None
    missing = row(found, method="noise_consistency", order="low")
    assert missing.printed and all(cell.mean is None for cell in missing.cells.values())
    assert len(found.rows) == 3 and "vicuna" in found.metrics


def test_a_wrong_average_is_footnoted_and_not_compared_with():
    """Table 8 prints 30.90 at beta 15; its cells give (43.13 + 13.57 + 15.24 + 53.89 + 28.37) / 5 = 30.84."""
    found = table("consistency/table8", Path("/nowhere"))
    cell = row(found, beta="15").cells["average"]
    assert cell.paper == [30.9] and cell.expected == pytest.approx(30.84)
    notes = [note for note in found.footnotes if "printed as" in note]
    assert len(notes) == 1 and "30.90" in notes[0] and "30.84" in notes[0]


def test_doubtful_cells_are_marked_and_not_compared_with(tmp_path):
    """The five cells of Table 3's high consistency are another row's: ours of 0.5 stands beside 46.34 without a
    difference, and the page marks it; the average, 30.45, is not theirs and is compared as printed."""
    run_folder(tmp_path / "runs" / "a", metrics={"mmlu/acc": 0.5, "average/small": 0.31}, **HIGH)
    found = table("consistency/table3", tmp_path / "runs")
    cells = row(found, order="high").cells
    assert cells["mmlu"].doubtful and cells["mmlu"].paper == [46.34]
    assert cells["mmlu"].expected is None and cells["mmlu"].difference is None
    assert not cells["average"].doubtful and cells["average"].difference == pytest.approx(0.55)
    assert not row(found, method="random").cells["mmlu"].doubtful
    assert len(found.footnotes) == 1 and found.footnotes[0].startswith("mmlu, gsm8k") and "high" in found.footnotes[0]
    text = markdown(tmp_path, tmp_path / "runs")
    assert "50.00 (46.34*)" in text and "31.00 (30.45)" in text


def test_the_footnotes_are_the_known_inconsistencies():
    """Over all tables the printed averages that do not follow from their cells are four: 55.78 and 61.23 (Cherry),
    30.90 (noise), 67.10 (ADG). Means that are 0.01 off are rounded or truncated, and get none."""
    notes = set()
    for name in commands.experiments():
        if "figure" not in name:  # figures repeat rows of tables
            told = [note for note in table(name, Path("/nowhere")).footnotes if "printed as " in note]
            notes |= {note.split("printed as ")[1].split(",")[0] for note in told}
    assert notes == {"55.78", "61.23", "30.90", "67.10"}


def test_differences_from_another_row(tmp_path):
    """Table 1's delta is the average minus that of full data on the same backbone: 0.35 - 0.30 = 5 points; +2.93 is
    printed."""
    common = {"table": "consistency/table1"}
    run_folder(tmp_path / "full", choices={"method": "full"}, metrics={"average/small": 0.30}, **common)
    run_folder(
        tmp_path / "other",
        choices={"method": "full", "backbone": "qwen2_0_5b"},
        metrics={"average/small": 0.1},
        **common,
    )
    ours = {"choices": {"method": "consistency", "selection": "consistency"}, "row": {"ratio": 0.12, "beta": 10}}
    run_folder(tmp_path / "ours", metrics={"average/small": 0.35}, **ours, **common)
    found = table("consistency/table1", tmp_path)
    cell = row(found, backbone="llama2_7b", method="noise_consistency+diversity").cells["delta"]
    assert cell.mean == pytest.approx(5.0) and cell.difference == pytest.approx(5.0 - 2.93)
    assert "delta" not in row(found, backbone="llama2_7b", method="full").cells


def test_a_difference_between_rows_has_its_paired_interval(tmp_path):
    """Ten of 40 items are right for ours alone and none for full data alone: exact p = 2 / 2^10. d has mean 1/4 and
    variance 40/39 (1/4 - 1/16) = 0.1923, standard error sqrt(0.1923 / 40) = 0.0693; t(39) = 2.0227: 25 +- 14.02 points.
    With four such items, p = 2 / 2^4: a tie, and the interval holds 0."""
    common, key = {"table": "consistency/table1"}, "average/small"
    ours = {"choices": {"method": "consistency", "selection": "consistency"}, "row": {"ratio": 0.12, "beta": 10}}
    for name, wins, said in (("a", 10, "better"), ("b", 4, "tie")):
        full, own = [0] * 40, [1] * wins + [0] * (40 - wins)
        for folder, side, more in (("full", full, {"choices": {"method": "full"}}), ("ours", own, ours)):
            path = run_folder(
                tmp_path / name / folder,
                metrics={key: sum(side) / 40},
                items={"tuned": {"t/acc": side}},
                **more,
                **common,
            )
            results = json.loads((path / "results.json").read_text())
            results["averages"] = {"small": ["t/acc"]}
            (path / "results.json").write_text(json.dumps(results))
        found = table("consistency/table1", tmp_path / name)
        cell = row(found, backbone="llama2_7b", method="noise_consistency+diversity").cells["delta"]
        low, high, verdict = cell.tested
        assert verdict == said and cell.mean == pytest.approx(100 * wins / 40)
        assert (low > 0) == (said == "better")
        if wins == 10:
            assert (low, high) == pytest.approx((25 - 14.02, 25 + 14.02), abs=0.01)
            assert show_cell(cell) == "+25.00 [+10.98, +39.02] better"
        else:
            assert low == 0 and show_cell(cell).endswith("] tie")


def test_verdicts_of_a_table_are_those_of_winnow_compare(tmp_path):
    """Three methods have 6 of 40 items right, random none: p = 2 / 2^6 = 0.031 alone and 0.094 of three. So all three
    are ties, in the table and in `winnow compare`; all data, at the ratio 1, is one of them. The single interval,
    0.15 +- 2.0227 sqrt(40/39 (0.15 - 0.15^2) / 40) = 0.15 +- 0.11565, has the digits of its difference."""
    key = "t/acc"
    for method, right in (("random", 0), ("ifd", 6), ("length", 6), ("full", 6)):
        run_folder(
            tmp_path / method,
            choices={"method": method},
            row={"ratio": 0.1},
            metrics={key: right / 40},
            items={"tuned": {key: [1] * right + [0] * (40 - right)}},
            table="verdict/main",
        )
    gain = {"derived": {"gain": {"of": key, "over": {"method": "random"}}}}
    found = {one.identity["method"]: one.cells.get("gain") for one in table("verdict/main", tmp_path, **gain).rows}
    (compared,) = verdicts(read_runs(tmp_path))["comparisons"]
    said = {one["method"]: JUDGED[one["verdict"]] for one in compared["standings"] if one["against"]}
    assert said == {name: cell.tested[2] for name, cell in found.items() if cell} == dict.fromkeys(said, "tie")
    assert len(said) == 3 and show_cell(found["full"]) == "+0.15 [+0.034, +0.27] tie"
    assert show_cell(Cell(derived=0.0019, tested=(0.00012, 0.0034, "better"))) == "+0.0019 [+0.00012, +0.0034] better"


def test_lima_is_measured_against_all_of_alpaca(tmp_path):
    """LIMA is all of another pool: a row without a ratio (`row.ratio=''`), whose delta is its average minus that of all
    of Alpaca, 0.27 - 0.30 = -3 points; -3.69 is printed."""
    run_folder(
        tmp_path / "full", choices={"method": "full"}, metrics={"average/small": 0.30}, table="consistency/table1"
    )
    run_folder(
        tmp_path / "lima",
        choices={"method": "full", "data": "lima"},
        row={"method": "lima", "ratio": ""},
        metrics={"average/small": 0.27},
        table="consistency/table1",
    )
    found = table("consistency/table1", tmp_path)
    lima = row(found, method="lima")
    assert "ratio" not in lima.identity and lima.identity["pool"] == "lima"
    assert lima.cells["delta"].mean == pytest.approx(-3.0)
    assert lima.cells["delta"].difference == pytest.approx(-3.0 + 3.69)
    assert lima.cells["delta"].commits == {"0123456789ab"} and lima.cells["delta"].n == {50}


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
    plain = {"data": "sst2", "method": "full", "backbone": "gemma_2b"}
    for name, noising, adversary, value in (
        ("none", "none", "none", 0.92),
        ("one", "truncation", "nrm", 0.90),
        ("two", "padding", "nrm", 0.93),
    ):
        labels = {"instruction": "detailed"} | ({"distortion": "rule_based"} if adversary == "nrm" else {})
        run_folder(
            tmp_path / name,
            choices=plain | {"noising": noising, "adversary": adversary},
            metrics={"sst2/micro_f1": value},
            table="anit/table3",
            row=labels,
            config={"data.dataset": "sst2"},
        )
    found = table("anit/table3", tmp_path)
    best = row(found, backbone="gemma_2b", pool="sst2", noise="best", distortion="rule_based")
    assert best.cells["micro_f1"].mean == pytest.approx(93.0)
    assert best.cells["micro_f1_gain"].mean == pytest.approx(1.0)
    assert any("1 without an interval. A row chosen as the best is not tested" in one for one in found.footnotes)


def test_the_best_of_a_metric_where_low_is_good_is_the_lowest(tmp_path):
    """Bits per byte of two noises, 0.9 and 1.1: the best is 0.9."""
    for noising, value in (("truncation", 0.9), ("padding", 1.1)):
        folder = run_folder(
            tmp_path / noising,
            choices={"data": "sst2", "method": "full", "backbone": "gemma_2b", "noising": noising, "adversary": "nrm"},
            row={"instruction": "detailed", "distortion": "rule_based"},
            metrics={"e/bits_per_byte": value},
            table="anit/table3",
        )
        results = json.loads((folder / "results.json").read_text())
        results["models"]["tuned"]["metrics"]["e/bits_per_byte"]["higher_is_better"] = False
        (folder / "results.json").write_text(json.dumps(results))
    best = row(table("anit/table3", tmp_path), backbone="gemma_2b", pool="sst2", noise="best", distortion="rule_based")
    assert best.cells["e/bits_per_byte"].mean == 0.9


def test_a_difference_of_means_has_no_interval(tmp_path):
    """The mean over two pools minus that of full data, 60 - 50 points; the means have no samples. A mean over pools
    that share no seed is none, and has no difference."""
    for data, method, value, seed in (
        ("sst2", "full", 0.4, 0),
        ("lap14", "full", 0.6, 0),
        ("sst2", "ifd", 0.5, 0),
        ("lap14", "ifd", 0.7, 0),
        ("sst2", "length", 0.5, 0),
        ("lap14", "length", 0.7, 1),
    ):
        run_folder(
            tmp_path / f"{data} {method}",
            choices={"data": data, "method": method},
            seed=seed,
            metrics={"mmlu/acc": value},
            table="consistency/table1",
        )
    gain = {"mean": "pool", "derived": {"gain": {"of": "mmlu", "over": {"method": "full"}}}}
    found = table("consistency/table1", tmp_path, **gain)
    cell = row(found, pool="mean", method="ifd").cells["gain"]
    assert cell.mean == pytest.approx(10) and cell.tested is None
    assert "gain" not in row(found, pool="mean", method="length").cells
    assert any("A mean over rows has no samples" in note for note in found.footnotes)


def test_clean_and_noised_instructions_are_columns_of_their_own(tmp_path):
    """A robustness evaluation's shares 0.8 (clean) and 0.6, 0.7 (means over noised ones) are 80, 60 and 70 percent,
    under names that do not hang on the data set, so that the rows of two data sets share their columns."""
    measured = {"lap14/clean/micro_f1": 0.8, "average/lap14/noisy": 0.6, "average/lap14/replacement": 0.7}
    job = {"choices": {"data": "lap14"}, "config": {"data.dataset": "lap14"}, "table": "anit/robustness"}
    run_folder(tmp_path / "one", metrics=measured, **job)
    cells = table("anit/robustness", tmp_path).rows[0].cells
    assert {name: cells[name].mean for name in ("micro_f1", "micro_f1_noisy", "micro_f1_replacement")} == {
        "micro_f1": 80.0,
        "micro_f1_noisy": 60.0,
        "micro_f1_replacement": 70.0,
    }


def test_times_of_reused_and_resumed_work_are_not_shown(tmp_path):
    """10 records in 4 + 1 seconds: 2 a second, 5/3600 hours. A job that found its passes, or one of two, in the store,
    or went on from where an interrupted one stopped, tells no time; nor does a card that does not count them."""
    settings = commands.table_settings("adg/time")
    done = (1.0, "computed")
    for name, score, select, tune in (
        ("a", (4.0, "computed"), done, (7.0, "computed")),
        ("b", (0.1, "reused"), done, (7.0, "reused")),
        ("c", (2.0, "computed", 1, 0), done, (7.0, "computed", 1, 0)),
        ("d", (2.0, "computed", 0, 1), done, (7.0, "computed", 0, 1)),
        ("e", (4.0, "computed"), (0.1, "computed", 1, 0), (7.0, "computed", None, None)),
        ("f", (4.0, "computed", None, None), done, (7.0, "skipped", None, None)),
    ):
        stages = {"score": score, "select": select, "tune": tune}
        run_folder(tmp_path / name, choices={"data": "alpaca_gpt4"}, seconds=stages, table="adg/time")
    first, *others = read_jobs(tmp_path, settings, "smoke")
    assert first.metrics["examples_per_second"].value == 2.0 and first.metrics["selection_hours"].value == 5 / 3600
    assert first.metrics["tuning_seconds"].value == 7.0
    assert len(others) == 5 and not any(job.metrics for job in others)


def test_how_the_paper_measured_is_not_said_of_ours(tmp_path):
    """`theirs`: ADG's times are for 52,002 examples on 4 GPUs; ours stand in that row without these settings."""
    done = {"score": (4.0, "computed"), "select": (1.0, "computed")}
    run_folder(tmp_path / "a", choices={"method": "adg", "data": "alpaca_gpt4"}, seconds=done, table="adg/time")
    found = table("adg/time", tmp_path)
    ours = row(found, method="adg")
    assert ours.printed and not {"examples", "gpus"} & ours.identity.keys()
    assert ours.cells["examples_per_second"].difference == pytest.approx(2.0 - 8.10)
    assert row(found, method="zip").identity["gpus"] == "4"
    assert row(table("adg/time", tmp_path, theirs=[]), method="adg").identity["gpus"] == "4"


def test_files_say_what_is_missing_and_what_failed(tmp_path):
    """CSV, Markdown, HTML: numbers of ours beside the paper's, missing cells as `missing`, the failed job by its
    sentence, command and commit; the page asks for nothing outside itself."""
    run_folder(tmp_path / "runs" / "a", metrics={"mmlu/acc": 0.5}, **TABLE3)
    run_folder(tmp_path / "runs" / "b", status="failed", error="no such <pool>", **TABLE3)
    copies = tmp_path / "runs" / "a" / "wandb" / "run-20260101_120000-abc" / "files"
    copies.mkdir(parents=True)
    (copies / "run_card.json").write_text("a copy that W&B keeps")
    settings = commands.table_settings("consistency/table3") | {"folder": str(tmp_path / "out")}
    page = publish(settings, tmp_path / "runs", "smoke").read_text()
    lines = list(csv.DictReader((tmp_path / "out" / "results-smoke.csv").open()))
    cell = next(line for line in lines if line["method"] == "random" and line["metric"] == "mmlu")
    assert (cell["printed"], cell["ours"], cell["std"], cell["seeds"]) == ("45.97", "50", "", "1")
    assert cell["difference"] == "" and cell["commit"] == "0123456789ab" and cell["n"] == "50"
    text = (tmp_path / "out" / "results-smoke.md").read_text()
    assert "50.00 (45.97)" in text and "missing (" in text and "no such <pool>" in text
    assert "Not the paper's setting" in text and "`data.limit=60`" in text and "experiment=consistency/table3" in text
    assert (
        "no such &lt;pool&gt;" in page and page.count("<script") == 1 and 'src="' not in page and "url(http" not in page
    )


def test_what_is_measured_comes_first_and_is_printed(tmp_path, capsys):
    """One row of three has MMLU and NQ: both columns stand before GSM8K, two rows are folded, and the terminal shows
    the measured row alone. Their mean, (50 + 20) / 2 = 35, stands beside the paper's for the same two tasks, (45.97 +
    29.14) / 2 = 37.555. A smaller scale names the backbone that ran; scale=paper has differences."""
    changes = {"backbone.name": ["meta/llama", "packaged:smollm2_135m"]}
    run_folder(
        tmp_path / "runs" / "a", metrics={"nq_open/exact_match": 0.2, "mmlu/acc": 0.5}, changes=changes, **TABLE3
    )
    text = markdown(tmp_path, tmp_path / "runs")
    head = next(line for line in text.splitlines() if line.startswith("| ") and "mmlu" in line)
    assert head.index("mmlu") < head.index("nq") < head.index("mean of the measured") < head.index("gsm8k")
    assert "35.00 (37.55)" in text or "35.00 (37.56)" in text
    first, folded = text.split("<details><summary>2 rows not measured</summary>")
    assert "random" in first and "noise_consistency" not in first and "noise_consistency" in folded
    assert "smollm2_135m (for llama2_7b)" in first
    shown = capsys.readouterr().out
    assert "50.00 (45.97)" in shown and "noise_consistency" not in shown and "1 of 3 rows measured" in shown
    run_folder(tmp_path / "real" / "a", metrics={"mmlu/acc": 0.5}, scale="paper", changes={}, **TABLE3)
    settings = commands.table_settings("consistency/table3") | {"folder": str(tmp_path / "out")}
    publish(settings, tmp_path / "real", "paper")
    assert "50.00 (45.97; +4.03)" in (tmp_path / "out" / "results-paper.md").read_text()


def test_the_index_names_every_table_and_its_state():
    """The page in the repository is the one that the function writes: that of AIFD has rows at scale=smoke."""
    page = index()
    assert (PAPER / "README.md").read_text(encoding="utf-8") == page
    assert all(f"| `{name}` |" in page for name in commands.experiments())
    assert "rows at scale=smoke](aifd/headline/results-smoke.md) |" in page and "| not yet |" in page
    assert "| [lds](verdict/lds/lds.md) |" in page


def test_the_printed_numbers_are_never_written_over(tmp_path):
    """At scale=paper the table goes into the folder where `paper.csv` lies: that file stays as it is."""
    printed = tmp_path / "out" / "paper.csv"
    printed.parent.mkdir()
    printed.write_text("as printed")
    run_folder(tmp_path / "runs" / "a", metrics={"mmlu/acc": 0.5}, **TABLE3)
    settings = commands.table_settings("consistency/table3") | {"folder": str(printed.parent)}
    publish(settings, tmp_path / "runs", "paper")
    assert printed.read_text() == "as printed"
    written = {path.name for path in printed.parent.iterdir()}
    assert written >= {f"results-paper.{kind}" for kind in ("csv", "md", "html")}


def test_outside_the_repository_a_table_has_our_numbers_alone(tmp_path, monkeypatch, capsys):
    """An installed package lacks experiments/: a sweep must not end in an error, and a line says what is left out."""
    monkeypatch.setattr("winnow.reproduce.publish.TABLES", tmp_path / "nowhere")
    run_folder(tmp_path / "runs" / "a", metrics={"mmlu/acc": 0.5}, **TABLE3)
    text = markdown(tmp_path, tmp_path / "runs")
    assert "50" in text and "45.97" not in text and "leaves the paper's numbers out" in capsys.readouterr().out


def markdown(tmp_path, runs) -> str:
    settings = commands.table_settings("consistency/table3") | {"folder": str(tmp_path / "out")}
    publish(settings, runs, "smoke")
    return (tmp_path / "out" / "results-smoke.md").read_text()


def test_a_cell_of_the_csv_is_no_formula(tmp_path):
    """A pool may be called anything; in the CSV an apostrophe stands before a name that a spreadsheet would compute."""
    run_folder(tmp_path / "runs" / "a", metrics={"mmlu/acc": 0.5}, **HIGH | {"row": {"ratio": 0.12, "pool": "=1+1"}})
    markdown(tmp_path, tmp_path / "runs")
    with (tmp_path / "out" / "results-smoke.csv").open(encoding="utf-8", newline="") as file:
        assert [line["ours"] for line in csv.DictReader(file) if line["pool"] == "'=1+1"] == ["50"]


def test_failures_of_an_earlier_sweep_say_so(tmp_path):
    """The last sweep began at 14:00 (UTC): of two failed jobs, that of 12:00 is of an earlier one and can be deleted,
    that of 15:00 is the last one's own. Without a record of a last sweep both are told alike."""
    runs = tmp_path / "runs"
    for name, hour in (("gone", "12"), ("here", "15")):
        told = {"status": "failed", "error": f"no {name}", "started": f"2026-03-01T{hour}:00:00+00:00"}
        run_folder(runs / name, **told, **TABLE3)
    assert "earlier sweep" not in markdown(tmp_path, runs)
    began = datetime(2026, 3, 1, 14, tzinfo=UTC).timestamp()
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
        about = {"table": {"paper": "consistency", "name": table_}, "scale": {"name": "smoke"}}
        OmegaConf.save(about, runs / name / ".hydra" / "config.yaml")
        note_failure(runs / name, UserError("selection.ratio=7 is too much"))
    found = markdown(tmp_path, runs)
    assert "50.00" not in found and "unfinished job again: the pool is gone" in found
    assert "unfinished job early: selection.ratio=7 is too much" in found and "job other" not in found


def test_of_two_jobs_for_one_row_and_seed_the_later_one_counts(tmp_path):
    """0.4 of January, 0.5 of February, in folders whose order is the other way round: 50, one seed, no spread."""
    run_folder(tmp_path / "b", metrics={"mmlu/acc": 0.4}, **TABLE3)
    run_folder(tmp_path / "a", metrics={"mmlu/acc": 0.5}, started="2026-02-01T12:00:00+00:00", **TABLE3)
    cell = row(table("consistency/table3", tmp_path), method="random").cells["mmlu"]
    assert cell.mean == 50.0 and cell.std is None


def test_a_stand_in_for_the_data_is_told(tmp_path):
    """`table.data` of the jobs, once, among the notes."""
    for number in (0, 1):
        run_folder(tmp_path / "runs" / str(number), metrics={"mmlu/acc": 0.5}, seed=number, stand_in="ours", **TABLE3)
    assert markdown(tmp_path, tmp_path / "runs").count("- Data: ours.") == 1


def test_the_embedded_pool_is_told_as_a_stand_in(tmp_path):
    """A scale that put the embedded pool in place of Alpaca and of Dolly in one of two jobs: both are named, once, and
    only these."""
    embedded = {"data.source": ["hub", "embedded"]}
    jobs = (("alpaca", embedded), ("alpaca", embedded), ("dolly", embedded), ("dolly", {}), ("lima", {}))
    for number, (pool, changes) in enumerate(jobs):
        run_folder(
            tmp_path / "runs" / str(number),
            choices={"data": pool},
            seed=number,
            changes=changes,
            metrics={"mmlu/acc": 0.5},
            **TABLE3,
        )
    note = "- The embedded pool stood in for: alpaca, dolly (1 of 2 jobs).\n"
    assert markdown(tmp_path, tmp_path / "runs").count(note) == 1


def test_every_command_and_every_change_is_told(tmp_path):
    """Three jobs of two commands, oldest first, with their numbers; a change in all jobs without a number, one in some
    of them with it, two values of one key each with its own; speed settings not at all."""
    first, second = "python -m winnow experiment=consistency/table3 scale=smoke", "python -m winnow again"
    for number, (command, month, changes) in enumerate(
        (
            (second, 3, {"tuning.mode": ["full", "lora"], "evaluation.limit": [None, 8]}),
            (first, 1, {"tuning.mode": ["full", "lora"], "evaluation.limit": [None, 50.0]}),
            (first, 2, {"tuning.mode": ["full", "lora"], "tuning.micro_batch_size": [8, 1], "data.limit": [None, 60]}),
        )
    ):
        run_folder(
            tmp_path / "runs" / str(number),
            seed=number,
            command=command,
            changes=changes,
            started=f"2026-0{month}-01T12:00:00+00:00",
            metrics={"mmlu/acc": 0.5},
            config={"tuning._target_": "winnow.tuning.tuner.Tuner"},
            **TABLE3,
        )
    text = markdown(tmp_path, tmp_path / "runs")
    assert f"    {first}  # 2 jobs\n" in text and f"    {second}  # 1 job\n" in text
    assert text.index(first) < text.index(second)
    assert "`data.limit=60` in 1 of 3 jobs" in text and "`tuning.mode=lora`." in text
    assert "`evaluation.limit=8` in 1 of 3 jobs" in text and "`evaluation.limit=50` in 1 of 3 jobs" in text
    assert "micro_batch_size" not in text


def test_reasons_are_told_once_for_all_their_rows(tmp_path):
    """ADG's time table has no job for ZIP and MIG for one reason: one sentence with both, and their cells `not run`."""
    settings = commands.table_settings("adg/time") | {"folder": str(tmp_path / "out")}
    publish(settings, tmp_path, "smoke")
    text = (tmp_path / "out" / "results-smoke.md").read_text()
    assert "- method zip; method mig: is not implemented here.\n" in text
    assert "not run (3.17)" in text and "missing (1.78)" in text


def test_figures_have_the_papers_points(tmp_path):
    """Table 8 is a curve over beta: the paper's four points are drawn before anything has been run."""
    settings = commands.table_settings("consistency/table8") | {"folder": str(tmp_path)}
    publish(settings, tmp_path, "paper")
    drawn = (tmp_path / "results-paper-beta.svg").read_text()
    assert "noise_consistency+diversity, paper" in drawn and ", ours" not in drawn


def test_matching_compares_what_both_state():
    assert matches({"method": "ifd", "ratio": "0.05"}, {"method": "ifd", "pool": "alpaca"})
    assert not matches({"method": "ifd", "ratio": "0.05"}, {"method": "ifd", "ratio": "0.1"})


def test_commands_tell_what_they_want(tmp_path):
    with pytest.raises(UserError, match="Known are adg/"):
        commands.table(["consistency/table5"])
    with pytest.raises(UserError, match="run `winnow experiment=consistency/table1 scale=small` first"):
        commands.table(["consistency/table1", "scale=small"])
    with pytest.raises(UserError, match="size=3: unknown option"):
        commands.table(["consistency/table1", "size=3"])
    with pytest.raises(UserError, match="no finished run"):
        commands.dashboard([str(tmp_path)])
    with pytest.raises(UserError, match="ENTITY/PROJECT"):
        commands.dashboard(["--wandb", "project"])


def seeded(folder, seed, value, rate, **more):
    """A job of Table 3's random row that was tuned at a learning rate, `tuning.seed` following the seed."""
    config = {"tuning.learning_rate": rate, "tuning.seed": seed, "paths.pools.alpaca": f"/pools/{seed}"}
    config |= {"data.path": f"/pools/{seed}/alpaca.json", "scoring.tokens_per_batch": 100 + seed, "offline": seed > 0}
    return run_folder(folder, seed=seed, metrics={"mmlu/acc": value}, config=config, **TABLE3, **more)


def test_jobs_of_unlike_settings_are_rows_of_their_own(tmp_path):
    """Learning rates 1e-5 and 2e-5, the second given on the command line: two rows, each with the mean of its own seeds
    (40 and 44: 42; 50). That of the experiment's own rate is compared with 45.97, the other with nothing."""
    seeded(tmp_path / "a", 0, 0.40, 1e-5)
    seeded(tmp_path / "b", 1, 0.44, 1e-5)
    seeded(tmp_path / "c", 0, 0.50, 2e-5, given=["tuning.learning_rate"])
    found = table("consistency/table3", tmp_path)
    own, other = row(found, **{"tuning.learning_rate": "1e-05"}), row(found, **{"tuning.learning_rate": "2e-05"})
    assert own.cells["mmlu"].ours == {0: 40.0, 1: 44.0} and own.cells["mmlu"].difference == pytest.approx(42.0 - 45.97)
    assert other.cells["mmlu"].ours == {0: 50.0} and not other.printed and other.cells["mmlu"].difference is None
    assert set(own.identity) == {"backbone", "pool", "method", "ratio", "tuning.learning_rate"}
    assert not any("left out" in note or "differ in" in note for note in found.footnotes)


def test_none_is_compared_where_the_own_one_cannot_be_told(tmp_path):
    """Both rates were given on the command line: both are rows, the paper's row stands alone, and a note says why."""
    seeded(tmp_path / "a", 0, 0.40, 1e-5, given=["tuning.learning_rate"])
    seeded(tmp_path / "b", 0, 0.50, 2e-5, given=["tuning.learning_rate"])
    found = table("consistency/table3", tmp_path)
    ours = [one for one in found.rows if "tuning.learning_rate" in one.identity]
    assert [one.cells["mmlu"].mean for one in ours] == [40.0, 50.0] and not any(one.printed for one in ours)
    assert all(not cell.paper for one in ours for cell in one.cells.values())
    assert row(found, method="random").cells["mmlu"].paper == [45.97]
    notes = [note for note in found.footnotes if "differ in" in note]
    assert len(notes) == 1 and "random" in notes[0] and "tuning.learning_rate" in notes[0]


def test_another_option_of_a_group_is_told_by_its_name(tmp_path):
    """template=vicuna changes many keys: the group says it, and a length that differs within one option is told too."""
    for name, template, length, given in (
        ("a", "alpaca", 512, []),
        ("b", "vicuna", 512, ["template"]),
        ("c", "vicuna", 1024, ["template", "template.max_length"]),
    ):
        run_folder(
            tmp_path / name,
            choices={"template": template},
            config={"template": {"name": template, "prompt": f"{template}: {{instruction}}", "max_length": length}},
            given=given,
            metrics={"mmlu/acc": 0.5},
            **TABLE3,
        )
    found = table("consistency/table3", tmp_path)
    settings = [{key: value for key, value in one.identity.items() if "template" in key} for one in found.rows]
    assert [one for one in settings if one] == [
        {"template": "alpaca", "template.max_length": "512"},
        {"template": "vicuna", "template.max_length": "512"},
        {"template": "vicuna", "template.max_length": "1024"},
    ]
    assert row(found, template="alpaca").printed and not row(found, template="vicuna").printed


def test_a_difference_keeps_to_rows_of_like_settings(tmp_path):
    """Delta at two rates that were both given: 0.35 - 0.30 at the one, 0.39 - 0.31 at the other."""
    for rate, full, ours in ((1e-5, 0.30, 0.35), (2e-5, 0.31, 0.39)):
        about = {
            "config": {"tuning.learning_rate": rate},
            "given": ["tuning.learning_rate"],
            "table": "consistency/table1",
        }
        run_folder(tmp_path / f"full{rate}", choices={"method": "full"}, metrics={"average/small": full}, **about)
        run_folder(tmp_path / f"ifd{rate}", choices={"method": "ifd"}, metrics={"average/small": ours}, **about)
    found = table("consistency/table1", tmp_path)
    deltas = {
        one.identity["tuning.learning_rate"]: one.cells["delta"].mean
        for one in found.rows
        if one.identity["method"] == "ifd" and "tuning.learning_rate" in one.identity
    }
    assert deltas == {"1e-05": pytest.approx(5.0), "2e-05": pytest.approx(8.0)}


def test_a_cell_says_its_own_commits_and_items(tmp_path):
    """Two seeds at two commits, on 8 and 50 items: the cell has both; another row's cell has its own commit alone."""
    run_folder(tmp_path / "runs" / "a", metrics={"mmlu/acc": 0.4}, seed=0, n=8, commit="a" * 40, **TABLE3)
    run_folder(tmp_path / "runs" / "b", metrics={"mmlu/acc": 0.5}, seed=1, n=50, commit="b" * 40, **TABLE3)
    low = {"row": {"ratio": 0.12, "order": "low"}, "choices": {"method": "consistency"}, "table": "consistency/table3"}
    run_folder(tmp_path / "runs" / "c", metrics={"mmlu/acc": 0.5}, commit="c" * 40, **low)
    markdown(tmp_path, tmp_path / "runs")
    lines = list(csv.DictReader((tmp_path / "out" / "results-smoke.csv").open()))
    cells = {line["method"]: line for line in lines if line["metric"] == "mmlu" and line["ours"]}
    assert (cells["random"]["n"], cells["random"]["commit"]) == ("8 50", f"{'a' * 12} {'b' * 12}")
    assert (cells["noise_consistency"]["n"], cells["noise_consistency"]["commit"]) == ("50", "c" * 12)
    assert all(not line["commit"] for line in lines if not line["ours"])


def test_jobs_of_another_scale_are_left_out(tmp_path, capsys):
    """Two jobs at scale=small and one at scale=smoke in one folder: the table of smoke has the one job. A third job at
    small failed before it had a card: it counts as a job of small, and is no failure of this table."""
    run_folder(tmp_path / "a", metrics={"mmlu/acc": 0.4}, **TABLE3)
    for name in "bc":
        later = {"scale": "small", "started": "2026-02-01T12:00:00+00:00"}
        run_folder(tmp_path / name, metrics={"mmlu/acc": 0.9}, **later, **TABLE3)
    (tmp_path / "d" / ".hydra").mkdir(parents=True)
    config = {"table": {"paper": "consistency", "name": "table3"}, "scale": {"name": "small"}}
    OmegaConf.save(config, tmp_path / "d" / ".hydra" / "config.yaml")
    note_failure(tmp_path / "d", UserError("no"))
    found = table("consistency/table3", tmp_path)
    assert row(found, method="random").cells["mmlu"].mean == 40.0 and len(found.jobs) == 1
    assert "3 jobs of scale=small left out; this table is scale=smoke." in capsys.readouterr().out


def test_a_curve_does_not_join_unlike_settings(tmp_path):
    """Two temperatures of ADG, both given: each is a curve of its own beside the paper's."""
    for k in (3, 5):
        for heat in (1.0, 1.4):
            run_folder(
                tmp_path / "runs" / f"{k}-{heat}",
                choices={"method": "adg", "selection": "adg", "backbone": "llama3_8b", "data": "alpaca_gpt4"},
                row={"K": k, "budget": 10000},
                config={"method.temperature": heat, "method.answers": k},
                given=["method.temperature"],
                metrics={"average/all": 0.5},
                table="adg/k",
            )
    publish(commands.table_settings("adg/k") | {"folder": str(tmp_path / "out")}, tmp_path / "runs", "smoke")
    drawn = (tmp_path / "out" / "results-smoke-k.svg").read_text()
    for words in ("paper", "method.temperature=1, ours", "method.temperature=1.4, ours"):
        assert f"adg, {words}" in drawn
    assert "adg, ours" not in drawn


def taken(folder: Path, method: str, number: int, **selection) -> None:
    """A job of ifd/main's kind that took so many records at a ratio of 0.12."""
    config = {"selection.ratio": 0.12} | {f"selection.{key}": value for key, value in selection.items()}
    folder = run_folder(
        folder / method,
        metrics={"mmlu/acc": 0.5},
        choices={"method": method},
        row={"ratio": 0.12},
        table="consistency/table1",
        config=config,
    )
    card = json.loads((folder / "run_card.json").read_text())
    (folder / "run_card.json").write_text(json.dumps(card | {"results": {"selected": number}}))


def test_rows_of_unequal_budgets_are_refused_unless_the_experiment_says_why(tmp_path):
    """0.12 of 250 records: `ifd` takes 26 of the 220 that its filter leaves, `random` 30. Neither is a row, and both
    are named; with a reason they are rows, and a footnote says it. Equal numbers need no reason, nor do equal shares of
    the answer tokens, whatever numbers of records they are."""
    for method, number in (("ifd", 26), ("random", 30)):
        taken(tmp_path / "unequal", method, number, budget="valid")
        taken(tmp_path / "equal", method, 30, budget="records")
        taken(tmp_path / "tokens", method, number, budget="answer_tokens")
    for count in (20, 30):  # a sweep over the count; the row's ratio stays what the experiment says
        taken(tmp_path / "counts" / str(count), "ifd", count, count=count, ratio=None)
    found = table("consistency/table1", tmp_path / "unequal")
    assert len(found.failed) == 2 and not any(one.cells["mmlu"].ours for one in found.rows)
    assert "unequal budgets (ifd 26 records, random 30 records)" in found.failed[0].error
    found = table("consistency/table1", tmp_path / "unequal", unequal="its code says so [code]")
    assert not found.failed and any(note.endswith("because its code says so [code].") for note in found.footnotes)
    for folder in ("equal", "tokens", "counts"):
        found = table("consistency/table1", tmp_path / folder)
        assert not found.failed and sum(bool(one.cells["mmlu"].ours) for one in found.rows) == 2


def test_the_mean_over_all_tasks_with_the_best_noise(tmp_path):
    """Figure 2a at omega 0.1. Best noise: sst2 max(0.90, 0.94), lap14 max(0.60, 0.50); their mean (94 + 60) / 2 = 77.
    Replacement alone: (90 + 60) / 2 = 75. The baseline: (92 + 58) / 2 = 75. At omega 0.2 one of the two tasks is
    missing, so there is no mean."""
    values = {
        ("sst2", "replacement", 0.1): 0.90,
        ("sst2", "padding", 0.1): 0.94,
        ("lap14", "replacement", 0.1): 0.60,
        ("lap14", "padding", 0.1): 0.50,
        ("sst2", "replacement", 0.2): 0.99,
        ("sst2", "none", None): 0.92,
        ("lap14", "none", None): 0.58,
    }
    for (data, noise, omega), value in values.items():
        run_folder(
            tmp_path / f"{data}-{noise}-{omega}",
            metrics={f"{data}/micro_f1": value},
            choices={"data": data, "method": "full", "noising": noise, "adversary": "nrm" if omega else "none"},
            row={"ratio": None, "omega": omega},
            config={"data.dataset": data},
            table="anit/figure2a",
        )
    found = table("anit/figure2a", tmp_path)
    means = {
        tuple(one.identity.get(key) for key in ("method", "noise", "omega")): one.cells["micro_f1"].mean
        for one in found.rows
        if one.identity["pool"] == "mean"
    }
    assert means == {
        ("anit", "random_replacement", "0.1"): pytest.approx(75),
        ("anit", "in_context_padding", "0.1"): pytest.approx(72),
        ("anit", "best", "0.1"): pytest.approx(77),
        ("none", None, None): pytest.approx(75),
    }
    (figure,) = commands.table_settings("anit/figure2a")["figures"]
    assert draw(found, figure).count("baseline") == 1
