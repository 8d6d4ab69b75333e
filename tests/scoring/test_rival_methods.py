"""The rivals: each formula by hand, from columns that are given."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from composed import build, config
from tiny_passes import columns, record
from vector_pool import table as score_table

from winnow.errors import UserError
from winnow.scoring.methods.miwv import nearest, with_example
from winnow.scoring.methods.rds import round_robin
from winnow.scoring.passes.embedding import SentenceEmbedding
from winnow.scoring.passes.likelihood import LikelihoodEntropy
from winnow.scoring.passes.noised_likelihood import NoisedLikelihood
from winnow.scoring.passes.rating import Rating
from winnow.stages.parts import build_parts
from winnow.store.describe import describe

RECORDS = [record("do", "", text, row) for row, text in enumerate(["one", "two", "three"])]


likelihood = partial(columns, LikelihoodEntropy.schema)


def test_sifd_by_hand():
    """d = (2, -0.5) and (1, 0.25): the median of 2, 0.5, 1, 0.25 is 0.75, so kept=0.5 keeps 2 and 1: exp(2), exp(1).
    IFD over all tokens: exp(0.75) and exp(0.625), not below 1. With kept=1 the 0th percentile, 0.25, itself falls."""
    tables = {
        "conditioned": likelihood(nll=[[3.0, 1.0], [2.0, 1.25], [1.0]]),
        "direct": likelihood(nll=[[1.0, 1.5], [1.0, 1.0], []]),
    }
    scores = build("method/sifd").score(tables, RECORDS)
    assert scores.score[:2] == pytest.approx([math.exp(2), math.exp(1)]) and scores.higher_is_better
    assert scores.flag == [None, None, "no_scored_answer_token"]
    assert scores.components["ifd"][:2] == pytest.approx([math.exp(0.75), math.exp(0.625)])
    assert scores.components["informative_tokens"][:2].tolist() == [1, 1]
    assert build("method/sifd", kept=1.0).score(tables, RECORDS).score[:2] == pytest.approx([math.exp(0.75), math.e])
    (rule,) = build("method/sifd").filters
    assert rule.keeps(pa.table({"ifd": [0.99, 1.0]})).tolist() == [True, False]


def test_sifd_keeps_tokens_that_the_prompt_makes_likelier_too():
    """d = (-2, 0.5) and (1, 0.25): by size as above, so that -2 and 1 are kept."""
    tables = {
        "conditioned": likelihood(nll=[[1.0, 2.0], [2.0, 1.25]]),
        "direct": likelihood(nll=[[3.0, 1.5], [1.0, 1.0]]),
    }
    scores = build("method/sifd").score(tables, RECORDS[:2])
    assert scores.score == pytest.approx([math.exp(-2), math.e])
    assert scores.components["informative_tokens"].tolist() == [1, 1]


def test_sifd_leaves_out_the_token_that_one_text_has_no_loss_of():
    """Without BOS the bare answer's first token has no loss: d = 4 - 1 alone, not 7 - 1."""
    tables = {"conditioned": likelihood(nll=[[7.0, 4.0]]), "direct": likelihood(nll=[[1.0]], skipped=[1])}
    scores = build("method/sifd", kept=1.0).score(tables, RECORDS[:1])
    assert scores.flag == ["no_informative_token"]  # the only |d| is the quantile, and nothing lies above it
    assert scores.components["ifd"][0] == pytest.approx(math.exp(3))


def test_tshirt_by_hand():
    """Two draws of two tokens, d = (0, 3), (0, 1) and (2, 2), (0, 0): the median of 0, 3, 0, 1, 2, 2, 0, 0 is 0.5.
    Kept are 3 and 1: mean of e^3 and e, spread half their difference; and 2, 2, then none, which counts as e^0 = 1:
    mean of e^2 and 1. IFD: mean of exp(1.5) and exp(0.5); of exp(2) and 1."""
    noised = partial(columns, NoisedLikelihood.schema)
    tables = {
        "conditioned": noised(nll=[[1.0, 4.0, 1.0, 2.0], [3.0, 3.0, 1.0, 1.0]]),
        "direct": noised(nll=[[1.0] * 4, [1.0] * 4]),
    }
    scores = build("method/tshirt", draws=2).score(tables, RECORDS[:2])
    assert scores.score == pytest.approx([(math.e**3 + math.e) / 2, (math.e**2 + 1) / 2])
    assert scores.components["sifd_spread"] == pytest.approx([(math.e**3 - math.e) / 2, (math.e**2 - 1) / 2])
    assert scores.components["ifd"] == pytest.approx([(math.exp(1.5) + math.exp(0.5)) / 2, (math.e**2 + 1) / 2])


