"""Readers and writers: every format, every schema, and the round trip of a subset."""

from __future__ import annotations

import csv
import dataclasses
import gzip
import inspect
import json
import os
import random
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from composed import build, config
from omegaconf import OmegaConf
from shared_data import shared

from winnow.data.readers import read_pool
from winnow.data.schemas import SCHEMAS
from winnow.data.writers import write_subset
from winnow.errors import UserError

read = partial(build, "data/file")

CONF = Path(__file__).resolve().parents[2] / "conf" / "data"

# Texts that careless splitting, quoting or stripping would change. To str.splitlines, U+2028, U+0085 and form
# feed are line breaks; quotes, commas, CR and LF are CSV's own characters.
HARD = [
    "plain",
    "a\u2028b\u0085c\x0cd",
    'say "no", then\r\nleave\r',
    " \tspace \n",
    "Zürich 漢字 🙂",
    "### Response:\n",
    "\\n",
]


def rows_of(schema: str) -> list[dict]:
    """Six rows in the schema: five that differ, then row 0 again."""
    rows = []
    for i in range(5):
        ask, context, answer, more = (HARD[(i + k) % len(HARD)] for k in range(4))
        rows.append(
            {
                "alpaca": {"instruction": ask, "input": context, "output": answer, "note": more},
                "dolly": {"instruction": ask, "context": context, "response": answer, "category": more},
                "lima": {"conversations": [ask, answer, more, context][: 4 if i % 2 else 2], "source": "s"},
                "sharegpt": {
                    "id": f"c{i}",
                    "conversations": [{"from": "human", "value": ask}, {"from": "gpt", "value": answer}],
                },
                "messages": {
                    "messages": [
                        {"role": "system", "content": more},
                        {"role": "user", "content": ask},
                        {"role": "assistant", "content": answer},
                    ]
                },
                "flan_cot": {"source": "s", "instruction": ask, "rationale": context, "answer": answer},
                "cot_collection": {"source": ask, "target": answer, "rationale": context},
            }[schema]
        )
    return [*rows, rows[0]]


