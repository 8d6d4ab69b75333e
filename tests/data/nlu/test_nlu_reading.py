"""From a folder or the hub to a pool: splits, styles, samples, subsets."""

from __future__ import annotations

import inspect
import json
from functools import partial

import pytest
from composed import build, config
from omegaconf import OmegaConf

from winnow.data.nlu import DATASETS, read_nlu
from winnow.data.nlu.instructions import INSTRUCTIONS, OPPOSITE, STYLES
from winnow.data.writers import write_subset
from winnow.errors import UserError

read = partial(build, "data/sst2")


def sst2_rows(count: int, start: int = 0) -> str:
    return "sentence\tlabel\n" + "".join(f"film number {i}\t{i % 2}\n" for i in range(start, start + count))


@pytest.fixture
def folder(tmp_path):
    """<folder>/sst2 with 40, 4 and 6 rows."""
    own = tmp_path / "data" / "sst2"
    own.mkdir(parents=True)
    (own / "train.tsv").write_text(sst2_rows(40))
    (own / "dev.tsv").write_text(sst2_rows(4, 100))
    (own / "test.tsv").write_text(sst2_rows(6, 200))
    (own / "README.md").write_text("no data")
    return tmp_path / "data"


def test_every_data_set_has_its_texts():
    """Two styles of eight instructions each, the shortest detailed one at least three times as long as the longest
    concise one; opposite ones that differ from all. The lengths of a style differ: see test_distortion."""
    assert set(INSTRUCTIONS) == set(OPPOSITE) == set(DATASETS)
    for name, texts in INSTRUCTIONS.items():
        assert tuple(texts) == STYLES
        assert all(len(set(own)) == 8 for own in texts.values())
        detailed, concise = ([len(text.split()) for text in texts[style]] for style in STYLES)
        assert (
            min(detailed) >= 3 * max(concise) and min(concise) >= 5 and min(len(set(detailed)), len(set(concise))) > 2
        )
        assert len(set(OPPOSITE[name])) >= 4 and not set(OPPOSITE[name]) & {*texts["detailed"], *texts["concise"]}


@pytest.mark.parametrize("name", list(DATASETS))
def test_every_data_set_has_its_yaml(name):
    """conf/data/<name>.yaml gives every argument of `read_nlu`, and names the data set as the file is named."""
    preset = OmegaConf.to_container(config(f"data={name}").data)
    assert preset.pop("_target_") == "winnow.data.nlu.read_nlu"
    assert set(preset) == set(inspect.signature(read_nlu).parameters) and preset["dataset"] == name


def test_several_data_sets_are_one_pool(folder):
    """SST-2 as it is read alone, then 14Lap's two sentences; rows are numbered through, and limit holds for each."""
    own = folder / "14lap"
    own.mkdir()
    lines = [f"Nice screen {n}####[([1], [0], 'POS')]" for n in range(2)]
    (own / "train_triplets.txt").write_text("\n".join(lines) + "\n")
    pool = build("data/nlu_tasks", dataset=["sst2", "lap14"], path=folder)
    alone = read(path=folder)
    assert [one.id for one in pool.records[:40]] == [one.id for one in alone.records] and len(pool.records) == 42
    assert [one.row for one in pool.records] == list(range(42)) and pool.records[41].output == "positive: screen | Nice"
    few = build("data/nlu_tasks", dataset=["sst2", "lap14"], path=folder, limit=1)
    assert [one.raw["dataset"] for one in few.records] == ["sst2", "lap14"]
    with pytest.raises(UserError, match=r"data\.dataset is empty"):
        build("data/nlu_tasks", dataset=[], path=folder)
    with pytest.raises(UserError, match="is a single file"):
        build("data/nlu_tasks", dataset=["sst2"], path=own / "train_triplets.txt")


@pytest.mark.parametrize(("split", "count"), [("train", 40), ("validation", 4), ("test", 6)])
def test_folders_and_splits(folder, split, count):
    """The folder of the data set and the one above it give the same records; `dev` is the validation split."""
    above, own = (read(dataset="sst2", path=path, split=split) for path in (folder, folder / "sst2"))
    assert len(above.records) == count and above.fingerprint == own.fingerprint


def test_missing_and_ambiguous_files_are_named(folder):
    with pytest.raises(UserError, match=r"no file of the split test of conll03: .*test, testb.*conll2003"):
        read(dataset="conll03", path=folder, split="test")
    (folder / "sst2" / "train_part2.tsv").write_text(sst2_rows(2))
    with pytest.raises(UserError, match=r"several files of the split train \(train.tsv, train_part2.tsv\)"):
        read(dataset="sst2", path=folder)
    with pytest.raises(UserError, match="does not exist"):
        read(dataset="sst2", path=folder / "absent")
    with pytest.raises(UserError, match="data=scierc names no place"):
        read(dataset="scierc")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dataset": "sst3"}, "data.dataset=sst3"),
        ({"style": "long"}, "data.style=long"),
        ({"split": "dev"}, "data.split=dev"),
        ({"limit": 0}, "data.limit=0"),
        ({"on_error": "skip"}, "data.on_error=skip"),
    ],
)
def test_wrong_settings_are_named(folder, options, message):
    with pytest.raises(UserError, match=message):
        read(**{"dataset": "sst2", "path": folder, **options})


def test_styles_change_the_instruction_alone(folder):
    detailed, concise = (read(dataset="sst2", path=folder, style=style).records for style in STYLES)
    assert [record.input for record in detailed] == [record.input for record in concise]
    for style, records in zip(STYLES, (detailed, concise), strict=True):
        assert {record.instruction for record in records} == set(INSTRUCTIONS["sst2"][style])