def test_tshirts_passes_have_its_draws():
    """A seed, a number or a strength that they did not take would be one of another run."""
    passes = build("method/tshirt", draws=2, alpha=4.0, seed=3).passes.values()
    assert [(one.view, one.draws, one.alpha, one.seed) for one in passes] == [
        ("clean", 2, 4.0, 3),
        ("direct", 2, 4.0, 3),
    ]


def test_tshirt_selects_the_steadiest_of_twice_the_budget():
    """Budget 2: the four best are 0 to 3, and of these 1 and 3 vary least; 4 and 5 vary less, but rank below."""
    table = score_table([6.0, 5.0, 4.0, 3.0, 2.0, 1.0])
    spread = table.append_column("sifd_spread", pa.array([0.9, 0.1, 0.8, 0.2, 0.0, 0.0]))
    rule = build("selection/tshirt", ratio=None, count=2)
    assert rule.select(spread, True).chosen == [1, 3]
    assert rule.select(spread.take([5, 4, 3, 2, 1, 0]), True).chosen == [2, 4]  # the file's order plays no part
    even = table.append_column("sifd_spread", pa.array([0.5] * 6))
    assert rule.select(even, True).chosen == [0, 1]  # of equal spreads the better score
    with pytest.raises(UserError, match="rule steady reads the column sifd_spread of the score table, which has id"):
        rule.select(table, True)


def test_entropy_and_upd_by_hand():
    """Losses 0 and ln 3, entropies 1 and 3, half and three quarters of log V: mean entropy 2. sigmoid(0) = 1/2 and
    sigmoid(ln 3) = 3/4, so UPD = (1/2 * 1/2 + 3/4 * 1/4) / 2 = 7/32. A bad loss stays in its row."""
    tables = {
        "conditioned": likelihood(
            nll=[[math.nan], [0.0, math.log(3)]], entropy=[[1.0], [1.0, 3.0]], openness=[[0.5], [0.5, 0.75]]
        )
    }
    for method, value in (("entropy", 2.0), ("upd", 7 / 32)):
        scores = build(f"method/{method}").score(tables, RECORDS[:2])
        assert scores.score[1] == pytest.approx(value) and scores.flag == ["non_finite_loss", None]
    assert not build("method/entropy", prefer="low").score(tables, RECORDS[:2]).higher_is_better


def test_miwv_by_hand():
    """Vectors at 0, 10 and 80 degrees: 0 and 1 are each other's neighbours, that of 2 is 1. A copy of 1 is no example
    for it, and a record without an answer is none for anybody. Losses 3 behind the example and 1 without: 2."""
    degrees = np.radians([0, 10, 80])
    vectors = np.stack([np.cos(degrees), np.sin(degrees)], 1).tolist()
    embedded = columns(SentenceEmbedding.schema, vector=vectors)
    assert nearest(embedded, RECORDS) == [1, 0, 1]
    assert nearest(embedded, [replace(RECORDS[1], row=0), *RECORDS[1:]]) == [2, 2, 1]
    assert nearest(embedded, [RECORDS[0], replace(RECORDS[1], output=""), RECORDS[2]]) == [2, 0, 0]
    # Two copies of a prompt, whose vectors differ by rounding: the first, whichever is nearer by it.
    copies = [[1.0, 0.0], [0.6, 0.8], np.nextafter(np.float32([0.6, 0.8]), np.float32([1, 0])).tolist()]
    assert nearest(columns(SentenceEmbedding.schema, vector=copies), RECORDS)[0] == 1
    made = with_example(RECORDS[0], replace(RECORDS[1], input="this"))
    assert made.turns == (("user", "do\n\nthis"), ("assistant", "two")) and made.output == "one"
    assert made.id not in {one.id for one in RECORDS}
    turns = (("system", "Be brief."), ("user", "Hi."), ("assistant", "Hello."))
    later = with_example(replace(RECORDS[0], turns=turns), RECORDS[1])
    assert later.turns == (turns[0], ("user", "do"), ("assistant", "two"), *turns[1:])
    tables = {"neighbours": columns(SentenceEmbedding.schema, vector=[[1.0, 0.0], [0.0, 1.0], None])}
    tables |= {"conditioned": likelihood(nll=[[1.0]] * 3), "one_shot": likelihood(nll=[[3.0], [1.5], [2.0]])}
    scores = build("method/miwv").score(tables, RECORDS)
    assert scores.score[:2] == pytest.approx([2.0, 0.5]) and scores.flag == [None, None, "no_example"]