def write(path: Path, rows: list[dict]) -> Path:
    """The rows in the format of the file's ending, by the plainest code that does it."""
    name = path.name
    text = (
        json.dumps(rows)
        if ".json" in name and ".jsonl" not in name
        else "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    )
    if name.endswith(".gz"):
        path.write_bytes(gzip.compress(text.encode()))
    elif name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif name.endswith((".csv", ".tsv")):
        with path.open("w", encoding="utf-8", newline="") as file:
            delimiter = "," if name.endswith(".csv") else "\t"
            writer = csv.DictWriter(file, list(rows[0]), quoting=csv.QUOTE_ALL, delimiter=delimiter)
            writer.writeheader()
            writer.writerows(rows)
    else:
        path.write_text(text, encoding="utf-8", newline="")
    return path


FLAT = ("alpaca", "dolly", "flan_cot", "cot_collection")
FORMATS = ("json", "json.gz", "jsonl", "jsonl.gz", "ndjson", "csv", "tsv", "parquet")
# A table's cell holds no list of turns.
CASES = [(f, s) for f in FORMATS for s in SCHEMAS if f not in ("csv", "tsv") or s in FLAT]


@pytest.mark.parametrize(("format", "schema"), CASES)
def test_every_format_gives_the_same_records(tmp_path, format, schema):
    """The texts are those of the rows, whichever format carried them; row 5 repeats row 0: one duplicate."""
    rows = rows_of(schema)
    pool = read(source=write(tmp_path / f"pool.{format}", rows))
    assert (pool.schema, pool.format, len(pool.records), pool.duplicates) == (schema, format, 6, 1)
    assert [record.row for record in pool.records] == list(range(6))
    assert [dict(record.raw) for record in pool.records] == rows
    assert [tuple(SCHEMAS[schema].read(row)) for row in rows] == [
        (record.instruction, record.input, record.output, record.turns) for record in pool.records
    ]


@pytest.mark.parametrize(("format", "schema"), CASES)
def test_a_subset_comes_back_in_its_schema_and_format(tmp_path, format, schema):
    """Records 4, 1, 5 are written in that order, with every original column, and come back with their ids."""
    pool = read(source=write(tmp_path / f"pool.{format}", rows_of(schema)))
    path = write_subset(pool, [4, 1, 5], tmp_path / "out")
    assert path == tmp_path / "out" / f"subset.{format}"
    assert os.listdir(path.parent) == [path.name]
    back = read(source=path)
    assert (back.schema, back.format) == (schema, format)
    assert [record.id for record in back.records] == [pool.records[i].id for i in (4, 1, 5)]
    assert [dict(record.raw) for record in back.records] == [dict(pool.records[i].raw) for i in (4, 1, 5)]


@pytest.mark.parametrize("format", ["jsonl", "csv", "parquet"])
def test_random_texts_survive_the_round_trip(tmp_path, format):
    """300 texts drawn from characters that mean something to one format or another come back unchanged."""
    draw = random.Random(0)
    alphabet = "ab,;\"'\\\n\r\t \u0000\u0085\u2028\ufeff\u00e9\U0001f642{}[]:#"
    texts = ["".join(draw.choices(alphabet, k=draw.randint(1, 12))) for _ in range(300)]
    rows = [{"instruction": text, "output": text[::-1]} for text in texts]
    pool = read(source=write(tmp_path / f"pool.{format}", rows))
    back = read(source=write_subset(pool, list(range(300)), tmp_path / "out"))
    assert [record.instruction for record in back.records] == texts
    assert back.fingerprint == pool.fingerprint


def test_ids_do_not_depend_on_order_or_format(tmp_path):
    rows = rows_of("alpaca")
    forward = read(source=write(tmp_path / "a.jsonl", rows))
    backward = read(source=write(tmp_path / "b.json", rows[::-1]))
    assert [r.id for r in forward.records] == [r.id for r in backward.records][::-1]
    assert forward.fingerprint == backward.fingerprint


def test_a_json_object_keeps_its_other_keys(tmp_path):
    path = tmp_path / "pool.json"
    path.write_text(json.dumps({"version": "1", "data": rows_of("alpaca"), "end": 2}))
    pool = read(source=path)
    assert len(pool.records) == 6
    subset = json.loads(write_subset(pool, [2], tmp_path / "out").read_text(encoding="utf-8"))
    assert list(subset) == ["version", "data", "end"]
    assert subset["data"] == [rows_of("alpaca")[2]]


def test_json_subsets_are_readable_by_people(tmp_path):
    """Two spaces of indent, and characters as themselves instead of escapes."""
    pool = read(source=write(tmp_path / "pool.json", [{"instruction": "漢字", "output": "b"}]))
    text = write_subset(pool, [0], tmp_path).read_text(encoding="utf-8")
    assert text == '[\n  {\n    "instruction": "漢字",\n    "output": "b"\n  }\n]\n'


def test_parquet_keeps_its_types(tmp_path):
    """int8, a dictionary-coded text and nanoseconds would all change if types were guessed anew."""
    schema = pa.schema(
        [
            ("instruction", pa.large_string()),
            ("output", pa.string()),
            ("score", pa.int8()),
            ("kind", pa.dictionary(pa.int32(), pa.string())),
            ("at", pa.timestamp("ns")),
        ]
    )
    table = pa.table([["a", "b", "c"], ["x", "y", "z"], [1, None, 3], ["k", "k", "l"], [7, 8, 9]], schema=schema)
    pq.write_table(table, tmp_path / "pool.parquet")
    path = write_subset(read(source=tmp_path / "pool.parquet"), [2, 1], tmp_path / "out")
    assert pq.ParquetFile(path).read() == table.take([2, 1])


def test_a_gzip_subset_is_the_same_file_each_time(tmp_path):
    """gzip's header holds a time and a name unless told otherwise."""
    pool = read(source=write(tmp_path / "pool.jsonl.gz", rows_of("alpaca")))
    first = write_subset(pool, [1], tmp_path / "one").read_bytes()
    assert write_subset(pool, [1], tmp_path / "two").read_bytes() == first
    assert first[4:8] == b"\0\0\0\0"  # RFC 1952: MTIME


@pytest.mark.parametrize("format", ["json", "jsonl", "csv"])
def test_a_byte_order_mark_is_accepted(tmp_path, format):
    path = write(tmp_path / f"pool.{format}", rows_of("alpaca"))
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    pool = read(source=path)
    assert (len(pool.records), pool.quarantined) == (6, [])
    assert list(pool.records[0].raw) == ["instruction", "input", "output", "note"]


def test_windows_line_ends_and_blank_lines_are_no_rows(tmp_path):
    lines = [json.dumps(row) for row in rows_of("alpaca")[:2]]
    path = tmp_path / "pool.jsonl"
    path.write_bytes(f"{lines[0]}\r\n\r\n  \n{lines[1]}".encode())
    pool = read(source=path)
    assert [record.row for record in pool.records] == [0, 1]
    assert pool.quarantined == []


@pytest.mark.parametrize("format", FORMATS)
def test_limit_is_the_first_good_records(tmp_path, format):
    """Of rows good, bad (empty), good, good, a limit of 2 gives rows 0 and 2; row 3 is not looked at."""
    good = [{"instruction": f"i{n}", "input": "", "output": "o"} for n in range(3)]
    rows = [good[0], {"instruction": "", "input": "", "output": "o"}, good[1], good[2]]
    pool = read(source=write(tmp_path / f"pool.{format}", rows), limit=2)
    assert [record.row for record in pool.records] == [0, 2]
    assert [bad.row for bad in pool.quarantined] == [1]


@pytest.mark.parametrize("format", ["jsonl", "csv"])
def test_limit_stops_reading(tmp_path, format):
    """30 good rows, more than detection looks at, then a broken one: with limit=25 it is never reached."""
    path = write(tmp_path / f"pool.{format}", [{"instruction": f"i{n}", "output": "o"} for n in range(30)])
    path.write_bytes(path.read_bytes() + b'"broken\n')
    assert len(read(source=path, limit=25, on_error="fail").records) == 25
    with pytest.raises(UserError, match="line 31" if format == "jsonl" else "line 32"):
        read(source=path, on_error="fail")


@pytest.mark.parametrize("ending", ["csv", "tsv"])
def test_the_lines_that_an_open_quote_takes_along_are_named(tmp_path, ending):
    """The quote of line 3 is closed by that of line 5; line 6 is read again."""
    path, mark = tmp_path / f"a.{ending}", {"csv": ",", "tsv": "\t"}[ending]
    path.write_text('instruction,output\na,b\n"c,d\ne,f\n"g",h\ni,j\n'.replace(",", mark))
    pool = read(source=path)
    assert [record.instruction for record in pool.records] == ["a", "i"]
    (bad,) = pool.quarantined
    assert (
        bad.line == 3 and bad.reason.startswith("wrong CSV: ") and "(lines 3 to 5 were read as one row)" in bad.reason
    )


def test_a_named_schema_reads_what_detection_would_not_choose(tmp_path):
    """Three Alpaca rows and one of Dolly: read as Alpaca, the Dolly row is refused and the run goes on."""
    rows = [*rows_of("alpaca")[:3], rows_of("dolly")[3]]
    path = write(tmp_path / "pool.jsonl", rows)
    pool = read(source=path, schema="alpaca")
    assert (len(pool.records), [bad.row for bad in pool.quarantined]) == (3, [3])
    with pytest.raises(UserError, match="mixes schemas"):
        read(source=path)


def test_a_formula_in_a_subset_stays_as_it_is(tmp_path):
    """What a spreadsheet would compute is data here: the file that is written back has the bytes that were read."""
    rows = [{"instruction": "=1+1", "input": "", "output": "@a"}, {"instruction": "-x", "input": "", "output": "+1"}]
    path = tmp_path / "pool.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    assert write_subset(read(source=path), [0, 1], tmp_path / "out").read_text() == path.read_text()


def test_columns_name_the_fields_of_an_unknown_schema(tmp_path):
    path = write(tmp_path / "pool.csv", [{"q": "ask", "a": "answer", "extra": "e"}])
    columns = {"instruction": "q", "output": "a"}
    pool = read(source=path, columns=columns)
    assert (pool.schema, pool.records[0].instruction, pool.records[0].output) == ("columns", "ask", "answer")
    back = read(source=write_subset(pool, [0], tmp_path / "out"), columns=columns)
    assert back.records[0].raw == {"q": "ask", "a": "answer", "extra": "e"}
    with pytest.raises(UserError, match="maps output to `reply`, but the columns are q, a, extra"):
        read(source=path, columns={"instruction": "q", "output": "reply"})
    with pytest.raises(UserError, match="exclude each other"):
        read(source=path, columns=columns, schema="alpaca")


def test_an_optional_column_may_occur_late(tmp_path):
    """30 rows, of which the last alone has `s`, after the 20 that settle the schema; what no row has is refused, also
    where a limit of 25 records ends before the last row."""
    rows = [{"q": f"ask {i}", "a": "answer"} for i in range(30)]
    path = write(tmp_path / "pool.jsonl", [*rows[:-1], rows[-1] | {"s": "Be brief."}])
    columns = {"instruction": "q", "output": "a", "system": "s"}
    assert read(source=path, columns=columns).records[29].turns == (("system", "Be brief."),)
    assert len(read(source=path, columns=columns, limit=25).records) == 25
    with pytest.raises(UserError, match="maps system to `sys`, but the columns are q, a, s"):
        read(source=path, columns=columns | {"system": "sys"}, limit=25)


def test_path_replaces_the_source_which_names_the_pool(tmp_path):
    path = write(tmp_path / "pool.jsonl", rows_of("alpaca"))
    pool = read(source="tatsu-lab/alpaca", path=path)
    assert (pool.source, pool.format, pool.records[0].source) == ("tatsu-lab/alpaca", "jsonl", "tatsu-lab/alpaca")
    assert read(source=None, path=path).source == str(path)


def test_a_hub_data_set_is_read_and_its_subset_is_json_lines(tmp_path, monkeypatch):
    """`datasets.load_dataset` is asked for the name and the split; its rows become records."""
    import datasets

    asked = []

    def load_dataset(name, split):
        asked.append((name, split))
        return datasets.Dataset.from_list(rows_of("lima"))

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.chdir(tmp_path)
    pool = read(source="GAIR/lima", split="test")
    assert asked == [("GAIR/lima", "test")]
    assert (pool.format, pool.schema, pool.source, len(pool.records)) == ("hub", "lima", "GAIR/lima", 6)
    back = read(source=write_subset(pool, [3, 0], tmp_path))
    assert (back.format, [r.id for r in back.records]) == ("jsonl", [pool.records[3].id, pool.records[0].id])


@pytest.mark.parametrize(
    "refusal",
    [
        RuntimeError("Dataset scripts are no longer supported, but found lima.py"),
        ValueError("Couldn't find cache for GAIR/lima for config 'default'"),
    ],
)
def test_a_hub_data_set_that_is_a_script_is_read_from_the_hubs_parquet_copy(refusal, monkeypatch, tmp_path):
    """Of the only configuration, or of the one that is asked for: `datasets` would mix several. The only one is asked
    for without a folder, as `datasets` finds what it has of a folder under no other question, and then says so."""
    import datasets
    from huggingface_hub import hf_api

    asked = []

    def load_dataset(path, split, revision=None, **given):
        asked.append((revision, *given.items()))
        if revision is None:
            raise refusal
        return datasets.Dataset.from_list(rows_of("lima"))

    class Hub:
        def list_repo_tree(self, name, repo_type, revision):
            assert (repo_type, revision) == ("dataset", "refs/convert/parquet")
            folders = {"GAIR/lima": ["plain"], "GAIR/two": ["en", "fr"]}[name]
            return [hf_api.RepoFolder(path=one, oid="0") for one in folders]

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(hf_api, "HfApi", Hub)
    monkeypatch.chdir(tmp_path)
    for chosen, named, folder in ((None, (), ()), ("plain", [("name", "plain")], [("data_dir", "plain")])):
        asked.clear()
        assert len(read(source="GAIR/lima", config=chosen).records) == 6
        assert asked == [(None, *named), ("refs/convert/parquet", *folder)]
    with pytest.raises(UserError, match=r"configs: \['en', 'fr'\], with data.config=NAME"):
        read(source="GAIR/two")


def test_the_configurations_of_a_hub_data_set_are_listed(monkeypatch, tmp_path):
    """The sentence of `datasets` has the list on its second line."""
    import datasets

    def load_dataset(name, split):
        raise ValueError(
            "Config name is missing.\nPlease pick one among the available configs: ['main', 'socratic']\n.."
        )

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"configs: \['main', 'socratic'\], with data.config=NAME"):
        read(source="openai/gsm8k")


