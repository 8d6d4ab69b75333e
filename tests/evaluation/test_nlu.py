"""Micro-F1 on hand-made cases, and the NLU tasks' way through the harness."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import replace

import pytest
from composed import build, config, template
from tiny import answering, tiny_model

from winnow.data.nlu.datasets import DATASETS
from winnow.data.nlu.instructions import INSTRUCTIONS
from winnow.data.records import Record
from winnow.errors import UserError
from winnow.evaluation.harness import evaluate_model
from winnow.evaluation.items import asked_texts
from winnow.evaluation.model import HarnessModel
from winnow.evaluation.nlu import NluData, micro_f1, prompt_ids, results
from winnow.perturb.noising import Noising, noising_class
from winnow.store.describe import describe


class Several(Noising):
    def __init__(self, times, **shared):
        super().__init__(**shared)
        self.times = times


class Nothing(Noising):
    pass


class Padding(Noising):
    def change(self, words, m, draws, raw):
        return [*words, "x"]


TARGET = "person: Ada Bell; organization: SRI"


def counts(answer: str, target: str = TARGET, dataset: str = "conll03") -> tuple[int, int, int]:
    """(TP, FP, FN)."""
    return results({"dataset": dataset, "target": target}, [answer])["micro_f1"]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (TARGET, (2, 0, 0)),
        ("organization: sri; PERSON: ada bell", (2, 0, 0)),  # order and case
        ("person: Ada Bell; person: Ada Bell; organization: SRI", (2, 0, 0)),  # a repeat counts once
        ("location: Ada Bell; organization: SRI", (1, 1, 1)),  # wrong type: one FP and one FN
        ("person: Bell; organization: SRI", (1, 1, 1)),  # a part of the words
        ("person: Ada Bell", (1, 0, 1)),
        ("none", (0, 0, 2)),
        ("", (0, 0, 2)),
        ("I cannot say", (0, 0, 2)),  # malformed: nothing is found
        ("person: Ada Bell; bla bla; organization", (1, 0, 1)),  # malformed in part
    ],
)
def test_counts_of_one_sample(answer, expected):
    assert counts(answer) == expected


def test_empty_gold_adds_false_positives_only():
    """Nothing to find: finding nothing counts nothing, one invented name is one FP."""
    assert counts("none", "none") == (0, 0, 0)
    assert counts("person: Ada", "none") == (0, 1, 0)
    assert counts("whatever", "none") == (0, 0, 0)


def test_gold_with_separators_in_its_words():
    """An entity `a; b` falls apart when read, in the gold as in the answer: the right answer is still wholly right."""
    assert counts("organization: a; b", "organization: a; b") == (1, 0, 0)


def test_micro_not_macro():
    """Samples (1,0,0) and (1,2,2): micro 2*2 / (2*2 + 2 + 2) = 0.5; the mean of F1s 1 and 1/3 would be 0.667."""
    assert micro_f1([(1, 0, 0), (1, 2, 2)]) == pytest.approx(0.5)
    assert micro_f1([(0, 0, 0), (0, 0, 0)]) == 0.0 and micro_f1([(0, 3, 0)]) == 0.0


def test_for_classes_it_is_the_accuracy():
    """Right, wrong, unreadable and empty answers: one hit of four guesses = 0.25."""
    answers = ["positive", "negative", "no idea", ""]
    found = [counts(answer, "positive", "sst2") for answer in answers]
    assert found == [(1, 0, 0), (0, 1, 1), (0, 1, 1), (0, 1, 1)]
    assert micro_f1(found) == pytest.approx(0.25)


def test_scierc_counts_terms_and_relations_apart():
    """Gold: two terms, one relation. Answer: one term right, relation right, one invented relation."""
    doc = {"dataset": "scierc", "target": "task: a; method: b; used-for: b | a"}
    found = results(doc, ["task: a; used-for: b | a; part-of: a | b"])
    assert found == {"unreadable": 0, "micro_f1": (2, 1, 1), "entity_f1": (1, 0, 1), "relation_f1": (1, 1, 0)}


@pytest.fixture
def folder(tmp_path):
    """Six labelled test sentences, labels 0 and 1 in turn, and two sentences with names."""
    own = tmp_path / "sst2"
    own.mkdir()
    (own / "test.tsv").write_text("sentence\tlabel\n" + "".join(f"film {i}\t{i % 2}\n" for i in range(6)))
    names = tmp_path / "conll2003"
    names.mkdir()
    (names / "eng.testb").write_text("Ada I-PER\nran O\n\nRain O\n")
    return tmp_path


def test_every_base_task_is_there():
    """A task YAML for each data set, greedy, with an end and a limit."""
    from winnow.data.nlu import DATASETS
    from winnow.evaluation.catalogue import leaves

    for name in DATASETS:
        (leaf,) = leaves(f"nlu_{name}")
        assert leaf.config["dataset_name"] == name
        settings = leaf.config["generation_kwargs"]
        assert settings["do_sample"] is False and settings["until"] and 0 < settings["max_gen_toks"] <= 256


def test_through_the_harness(tokenizer, tmp_path, folder, monkeypatch):
    """Always `positive` is right in 3 of 6; of `person: Ada` for two sentences one is a hit and one invented:
    2 / (2 + 1) = 2/3. Prompts are the template's, ending where the answer is glued on."""
    asked = answering(monkeypatch, lambda doc: "positive" if doc["dataset"] == "sst2" else "person: Ada")
    suite = build("evaluation/nlu", name="nlu", datasets=["sst2", "conll03"], path=str(folder), style="concise")
    found = evaluate_model(tiny_model(), tokenizer, suite, template("alpaca"), tmp_path / "out")
    metrics = found["metrics"]
    assert metrics["sst2/micro_f1"] == {
        "value": pytest.approx(0.5),
        "stderr": pytest.approx(math.sqrt(0.25 / 5)),
        "n": 6,
        "higher_is_better": True,
    }
    assert metrics["conll03/micro_f1"]["value"] == pytest.approx(2 / 3)
    assert metrics["conll03/unreadable"]["value"] == 0 and not metrics["conll03/unreadable"]["higher_is_better"]
    assert len(asked) == 8 and all(prompt.endswith("### Response:") for prompt in asked)
    heads = [f"### Instruction:\n{one}\n" for one in INSTRUCTIONS["sst2"]["concise"]]
    films = [prompt for prompt in asked if "Text: film" in prompt]
    assert len(films) == 6 and all(sum(head in prompt for head in heads) == 1 for prompt in films)


