"""What a selection costs: what the meter counts, and what the ledgers add up to."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from composed import build, template
from tiny import tiny_model
from tiny_passes import TRAINER, Loaded

from winnow.backbone.causal_model import CausalModel
from winnow.pages.report import write_report
from winnow.scoring.pass_loop import PartWriter
from winnow.scoring.passes.likelihood import Likelihood
from winnow.scoring.passes.token_count import TokenCount
from winnow.scoring.price import LEDGER, Meter, charge, marginal, price, prices
from winnow.scoring.runner import PassRunner
from winnow.store.artifacts import Store
from winnow.tracking.run_card import RunCard


def test_the_meter_counts_rows_and_tokens():
    """Batches of 2 x 5 and 3 x 4: 5 forwards of 10 + 12 = 22 tokens; nothing is counted when it is closed."""
    model = tiny_model()
    meter = Meter(model, encoder=False)
    meter.open()
    for rows, length in ((2, 5), (3, 4)):
        model(input_ids=model.dummy_inputs["input_ids"].new_ones(rows, length))
    meter.close()
    model(**model.dummy_inputs)
    line = meter.entry("pass", 5, 1.5)
    assert (line["forwards"], line["tokens"], line["records"], line["seconds"]) == (5, 22, 5, 1.5)
    assert line["parameters"] == sum(one.numel() for one in model.parameters())
    assert meter.entry("pass", 0, 0.0)["tokens"] == 0


def folder(store, name: str, *lines: dict):
    (store / "passes" / name).mkdir(parents=True)
    for line in lines:
        charge(store / "passes" / name, line)


def line(records: int, tokens: int, seconds: float, label: str = "one") -> dict:
    return {
        "pass": label,
        "records": records,
        "parameters": 10,
        "forwards": records,
        "tokens": tokens,
        "seconds": seconds,
    }


def test_prices_by_hand(tmp_path):
    """Two parts of 3 and 1 records took 60 + 20 tokens and 3 + 1 s: 2 records cost half of that, 40 tokens, 2 s, and
    2 * 10 * 40 = 800 FLOPs. Of 8 records only 4 were ever computed (the others are the same, or the pass is a
    target's): they cost what these cost. A line that is cut, and a pass without a model, cost nothing; a store without
    a pass has no price."""
    folder(tmp_path, "a", line(3, 60, 3.0), line(1, 20, 1.0))
    with (tmp_path / "passes" / "a" / LEDGER).open("a") as file:
        file.write('{"pass": "on')
    folder(tmp_path, "count")
    half = {"pass": "one", "forwards": 2, "tokens": 40, "flops": 800, "seconds": 2}
    assert prices(tmp_path, {"a": 2, "count": 2}) == {"a": half}
    whole = {"pass": "one", "forwards": 4, "tokens": 80, "flops": 1600, "seconds": 4}
    assert prices(tmp_path, {"a": 8}) == prices(tmp_path, {"a": 4}) == {"a": whole}
    assert prices(tmp_path, {"a": 8, "gone": 8}) is None


@pytest.mark.parametrize(("trained", "through"), [(4, 2), (10, 3)], ids=["adapters", "all weights"])
def test_a_preparation_costs_what_its_model_took(tmp_path, trained, through):
    """6 rows of 50 tokens in all, on 10 weights: forward and backward 12 and 100, 2 * 10 * 100 = 2,000 FLOPs, 7 s,
    whether 8 or 80 records are scored; gradients of all weights make it 18, 150 and 3,000. A model that was made before
    tokens were counted has no price."""
    (tmp_path / "models" / "m").mkdir(parents=True)
    tuned = {"trainable_parameters": trained, "total_parameters": 10, "rows": 6, "seconds": 7.0}
    (tmp_path / "models" / "m" / "tuning.json").write_text(json.dumps(tuned))
    assert prices(tmp_path, {"m": 8}) is None
    (tmp_path / "models" / "m" / "tuning.json").write_text(json.dumps(tuned | {"tokens": 50}))
    cost = {"forwards": 6 * through, "tokens": 50 * through, "flops": 1000 * through, "seconds": 7}
    assert prices(tmp_path, {"m": 8}) == prices(tmp_path, {"m": 80}) == {"m": {"pass": "preparation"} | cost}


def card(store, score: str, select: str | None = None, tune: str = "computed") -> dict:
    stages = {
        "score": {"fingerprint": score},
        "select": {"fingerprint": select},
        "tune": {"seconds": 4.0, "status": tune},
    }
    return {"stages": stages, "config": {"paths": {"store": str(store)}}, "data": {"n_records": 4}}


def test_a_pass_of_pool_and_target_costs_both(tmp_path):
    """The pool's 4 records and the target's 2 took 6 s, of one pass that the stage names twice. Another pool's 6 s in
    the same ledger are not this run's. A tuning that was resumed took longer than its last stage says."""
    folder(tmp_path, "a", line(6, 12, 6.0), line(6, 12, 6.0))
    one = card(tmp_path, "a a")
    one["data"]["target"] = {"n_records": 2}
    one["stages"]["tune"]["resumed"] = 1
    assert (price(one)["seconds"], price(one)["tuning_seconds"]) == (6, None)


def test_what_a_method_adds(tmp_path):
    """ifd has a and b, perplexity a and the vectors c: b's 1 s is what ifd adds, c's 2 s what perplexity adds. A
    control of ifd, which has its passes, takes nothing from that."""
    for name, seconds in (("a", 5.0), ("b", 1.0), ("c", 2.0)):
        folder(tmp_path, name, line(4, 8, seconds, name))
    cards = {"ifd": card(tmp_path, "a b"), "perplexity": card(tmp_path, "a", "a c", tune="reused")}
    found = {name: price(one) for name, one in cards.items()}
    assert [found[name]["seconds"] for name in cards] == [6, 7] and found["ifd"]["tuning_seconds"] == 4
    assert [one["pass"] for one in found["perplexity"]["passes"]] == ["a", "c"]
    assert found["perplexity"]["tuning_seconds"] is None
    kinds = dict(zip(cards, cards, strict=True))
    wanted = {"ifd": 1, "perplexity": 2}
    assert {name: one["seconds"] for name, one in marginal(cards, kinds).items()} == wanted
    cards["its control"], kinds["its control"] = cards["ifd"], "ifd"
    assert {name: one["seconds"] for name, one in marginal(cards, kinds).items()} == wanted | {"its control": 1}


def test_processes_share_the_time(tmp_path):
    """Two processes that compute for 6 s at once cost 3 s each: together what they took."""
    meter = SimpleNamespace(open=int, close=int, entry=lambda label, records, seconds: {"seconds": seconds})
    writer = PartWriter(SimpleNamespace(path=tmp_path, append=list), 60.0, meter, "one")
    writer.on_predict_start(SimpleNamespace(world_size=2), None)
    writer.flushed_at -= 6
    writer.waiting = {"id": ["a"]}
    writer.on_predict_epoch_end(None, None)
    assert 3 <= json.loads((tmp_path / LEDGER).read_text())["seconds"] < 4


def test_the_price_stands_in_the_run_card_and_in_the_report(tmp_path):
    """4 records of 2 tokens on 10 weights, 3 s, and a tuning of no time at all: in JSON, on both pages."""
    folder(tmp_path / "store", "a", line(4, 8, 3.0, "likelihood clean"))
    with RunCard({"paths": {"store": str(tmp_path / "store")}}, argv=["winnow"]).recording(tmp_path) as made:
        made.data = {"source": "pool", "n_records": 4}
        with made.stage("score") as stage:
            stage.fingerprint = "a"
        with made.stage("tune"):
            pass
    told = json.loads((tmp_path / "run_card.json").read_text())["price"]
    assert (told["flops"], told["seconds"]) == (160, 3) and told["tuning_seconds"] >= 0
    assert "| likelihood clean | 4 | 8 |" in (tmp_path / "run_card.md").read_text()
    page = write_report(tmp_path).read_text()
    assert "Price of the selection" in page and ">likelihood clean</td>" in page and ">all</td>" in page


def test_a_pass_leaves_its_price_in_the_store(backbone, tmp_path):
    """Each record once, and once the words that 11 of the prompts begin with: 12 records are 13 forwards. A second run,
    and the count of tokens, which runs no model, add nothing."""
    assert CausalModel(backbone.model).reuse  # tried before anything is counted, on 5 rows
    records = build("data/embedded", limit=12).records
    store = Store(tmp_path)
    runner = PassRunner(Loaded(backbone), store, TRAINER)
    for _ in range(2):
        table = runner.compute(Likelihood("clean"), records, template("alpaca", max_length=1500))
    lines = [json.loads(text) for text in (tmp_path / "passes" / runner.used[0] / LEDGER).read_text().splitlines()]
    texts = table.numbers("prompt_tokens").sum() + table.numbers("answer_tokens").sum()
    assert sum(one["records"] for one in lines) == 12 and {one["pass"] for one in lines} == {"likelihood clean"}
    runner.compute(TokenCount(), records, template("alpaca"))
    found = prices(tmp_path, dict.fromkeys(runner.used, 12))
    assert len(found) == 1
    (one,) = found.values()
    assert one["forwards"] == 13 and 0.5 * texts < one["tokens"] < texts and one["seconds"] > 0
    assert one["flops"] == pytest.approx(2 * lines[0]["parameters"] * one["tokens"])