def test_pictures_of_a_hub_data_set_are_not_decoded(monkeypatch, tmp_path):
    """The bytes are no picture, so that decoding them would raise; alone and in a list, the place stays and they do
    not."""
    import datasets

    features = {"instruction": datasets.Value("string"), "output": datasets.Value("string")}
    features |= {"one": datasets.Image(), "all": datasets.List(datasets.Image())}
    picture = {"bytes": b"\xff", "path": "a.png"}
    rows = [{"instruction": "What?", "output": "A cat.", "one": picture, "all": [picture, picture]}] * 150
    loaded = datasets.Dataset.from_list(rows, features=datasets.Features(features))
    monkeypatch.setattr(datasets, "load_dataset", lambda name, split: loaded)
    monkeypatch.chdir(tmp_path)
    pool = read(source="me/seen")
    place = {"bytes": None, "path": "a.png"}
    assert [record.row for record in pool.records] == list(range(150))
    assert pool.records[0].raw == {"instruction": "What?", "output": "A cat.", "one": place, "all": [place, place]}
    assert pool.unread == ("one", "all")


def test_the_embedded_pool_has_its_labels():
    """The pool that comes with the package is Alpaca with two columns more, without bad rows or repeats: 380 records,
    of which 76, a fifth, have a defect."""
    pool = read(source="embedded")
    assert (pool.schema, pool.format, pool.quarantined, pool.duplicates) == ("alpaca", "jsonl", [], 0)
    assert len(pool.records) == 380 and sum(record.raw["defect"] is not None for record in pool.records) == 76
    assert all({"category", "defect"} <= set(record.raw) for record in pool.records)