def test_the_instruction_is_drawn_by_the_text(folder):
    """40 records get all of 8 instructions (one is missed with a chance of 8 (7/8)^40 = 4%; these texts are fixed), a
    record the same one when the file is another: `train` and a file of its last 20 rows, with the other labels."""
    whole = {one.input: one.instruction for one in read(dataset="sst2", path=folder).records}
    assert len(set(whole.values())) == 8
    rows = "".join(f"film number {i}\t{1 - i % 2}\n" for i in range(20, 40))
    (folder / "part.tsv").write_text(f"sentence\tlabel\n{rows}")
    part = {one.input: one.instruction for one in read(dataset="sst2", path=folder / "part.tsv").records}
    assert part and all(whole[text] == instruction for text, instruction in part.items() if text in whole)


def test_a_limit_draws_the_same_records_in_both_styles(folder):
    """10 of 40 by seed, in file order; the 5 of the same seed are among them; another seed draws others."""
    rows = [record.row for record in read(dataset="sst2", path=folder, limit=10).records]
    assert len(rows) == 10 and rows == sorted(rows) and rows != list(range(10))
    assert rows == [record.row for record in read(dataset="sst2", path=folder, limit=10, style="concise").records]
    assert {record.row for record in read(dataset="sst2", path=folder, limit=5).records} < set(rows)
    assert rows != [record.row for record in read(dataset="sst2", path=folder, limit=10, seed=1).records]


def test_a_subset_is_alpaca_json_lines_that_still_tell_their_data_set(folder, tmp_path):
    """Written and read again as Alpaca rows: same ids, same texts, and the row's `dataset` for the noises."""
    pool = read(dataset="sst2", path=folder)
    path = write_subset(pool, [3, 1], tmp_path / "out")
    back = build("data/file", source=None, path=path)
    assert (path.name, back.schema) == ("subset.jsonl", "alpaca")
    assert [record.id for record in back.records] == [pool.records[3].id, pool.records[1].id]
    assert json.loads(path.read_text().split("\n")[0])["original"] == {"sentence": "film number 3", "label": "1"}
    assert {record.raw["dataset"] for record in back.records} == {"sst2"}


def test_repeats_are_kept_and_counted(tmp_path):
    (tmp_path / "train.tsv").write_text("sentence\tlabel\na\t1\nb\t0\na\t1\n")
    pool = read(dataset="sst2", path=tmp_path)
    assert (len(pool.records), pool.duplicates) == (3, 1)


def test_the_hub_copy(monkeypatch):
    """Class numbers become the names that the hub's description gives: 1 is B-PER here, 0 negative there."""
    import datasets

    tags = datasets.Sequence(datasets.ClassLabel(names=["O", "B-PER", "I-PER"]))
    names = datasets.Features({"tokens": datasets.Sequence(datasets.Value("string")), "ner_tags": tags})
    labels = datasets.Features(
        {"sentence": datasets.Value("string"), "label": datasets.ClassLabel(names=["negative", "positive"])}
    )
    served = {
        "eriktks/conll2003": datasets.Dataset.from_list(
            [{"tokens": ["Ada", "B", "ran"], "ner_tags": [1, 2, 0]}], features=names
        ),
        "me/sst2": datasets.Dataset.from_list(
            [{"sentence": "dull", "label": 0}, {"sentence": "?", "label": -1}], features=labels
        ),
    }
    monkeypatch.setattr(datasets, "load_dataset", lambda name, split: served[name])
    assert [record.output for record in read(dataset="conll03").records] == ["person: Ada B"]
    pool = read(dataset="sst2", source="me/sst2", split="test")
    assert [record.output for record in pool.records] == ["negative"]
    assert "split=validation" in pool.quarantined[0].reason and pool.quarantined[0].line is None


def test_every_other_answer_may_take_the_place(folder):
    """Of four classes each of the three others stands in the place of some."""
    own = folder / "agnews"
    own.mkdir()
    (own / "train.tsv").write_text(
        "".join(f"news {i}\t{('World', 'Sports', 'Business', 'Sci/Tech')[i % 4]}\n" for i in range(80))
    )
    clean, found = (build("data/agnews", path=folder, swapped=share) for share in (0.0, 0.9))
    swaps = {(old.output, new.output) for old, new in zip(clean.records, found.records, strict=True)}
    assert len({pair for pair in swaps if len(set(pair)) == 2}) == 4 * 3


def test_swapped_answers_are_labelled(folder):
    """A quarter of 40 records, 10, get the other of the two classes; text, row and the other 30 stay. The draw is that
    of the seed, and the subset is written with the wrong answer."""
    clean, found = (build("data/sst2", path=folder, swapped=share) for share in (0.0, 0.25))
    pairs = list(zip(clean.records, found.records, strict=True))
    assert {one.raw["defect"] for one in clean.records} == {None}
    assert [new.raw["defect"] for old, new in pairs if old.output != new.output] == ["swapped"] * 10
    assert sum(new.raw["defect"] is not None for _, new in pairs) == 10
    assert all((old.input, old.row) == (new.input, new.row) and new.raw["output"] == new.output for old, new in pairs)
    assert len({record.id for record in found.records}) == 40
    again, other = (build("data/sst2", path=folder, swapped=0.25, seed=seed) for seed in (0, 1))
    assert again.fingerprint == found.fingerprint != other.fingerprint
    with pytest.raises(UserError, match=r"data.swapped=1.5 is out of range"):
        build("data/sst2", path=folder, swapped=1.5)
    (folder / "sst2" / "train.tsv").write_text(sst2_rows(100))
    more = build("data/sst2", path=folder, swapped=0.29)
    assert sum(record.raw["defect"] is not None for record in more.records) == 29
