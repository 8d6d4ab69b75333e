"""The report: complete and offline, honest about missing stages, safe with hostile text, and its plots with
degenerate data."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from winnow.data.records import Record
from winnow.errors import UserError
from winnow.pages import plots
from winnow.pages.card import FOLD, folded
from winnow.pages.model_card import tuned_model_card
from winnow.pages.report import report_content, write_report
from winnow.store.files import write_sum
from winnow.tracking.run_card import RunCard

N = 40


def fill(folder: Path, n: int = N) -> list[Record]:
    """A run folder of n records: record i has score i / 100 and 10 + i answer tokens, record 0 has none; the
    top 4 are selected, record n - 1 was taken out by a filter."""
    records = [Record(f"{i:016x}", i, f"Instruction {i}.", "", f"Answer {i}.", (), "", {}) for i in range(n)]
    rows = [
        {
            "id": one.id,
            "row": i,
            "score": i / 100 if i else None,
            "flag": None if i else "empty_answer",
            "nll_direct": 2.0,
            "answer_tokens": 10 + i if i else 0,
        }
        for i, one in enumerate(records)
    ]
    about = {
        "method": "ifd",
        "settings": {},
        "higher_is_better": True,
        "columns": {"nll_direct": "mean answer NLL, nats per token"},
    }
    table = pa.Table.from_pylist(rows).replace_schema_metadata({b"winnow": json.dumps(about).encode()})
    pyarrow.parquet.write_table(table, folder / "scores.parquet")
    decisions = []
    for i, row in enumerate(rows):
        rank = n - 2 - i if 0 < i < n - 1 else None
        reason = (
            "empty_answer" if i == 0 else "ratio_above_one" if i == n - 1 else "selected" if rank < 4 else "below_cut"
        )
        decisions.append(
            {
                **{key: row[key] for key in ("id", "row", "score")},
                "selected": reason == "selected",
                "reason": reason,
                "rank": rank,
            }
        )
    selection = {
        "method": "ifd",
        "ratio": 0.1,
        "count": None,
        "budget": 4,
        "n_records": n,
        "n_valid": n - 2,
        "n_selected": 4,
        "order": "top",
        "cut": (n - 5) / 100,
        "filters": ["ifd <= 1"],
        "reasons": {"below_cut": n - 6, "empty_answer": 1, "ratio_above_one": 1},
        "decisions": decisions,
    }
    metric = {"value": 0.5, "stderr": 0.03, "n": 60, "higher_is_better": True}
    bits = {"value": 1.0, "stderr": 0.01, "n": 60, "higher_is_better": False}
    results = {
        "suite": "embedded",
        "models": {
            "base": {
                "metrics": {"choice/acc": metric, "held/bits_per_byte": bits, "held/mcc": metric},
                "samples": None,
            },
            "tuned": {
                "metrics": {
                    "choice/acc": {**metric, "value": 0.54, "stderr": 0.04},
                    "held/bits_per_byte": {**bits, "value": 0.9, "stderr": None},
                    "held/mcc": {**metric, "value": 0.6},
                },
                "samples": None,
            },
        },
        "delta": {"choice/acc": 0.04, "held/bits_per_byte": -0.1, "held/mcc": 0.1},
        "comparison": {
            "choice/acc": {"difference": 0.04, "low": -0.02, "high": 0.1, "verdict": "tie"},
            "held/bits_per_byte": {"difference": -0.1, "low": -0.11, "high": -0.09, "verdict": "win"},
        },
        "untested": {"held/mcc": "the samples do not hold it item by item"},
        "headline": ["choice/acc"],
        "settings": {"limit": None},
    }
    tuning = {
        "steps": 2,
        "epochs": 1,
        "train_loss": [{"step": 1, "loss": 2.0, "lr": 1e-4}, {"step": 2, "loss": 1.5, "lr": 0.0}],
        "seconds": 3.0,
        "trainable_parameters": 10,
        "total_parameters": 1000,
        "records": 4,
        "answer_tokens": 200,
        "path": "models/x",
    }
    detection = {
        "overall": {"auc": 0.75, "n_defect": 8, "n_clean": 32},
        "by_kind": {"vague_prompt": {"auc": 0.4, "n": 8}},
    }
    for name, content in (("selection", selection), ("results", results), ("tuning", tuning), ("detection", detection)):
        (folder / f"{name}.json").write_text(json.dumps(content))
    card = RunCard(
        {"data": {"name": "embedded"}, "backbone": {"name": "smollm2_135m"}},
        argv=["/x/winnow/__main__.py", "method=ifd"],
    )
    card.data = {
        "source": "embedded",
        "n_records": n,
        "n_quarantined": 1,
        "near_duplicates": 2,
        "overlap": 1,
        "duplicates": 0,
        "fingerprint": "c0ffee",
    }
    with card.stage("score") as stage:
        stage.fingerprint = "feedfacefeedface"
    card.write(folder)
    return records


class Page(HTMLParser):
    """Collects visible text, element names and attributes; checks that the tags nest."""

    VOID = frozenset({"meta", "br", "link", "img", "hr", "input"})

    def __init__(self, source: str) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.texts: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.feed(source)
        assert self.stack == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag

    def handle_data(self, data: str) -> None:
        if not set(self.stack) & {"style", "script"}:
            self.texts.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.texts))


def test_complete_page(tmp_path: Path) -> None:
    """Headline, six plots, best and worst records, reasons, comparison, provenance: the numbers of the folder's files.
    What the paired test calls a tie is one and has no colour; a metric without a test says why."""
    path = write_report(tmp_path, fill(tmp_path))
    source = path.read_text(encoding="utf-8")
    page = Page(source)
    assert path == tmp_path / "report.html"
    assert [tag for tag, _ in page.elements].count("svg") == 6
    for expected in (
        "ifd on embedded",
        "smollm2_135m",
        "10% of the 38 valid records",
        "4 of 40 records; the cut is at score 0.3500",
        "choice/acc: base 0.5000 , tuned 0.5400",
        "+0.04 [−0.02, +0.1] , tie",
        "−0.1 [−0.11, −0.09] ▲ better",
        "+0.1 not tested",
        "Not tested: held/mcc (the samples do not hold it item by item).",
        "75% of the time",
        "mean training loss 1.750",
        "python -m winnow method=ifd",
        "feedfacefeedface",
        "1 row set aside",
        "2 near copies, 1 record with 13 words in a row of the evaluation",
        "below cut",
        "ratio above one",
        "c0ffee",
        "(1%)",
    ):
        assert expected in page.text, expected
    # The filtered record 39 is not ranked: the best is 38, the worst is 1.
    best, worst = page.text.split("Best ", 1)[1].split("Worst of", 1)
    assert best.index("Answer 38.") < best.index("Answer 37.") < best.index("Answer 29.")
    assert "Answer 39." not in page.text and "Answer 28." not in page.text
    assert worst.index("Answer 1.") < worst.index("Answer 10.")


def test_page_needs_nothing_from_outside(tmp_path: Path) -> None:
    """No element loads anything, links lead to the page itself and to files beside it, styles and script fetch
    nothing."""
    source = write_report(tmp_path, fill(tmp_path)).read_text(encoding="utf-8")
    for tag, attributes in Page(source).elements:
        assert tag not in ("link", "iframe", "object", "img")
        own = () if tag != "a" else (".", "selection.json", "scores.parquet", "results.json", "run_card.md")
        for name in ("src", "href", "xlink:href", "srcset", "data", "action"):
            value = attributes.get(name) or "#"
            assert value.startswith(("#", "data:image/png;base64,")) or value in own
    assert source.count("<script>") == 1 and not re.search(r"fetch\(|XMLHttp|import\(", source)
    assert not re.search(r"@import|url\((?!#)", source)


def test_results_stand_before_records_and_most_records_are_folded(tmp_path: Path) -> None:
    """Of ten best and ten worst records three each are open; the other seven are in a fold."""
    source = write_report(tmp_path, fill(tmp_path)).read_text(encoding="utf-8")
    assert source.index('id="results"') < source.index('id="training"') < source.index('id="records"')
    assert source.count("<summary>7 more</summary>") == 2
    best = source.split("<h3>Best</h3>")[1]
    assert best.index("Answer 36.") < best.index("<summary>7 more</summary>") < best.index("Answer 35.")


def test_epochs_have_their_mean_loss(tmp_path: Path) -> None:
    """Four steps of two epochs, losses 4 2 3 1: means 3 and 2."""
    fill(tmp_path)
    tuning = json.loads((tmp_path / "tuning.json").read_text())
    losses = [{"step": i + 1, "loss": loss, "lr": 0.0} for i, loss in enumerate((4.0, 2.0, 3.0, 1.0))]
    (tmp_path / "tuning.json").write_text(json.dumps(tuning | {"steps": 4, "epochs": 2.0, "train_loss": losses}))
    assert report_content(tmp_path)["tuning"]["epoch_means"] == [(1, 3.0), (2, 2.0)]
    assert (
        "mean training loss 3.000 in the first epoch, 2.000 in the last"
        in Page(write_report(tmp_path).read_text()).text
    )


def test_links_to_the_files_of_the_run_and_to_wandb(tmp_path: Path) -> None:
    """A subset and an offline W&B run: the one is linked, the other has the command that sends it. Online, the page on
    the server that took the run is linked; the command is there where a later start was offline."""
    fill(tmp_path)
    (tmp_path / "subset.jsonl").touch()
    (tmp_path / "wandb" / "offline-run-1").mkdir(parents=True)
    source = write_report(tmp_path).read_text()
    assert '<a href="subset.jsonl">' in source and f"wandb sync {tmp_path}/wandb/offline-run-*" in source
    (tmp_path / "wandb" / "run_url").write_text("https://wandb.our.org/team/winnow/runs/abc\n")
    for offline, told in ((1, False), (2**32, True)):
        os.utime(tmp_path / "wandb" / "offline-run-1", (offline, offline))
        source = write_report(tmp_path).read_text()
        assert '<a href="https://wandb.our.org/team/winnow/runs/abc">' in source and ("wandb sync" in source) == told


def test_the_model_that_scored_is_named_where_it_is_another(tmp_path: Path) -> None:
    """backbone@scorer=gpt2: in the report beside the backbone, and in the card of the tuned model."""
    fill(tmp_path)
    write_sum(tmp_path / "selection.json")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "README.md").write_text("# tuned")
    (tmp_path / "results.json").unlink()
    file = tmp_path / "run_card.json"
    card = json.loads(file.read_text())
    for scorer, told in ((None, False), ({"name": "openai/gpt2"}, True)):
        file.write_text(json.dumps(card | {"config": card["config"] | {"scorer": scorer}}))
        assert (", scored by openai/gpt2\n" in tuned_model_card(tmp_path)) == told
        assert ("scored by <b>openai/gpt2</b>" in write_report(tmp_path).read_text()) == told


def test_same_input_same_page(tmp_path: Path) -> None:
    records = fill(tmp_path)
    assert write_report(tmp_path, records).read_bytes() == write_report(tmp_path, records).read_bytes()


def test_hostile_text_is_only_text(tmp_path: Path) -> None:
    """Markup in a record is shown, not obeyed; half a surrogate pair and a very long answer neither break nor
    swell the page."""
    records = fill(tmp_path)
    evil = "</div></main><script>alert(1)</script><img src=x onerror=alert(2)>&amp; \ud83d"
    texts = {"instruction": evil, "input": evil, "output": "word " * 100_000, "turns": (("user", evil),)}
    records[38] = replace(records[38], **texts, raw={"defect": "<b>x</b>"})
    source = write_report(tmp_path, records).read_text(encoding="utf-8")
    page = Page(source)
    assert [tag for tag, _ in page.elements].count("script") == 1 and "img" not in {tag for tag, _ in page.elements}
    assert "<script>alert(1)</script><img src=x onerror=alert(2)>&amp;" in "".join(page.texts)
    assert "planted defect: <b>x</b>" in page.text
    assert "492,000 characters left out" in page.text
    assert len(source) < 400_000


def test_missing_stages_are_named(tmp_path: Path) -> None:
    """An empty folder still gives a page, which says what was not run; a failed stage is called failed."""
    text = Page(write_report(tmp_path).read_text()).text
    for stage in ("score", "select", "evaluate", "tune"):
        assert f"The {stage} stage was not run" in text
    assert "There is no run_card.json" in text
    recording = RunCard({}, argv=["winnow"]).recording(tmp_path)
    with pytest.raises(ValueError, match="boom"), recording as card, card.stage("evaluate"):
        raise ValueError("boom")
    text = Page(write_report(tmp_path).read_text()).text
    assert "The evaluate stage failed" in text and "The run failed. ValueError: boom" in text
    recording = RunCard({}, argv=["winnow"]).recording(tmp_path)
    with pytest.raises(KeyboardInterrupt), recording as card, card.stage("tune"):
        raise KeyboardInterrupt
    text = Page(write_report(tmp_path).read_text()).text
    assert "The tune stage was interrupted" in text and "Interrupted in the stage tune" in text
    assert "The run failed" not in text


def test_the_budget_has_its_unit(tmp_path: Path) -> None:
    """All data have no budget; a number of answer tokens is none of records."""
    fill(tmp_path)
    selection = json.loads((tmp_path / "selection.json").read_text()) | {"ratio": None}
    for count, unit, told in (
        (None, None, "all 38 valid records."),
        (50_000, "answer_tokens", "50,000 answer tokens, from the top"),
        (5, "records", "5 records, from the top"),
    ):
        (tmp_path / "selection.json").write_text(json.dumps(selection | {"count": count, "budget_in": unit}))
        assert told in Page(write_report(tmp_path).read_text()).text


@pytest.mark.parametrize("text", ["  " + "x" * 700, " " * 700 + "x", "a b" * 300, "x" * 700, "a   " * 200])
def test_a_folded_text_is_whole(text: str) -> None:
    """Opening and rest are the text, and the opening ends with a word."""
    cut = folded(text)
    assert cut["open"] + cut["rest"] == text and 0 < len(cut["open"]) <= FOLD
    assert cut["rest"][0].isspace() or " " not in text.strip()


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_columns_sort_by_the_numbers_that_they_show() -> None:
    """Percentages, times, thousands and a minus sign are numbers, a dash is none; other texts stay texts."""
    script = (Path(plots.__file__).parent / "page.js").read_text(encoding="utf-8")
    value = script[script.index("const value") : script.index("for (const head")]
    cells = ["9.1%", "12 times", "1,319", "−0.5", "–", "ifd"]
    rows = [{"cells": [{"dataset": {}, "textContent": cell}]} for cell in cells]
    script = f"{value} console.log(JSON.stringify({json.dumps(rows)}.map((row) => value(row, 0))))"
    told = subprocess.run(["node", "-e", script], capture_output=True, text=True, check=True).stdout
    assert json.loads(told) == [9.1, 12, 1319, -0.5, "", "ifd"]


def test_scores_without_selection_or_records(tmp_path: Path) -> None:
    """After the score stage alone, the ranking is by score (39 first, as nothing is filtered yet) and has no
    texts."""
    fill(tmp_path)
    (tmp_path / "selection.json").unlink()
    section = report_content(tmp_path)["scores"]
    assert [card["row"] for card in section["best"]] == list(range(39, 29, -1))
    assert [card["row"] for card in section["worst"]] == list(range(1, 11))
    assert section["correlation"] == pytest.approx(1.0)  # score i / 100 against 10 + i tokens
    assert "only their scores are shown" in Page(write_report(tmp_path).read_text()).text


def test_few_records_are_not_shown_twice(tmp_path: Path) -> None:
    """Of 14 records 12 are ranked: ten best, and the two others as the worst, worst first."""
    fill(tmp_path, 14)
    section = report_content(tmp_path)["scores"]
    assert [card["row"] for card in section["best"]] == list(range(12, 2, -1))
    assert [card["row"] for card in section["worst"]] == [1, 2]


@pytest.mark.parametrize("name", ["selection.json", "scores.parquet"])
def test_a_broken_file_is_named(tmp_path: Path, name: str) -> None:
    """An earlier report stays as it was."""
    fill(tmp_path)
    before = write_report(tmp_path).read_bytes()
    (tmp_path / name).write_text("{half")
    with pytest.raises(UserError, match=name):
        write_report(tmp_path)
    assert (tmp_path / "report.html").read_bytes() == before
    with pytest.raises(UserError, match="no such run folder"):
        write_report(tmp_path / "gone")