@pytest.mark.parametrize("name", [p.stem for p in sorted(CONF.glob("[!_]*.yaml")) if "- _pool" in p.read_text()])
def test_every_preset_gives_each_argument_of_read_pool(name):
    preset = OmegaConf.to_container(config(f"data={name}").data)
    assert preset.pop("_target_") == "winnow.data.readers.read_pool"
    assert set(preset) == set(inspect.signature(read_pool).parameters)
    assert preset["schema"] in ("auto", *SCHEMAS)


def test_a_pool_prints_without_its_table(tmp_path):
    """`layout` may be a whole Parquet table; it stays out of repr and of comparisons."""
    pool = read(source=write(tmp_path / "pool.parquet", rows_of("alpaca")))
    assert "layout" not in repr(pool)
    assert pool == dataclasses.replace(pool, layout=None)


@pytest.mark.parametrize(
    ("file", "schema", "format", "count", "multi"),
    [
        ("alpaca_data.json", "alpaca", "json", 52_002, 0),
        ("dolly_15k_en.jsonl", "dolly", "jsonl", 15_015, 0),
        ("lima_train.jsonl", "lima", "jsonl", 1_030, 30),
        ("flan_cot.jsonl", "flan_cot", "jsonl", 33_443, 0),
    ],
)
def test_real_pools_are_read_whole(tmp_path, file, schema, format, count, multi):
    """Record counts are those that the data's authors publish; LIMA: 1,000 single-turn and 30 multi-turn."""
    pool = read(source=shared(f"data/pools/{file}"))
    assert (pool.schema, pool.format, len(pool.records), pool.quarantined) == (schema, format, count, [])
    assert sum(bool(record.turns) for record in pool.records) == multi
    texts = {(r.instruction, r.input, r.output, r.turns) for r in pool.records}
    assert pool.duplicates == count - len(texts)
    chosen = list(range(count - 1, 0, -97))
    back = read(source=write_subset(pool, chosen, tmp_path))
    assert [record.id for record in back.records] == [pool.records[i].id for i in chosen]
    assert [record.raw for record in back.records] == [pool.records[i].raw for i in chosen]