def test_the_texts_that_are_asked(folder):
    """The sentences of the test file, without the instruction around them, which the pool's records share."""
    suite = build("evaluation/nlu", name="nlu", datasets=["sst2"], path=str(folder))
    assert list(asked_texts(suite)) == [f"film {i}" for i in range(6)]


def test_under_noise(tokenizer, tmp_path, folder, monkeypatch):
    """A model that is right only where the instruction is clean: 1 there and 0 under each noise. `opposite` has no
    omega and is asked once. The noised instruction stands in the prompt, the context is untouched."""
    suite = build(
        "evaluation/nlu",
        name="nlu_robust",
        datasets=["sst2"],
        path=str(folder),
        noises=["replacement", "opposite"],
        omegas=[0.1, 0.5],
    )
    clean = {record.instruction for record in suite.nlu.records("sst2")}
    asked = answering(monkeypatch, lambda doc: doc["target"] if doc["instruction"] in clean else "no")
    found = evaluate_model(tiny_model(), tokenizer, suite, template("alpaca"), tmp_path / "out")
    values = {key: entry["value"] for key, entry in found["metrics"].items() if key.endswith("micro_f1")}
    assert values == {
        "sst2/clean/micro_f1": 1.0,
        "sst2/replacement@0.1/micro_f1": 0.0,
        "sst2/replacement@0.5/micro_f1": 0.0,
        "sst2/opposite/micro_f1": 0.0,
    }
    assert found["metrics"]["average/sst2/noisy"]["value"] == 0 and set(suite.headline) <= set(found["metrics"])
    assert len(asked) == 24 and sum(any(one in prompt for one in clean) for prompt in asked) == 6
    assert all("Options: negative, positive\nText: film" in prompt for prompt in asked)