def test_selectit_by_hand():
    """p = (0, 0, 0, 0, 1) and (1/2, 0, 0, 1/2, 0): expected grades 5 and 2.5, mean 3.75, spread 1.25, so 3.75 / 1.25.
    Margins: 5 * 1, and grade 1, the first of two likeliest, times (1/2 + 1/2 + 0 + 1/2) / 4 = 3/8."""
    rated = partial(columns, Rating.schema)
    tables = {
        "request_1": rated(probabilities=[[0, 0, 0, 0, 1.0]]),
        "request_2": rated(probabilities=[[0.5, 0, 0, 0.5, 0]]),
    }
    two = {"requests": ["a", "b"]}
    assert build("method/selectit", **two).score(tables, RECORDS[:1]).score[0] == pytest.approx(3.75 / 1.25)
    mean, spread = (5 + 0.375) / 2, (5 - 0.375) / 2
    margin = build("method/selectit", rating="margin", **two).score(tables, RECORDS[:1]).score[0]
    assert margin == pytest.approx(mean / (1 + 0.2 * spread))


def test_round_robin_by_hand():
    """Query 0 likes 0, 1, 2, 3 in this order, query 1 likes 0, 2, 1, 3. In turn: 0 takes 0; 1 takes 2, its best that is
    left; 0 takes 1; 1 takes 3. With one query the places are the ranks."""
    cosines = np.array([[0.9, 0.9], [0.8, 0.1], [0.7, 0.5], [0.1, 0.0]])
    assert round_robin(cosines).tolist() == [1, 3, 2, 4]
    assert round_robin(cosines[:, :1]).tolist() == [1, 2, 3, 4]


def test_rds_by_hand():
    """A record that the target's only query equals has cosine 1 and place 1, whatever the vectors' lengths; one without
    a vector has a reason."""
    method = build("method/rds")
    schema = method.passes["states"].schema
    tables = {
        "states": columns(schema, vector=[[0.0, 1.0], [5.0, 0.0], None], flag=[None, None, "empty_answer"]),
        "queries": columns(schema, vector=[[2.0, 0.0]]),
    }
    scores = method.score(tables, RECORDS)
    assert scores.score[:2].tolist() == [2, 1] and not scores.higher_is_better
    assert scores.components["cosine"][:2] == pytest.approx([0, 1]) and scores.flag[2] == "empty_answer"
    nan = float("nan")
    broken = {"states": [[nan, nan], [5.0, 0.0], [0.0, 1.0]], "queries": [[nan, nan], [2.0, 0.0]]}
    scores = method.score({key: columns(schema, vector=rows) for key, rows in broken.items()}, RECORDS)
    assert scores.flag[0] == "non_finite_states" and scores.components["query"][1:].tolist() == [1, 1]
    tables["queries"] = columns(schema, vector=[None], flag=["empty_answer"])
    with pytest.raises(UserError, match="2 records and 0 of the target have a vector"):
        method.score(tables, RECORDS)


column = partial(build, "method/column", column="ifd")


@pytest.fixture
def written(tmp_path):
    """Writes the scores 0.5 of the first record and 2 of the third in every layout; the second is missing."""
    rows = [
        {"instruction": "do", "input": "", "output": one.output, "id": one.id, "row": one.row, "ifd": value}
        for one, value in zip(RECORDS, (0.5, None, 2.0), strict=True)
        if value is not None
    ]
    (tmp_path / "a.json").write_text(json.dumps(rows))
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "a.csv").write_text(
        "id,row,ifd\n" + "\n".join(f"{one['id']},{one['row']},{one['ifd']}" for one in rows)
    )
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    return tmp_path


@pytest.mark.parametrize(
    ("file", "by"), [("a.json", "text"), ("a.jsonl", "id"), ("a.csv", "id"), ("a.csv", "row"), ("a.parquet", "row")]
)
def test_column_finds_records_by_key(written, file, by):
    """0.5 and 2, and null with a reason in between; never a neighbour's."""
    scores = column(path=str(written / file), by=by).score({}, RECORDS)
    assert scores.score[[0, 2]].tolist() == [0.5, 2.0]
    assert scores.flag == [None, "not_in_score_file", None] and scores.higher_is_better


def test_column_takes_the_first_row_of_a_key_and_whole_rows_alone(written):
    """Of two rows of the first record its 0.5 counts, a yes is no number, and row 1.5 is nobody's. The key is a part of
    what the score is."""
    rows = [(RECORDS[0].id, 0, 0.5), (RECORDS[0].id, 0, 9.0), (RECORDS[1].id, 1.5, True), (RECORDS[2].id, 2, 2.0)]
    keys = ("id", "row", "ifd")
    (written / "b.jsonl").write_text("\n".join(json.dumps(dict(zip(keys, row, strict=True))) for row in rows))
    by_id, by_row = (column(path=str(written / "b.jsonl"), by=by) for by in ("id", "row"))
    for one, reason in ((by_id, "no_number_in_score_column"), (by_row, "not_in_score_file")):
        scores = one.score({}, RECORDS)
        assert scores.score[[0, 2]].tolist() == [0.5, 2.0] and scores.flag == [None, reason, None]
    assert describe(column(path=str(written / "b.jsonl"), by="id", key="row")) != describe(by_id)