def test_alpaca_has_28_empty_answers():
    """Alpaca's 28 records with an empty output are records like any other: scoring flags them."""
    pool = read(source=shared("data/pools/alpaca_data.json"))
    assert sum(record.output == "" for record in pool.records) == 28


def test_a_sample_belongs_to_the_seed_and_the_records(tmp_path):
    """10 of 40 records, in file order, whatever the order of the file; a smaller sample is a part of it, another seed
    draws others, and `limit` comes first: of 12 records, 10 are drawn."""
    rows = [{"instruction": f"question {i}", "output": f"answer {i}"} for i in range(40)]
    one, turned = tmp_path / "one.jsonl", tmp_path / "turned.jsonl"
    one.write_text("\n".join(map(json.dumps, rows)))
    turned.write_text("\n".join(map(json.dumps, rows[::-1])))

    def ids(path, **options):
        return [record.id for record in read(source=path, **options).records]

    drawn = ids(one, sample=10)
    assert len(drawn) == 10 and drawn == [record for record in ids(one) if record in drawn]
    assert ids(turned, sample=10) == drawn[::-1]
    assert set(ids(one, sample=4)) < set(drawn) != set(ids(one, sample=10, seed=1))
    assert len(ids(one, sample=10, limit=12)) == 10 and set(ids(one, sample=10, limit=12)) < set(ids(one, limit=12))
    assert ids(one, sample=50) == ids(one)
    with pytest.raises(UserError, match="data.sample=0 is out of range"):
        read(source=one, sample=0)