def test_prompts_without_gold_answers_and_with_markers(tokenizer):
    """A record without gold text is asked like any other; `<|eos|>` in it is text, here as in the model's batch, where
    the shorter prompt is padded on the left."""
    records = [Record(f"id{i}", i, "Say", given, "", (), "here", {}) for i, given in enumerate(["<|eos|>", "a"])]
    plain = template("plain", max_length=3)
    ids = prompt_ids(records, plain, tokenizer)
    assert [tokenizer.decode(own) for own in ids] == ["Say\n<|eos|>\n", "Say\na\n"]
    assert all(tokenizer.eos_token_id not in own for own in ids)
    texts = [plain.render(record) for record in records]
    model = HarnessModel(tiny_model(), tokenizer, 2, prompts=dict(zip(texts, ids, strict=True)))
    batch, mask = model.tok_batch_encode(texts)
    assert [row[seen.bool()].tolist() for row, seen in zip(batch, mask, strict=True)] == ids
    assert mask[1].tolist() == [0] * (len(ids[0]) - len(ids[1])) + [1] * len(ids[1])


def test_a_question_that_the_chat_template_refuses(tokenizer):
    """One sentence with the record and the reason."""
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.chat_template = "{{ raise_exception('not today') }}"
    with pytest.raises(UserError, match="Record id0 cannot be asked .*not today"):
        prompt_ids([Record("id0", 0, "Say", "a", "b", (), "here", {})], template("chat"), tokenizer)


def test_noise_hangs_on_the_record(folder):
    """Each record its own words, the same in another sample and others by another seed; with draws=2 an instruction has
    at most two."""
    data = NluData(["sst2"], str(folder), noises=["replacement"], omegas=[0.3])
    condition = data.conditions()["sst2/replacement@0.3"]
    records = data.records("sst2")
    noised = {record.id: record.instruction for record in data.noised(records, condition)}
    assert len(set(noised.values())) == 6
    assert [record.instruction for record in data.noised(records[4:], condition)] == list(noised.values())[4:]
    again = NluData(["sst2"], str(folder), noises=["replacement"], omegas=[0.3], noise_seed=1)
    assert [record.instruction for record in again.noised(records, condition)] != list(noised.values())
    few = NluData(["sst2"], str(folder), noises=["replacement"], omegas=[0.3], draws=2)
    alike = [replace(record, instruction=records[0].instruction) for record in records]
    assert len({record.instruction for record in few.noised(alike, condition)}) <= 2


def test_fewer_questions_are_drawn_by_the_seed(folder):
    """3 of 6, always the same ones for one seed; four seeds draw the same three with a chance of 1 in 20^3."""
    drawn = [NluData(["sst2"], str(folder), limit=3, seed=seed).records("sst2") for seed in (0, 0, 1, 2, 3)]
    assert {len(own) for own in drawn} == {3} and drawn[0] == drawn[1]
    assert len({tuple(one.input for one in own) for own in drawn}) > 1


def test_settings_know_the_content_not_the_place(folder, tmp_path):
    """A moved folder has the same settings; a changed file, style or noise has not; other splits do not matter."""

    def settings(path=folder, **options) -> str:
        return json.dumps(
            describe(build("evaluation/nlu", name="nlu", datasets=["sst2"], path=str(path), **options)), sort_keys=True
        )

    before = settings()
    assert before != settings(style="concise") and before != settings(noises=["opposite"])
    moved = tmp_path / "moved"
    (moved / "sst2").mkdir(parents=True)
    (moved / "sst2" / "test.tsv").write_bytes((folder / "sst2" / "test.tsv").read_bytes())
    (moved / "sst2" / "train.tsv").write_text("sentence\tlabel\nx\t0\n")
    assert settings(moved) == before
    (moved / "sst2" / "test.tsv").write_text("sentence\tlabel\nx\t0\n")
    assert settings(moved) != before