def test_column_by_order_of_the_pool_and_its_bounds(written):
    """Row 1 of the file is that of record 1, so the third has none. The pool's own column needs no file; what is no
    number is null. Bounds are filters."""
    scores = column(path=str(written / "a.jsonl"), by="order", higher_is_better=False).score({}, RECORDS)
    assert scores.score[:2].tolist() == [0.5, 2.0] and scores.flag[2] == "not_in_score_file"
    assert not scores.higher_is_better
    own = [replace(one, raw={"ifd": value}) for one, value in zip(RECORDS, ("1.5", "n/a", math.inf), strict=True)]
    scores = column().score({}, own)
    assert scores.score[0] == 1.5 and scores.flag[1:] == ["no_number_in_score_column"] * 2
    held = ([1, 2.5, "0.5"], {"a": [4]}, 10**400)
    own = [replace(one, raw={"ifd": {"b": value}, "c.d": 1}) for one, value in zip(RECORDS, held, strict=True)]
    assert column(column="ifd.b").score({}, own).score[0] == 4.0 and column(column="c.d").score({}, own).score[2] == 1
    assert column(column="ifd.b").score({}, own).flag[1:] == ["no_number_in_score_column"] * 2
    assert column(column="ifd.b.a").score({}, own).score[1] == 4
    (rule,) = column(max=1.0).filters
    assert rule.keeps(pa.table({"score": [1.0, 1.1]})).tolist() == [True, False] and not column().filters


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["method.by=row"], "method.by=row finds conversations, .* method.by=id"),
        (["method.by=order"], "method.by=order finds conversations, .* method.by=id"),
        (["method.path=null"], r"method.column=n holds a list for a whole conversation \(row 0\)"),
    ],
)
def test_column_of_conversations_is_refused_where_every_answer_is_a_record(tmp_path, tiny_folder, given, told):
    """Row 0 has two answers, so that record 1 is of row 0, whose number would go to it from row 1. With the ids, or one
    record a row, the parts are built."""
    rows = [{"conversations": ["a", "b", "c", "d"], "n": [1, 2]}, {"conversations": ["e", "f"], "n": [3]}]
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps(one | {"row": i}) for i, one in enumerate(rows)))
    over = ["data=file", f"data.path={tmp_path}/a.jsonl", "method=column", "method.column=n", "stages=[score]"]
    over += [
        f"method.path={tmp_path}/a.jsonl",
        "trainer=cpu",
        f"backbone.name={tiny_folder}",
        f"paths.run={tmp_path}/r",
    ]
    with pytest.raises(UserError, match=told):
        build_parts(config(*over, "data.turns=every", *given))
    assert len(build_parts(config(*over, *given)).pool.records) == 2
    assert len(build_parts(config(*over, "data.turns=every", "method.by=id")).pool.records) == 3


def test_column_is_identified_by_the_files_content(written):
    """Another place is no other score, another content is; a bound changes none."""
    path = written / "a.csv"
    before = describe(column(path=str(path), by="row"))
    copy = path.rename(written / "b.csv")
    assert describe(column(path=str(copy), by="row", max=3.0)) == before
    copy.write_text(copy.read_text().replace("0.5", "0.6"))
    assert describe(column(path=str(copy), by="row")) != before


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"path": "nowhere.csv"}, "method.path=nowhere.csv is no file"),
        ({"by": "x"}, "method.by=x is unknown"),
        ({"path": "a.csv", "by": "row", "column": "q"}, "a.csv has no column `q`; it has id, row, ifd"),
        ({"path": "a.csv", "by": "id", "key": "q"}, "a.csv has no column `q`"),
        ({"path": "a.json", "column": "q"}, "a.json has no column `q`"),
        ({"path": "a.csv"}, "method.by=text reads known schemas; else give id, row or order: a.csv: no known schema"),
        ({"path": "a.csv", "by": "id", "key": "row"}, "none of its 2 keys is one of the pool's"),
        ({"path": "a.json", "column": "output"}, "method.column=output holds no number"),
        ({}, "data=test has no column `ifd`"),
    ],
)
def test_column_wrong_file_column_or_key(written, monkeypatch, given, told):
    monkeypatch.chdir(written)
    with pytest.raises(UserError, match=told):
        column(**given).score({}, RECORDS)