def test_settings_know_every_file_the_instructions_and_the_noise(folder, monkeypatch):
    """The file of the second data set, an instruction that is written anew, and a new version of a noise count too."""

    def settings() -> str:
        changes = {"datasets": ["sst2", "conll03"], "path": str(folder), "noises": ["opposite"]}
        return json.dumps(describe(build("evaluation/nlu", name="nlu", **changes)), sort_keys=True)

    found = [settings()]
    (folder / "conll2003" / "eng.testb").write_text("Ada I-PER\nsat O\n")
    found.append(settings())
    monkeypatch.setitem(INSTRUCTIONS["sst2"], "detailed", ("Judge it.",))
    found.append(settings())
    monkeypatch.setattr(noising_class("opposite"), "version", 99)
    found.append(settings())
    assert len(set(found)) == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"datasets": ["sst3"]}, "evaluation.datasets names 'sst3'"),
        ({"datasets": []}, "evaluation.datasets is empty"),
        ({"noises": ["typo"], "omegas": [0.1]}, "Noise 'typo' is unknown"),
        ({"noises": ["padding"]}, "evaluation.omegas is empty"),
        ({"noises": ["padding"], "omegas": [3]}, "omega=3 must be"),
        ({"draws": 0}, "evaluation.draws=0"),
        (
            {"noises": [f"{__name__}.Several"], "omegas": [0.1]},
            r"Several is made .* 'times'\); give its other arguments",
        ),
        ({"noises": [f"{__name__}.Nothing"], "omegas": [0.1]}, "Nothing does not define `change`"),
        (
            {"noises": ["padding", f"{__name__}.Padding"], "omegas": [0.1]},
            "padding and test_nlu.Padding are both called padding",
        ),
    ],
)
def test_wrong_settings_are_named(options, message):
    with pytest.raises(UserError, match=message):
        NluData(**{"datasets": ["sst2"], **options})


def test_a_single_file_is_not_evaluated_by_accident(folder):
    """data.path may be the file that is tuned on; as a path for one data set a file is welcome."""
    file = str(folder / "sst2" / "test.tsv")
    with pytest.raises(UserError, match=r"single file.*evaluation.paths.sst2=<file>"):
        NluData(["sst2"], file).records("sst2")
    assert len(NluData(["sst2"], paths={"sst2": file}).records("sst2")) == 6
    with pytest.raises(UserError, match="nothing says where its data is"):
        NluData(["scierc"]).records("scierc")


def test_every_data_set_has_a_path_and_a_source_of_its_own():
    """The commands that refusals advise, `evaluation.paths.sst2=<file>`, need no `+`; what is not given is no path."""
    places = {f"evaluation.{key}.{name}": f"{key}-{name}" for key in ("paths", "sources") for name in DATASETS}
    given = config("evaluation=nlu", *(f"{key}={value}" for key, value in places.items())).evaluation
    assert {f"evaluation.{key}.{name}": given[key][name] for key in ("paths", "sources") for name in DATASETS} == places
    data = build("evaluation/nlu", "evaluation.paths.sst2=file").nlu
    assert (data.paths, data.sources) == ({"sst2": "file"}, {})


def test_the_hidden_labels_of_sst2(monkeypatch, folder, capsys):
    """The hub's test split of SST-2 has the label -1 everywhere: its validation split is read, before anything is
    tuned, and this is said. Files, another copy and another split are taken as they are named."""
    asked = []

    def rows(name, split):
        asked.append((name, split))
        return [{"sentence": "fine", "label": 1}]

    monkeypatch.setattr("winnow.data.nlu.reading.load_from_hub", rows)
    suite = build("evaluation/nlu", name="nlu", datasets=["sst2", "agnews"], path=None)
    assert "stanfordnlp/sst2, validation" in json.dumps(describe(suite))
    with pytest.raises(UserError, match="ag_?news"):  # these rows are none of AG News: all data sets are read
        suite.check_data()
    build("evaluation/nlu", name="nlu", datasets=["sst2"], path=None).check_data()
    assert set(asked) == {("stanfordnlp/sst2", "validation"), ("fancyzhx/ag_news", "test")}
    said = "sst2: the hub hides the labels of the test split; the validation split is used.\n"
    assert said in capsys.readouterr().out
    for data in (NluData(["sst2"], str(folder)), NluData(["sst2"], sources={"sst2": "me/sst2"})):
        assert data.split_of("sst2") == "test"
    assert NluData(["sst2"], split="train").split_of("sst2") == "train"


@pytest.mark.parametrize("name", ["nlu", "nlu_robust"])
def test_suites_follow_the_runs_data(name):
    """Data set, folder and style are those of `data` unless they are named; each draw has its own seed."""
    suite = build(f"evaluation/{name}", "data=lap14", "data.path=/some/where", "data.style=concise")
    assert (suite.nlu.datasets, suite.nlu.path, suite.nlu.style) == (("lap14",), "/some/where", "concise")
    assert suite.uses_template and len(suite.tasks) == (1 if name == "nlu" else 1 + 5 * 5 + 1)
    drawn = build(f"evaluation/{name}", "data=lap14", sample_seed=3, noise_seed=4).nlu
    assert (drawn.seed, drawn.noise_seed) == (3, 4)
