"""The sampling pass: answers as a property of the record, what counts as an answer, and parity with the published
way."""

from __future__ import annotations

import copy
import random
from dataclasses import replace
from functools import partial

import numpy as np
import pyarrow as pa
import pytest
import torch
from composed import build, template
from tiny import tiny_model, tiny_tokenizer
from tiny_passes import TRAINER, Loaded, compute, make_records, record, sharper
from transformers import OPTConfig, OPTForCausalLM

from winnow.backbone.generation import Answer
from winnow.backbone.loading import Backbone
from winnow.errors import UserError
from winnow.scoring.methods.adg import gram_geometry
from winnow.scoring.passes import sampling
from winnow.scoring.passes.sampling import _SamplingModule, authors_vectors, gram, token_weight
from winnow.scoring.runner import PassRunner
from winnow.store.artifacts import Store
from winnow.store.describe import describe

adg = partial(build, "method/adg")

SMALL = adg(answers=3, temperature=1.0, max_new_tokens=6, tokens_per_batch=10_000).sampling
FLAGS = {5: "empty_answer", 7: "prompt_fills_window", 9: "empty_instruction_and_input"}


@pytest.fixture
def records():
    return make_records(16)


@pytest.fixture
def backbone(tokenizer):
    """Four blocks, and an end token in every nine tokens, so that some answers end early."""
    model = tiny_model(layers=4)
    model.generation_config.eos_token_id = list(range(2, 259, 9))
    return sharper(Backbone(model, tokenizer, {"name": "tiny", "tokenizer": "bytes"}, "tiny"))


def rows(table):
    columns = {name: table.column(name) for name in SMALL.schema.names}
    return pa.table(columns).to_pylist()


def columns(table):
    found = rows(table)
    return found, [np.array(row.pop("gram")) for row in found]


def test_columns(backbone, records, tmp_path):
    """K entries per record and K x K products, those of unusable answers 0; flagged records have none. The text is what
    the tokens say, so its bytes are as many (one token per byte, but for a byte that is no UTF-8 by itself)."""
    table = compute(backbone, records, tmp_path, SMALL)
    assert {i: flag for i, flag in enumerate(table.flags()) if flag} == FLAGS
    for i, row in enumerate(rows(table)):
        if i in FLAGS:
            assert row["answers"] == [] == row["gram"] and row["prompt_tokens"] is None
            continue
        assert len(row["answers"]) == len(row["tokens"]) == len(row["finish"]) == len(row["usable"]) == 3
        products = np.array(row["gram"]).reshape(3, 3)
        usable = np.array(row["usable"])
        assert np.allclose(products, products.T) and ((np.diag(products) > 0) == usable).all()
        assert (products[~usable] == 0).all()
        for text, count, finish, ok in zip(row["answers"], row["tokens"], row["finish"], row["usable"], strict=True):
            assert finish == ("length" if count == 6 else finish) and (ok or not text.strip())
            assert len(text) <= count


def test_batch_order_and_resume_do_not_matter(backbone, records, tmp_path):
    """fp32: batches of one, of many, and the records shuffled: the same texts, counts and ends; products to 1e-5."""
    one, few = columns(compute(backbone, records, tmp_path / "a", replace(SMALL, tokens_per_batch=1)))
    torch.manual_seed(99)
    two, many = columns(compute(backbone, records, tmp_path / "b", SMALL))
    order = random.Random(1).sample(range(len(records)), len(records))
    three, moved = columns(compute(backbone, [records[i] for i in order], tmp_path / "c", SMALL))
    assert one == two and [one[i] for i in order] == three
    for i, own in enumerate(few):
        assert np.allclose(own, many[i], atol=1e-5) and np.allclose(own, moved[order.index(i)], atol=1e-5)


def test_another_seed_draws_other_answers(backbone, records, tmp_path):
    """Of three records, three answers each at temperature 1."""
    one, other = (
        compute(backbone, records[:3], tmp_path, replace(SMALL, seed=seed)).column("answers") for seed in (0, 1)
    )
    assert one != other


def test_budget_is_no_part_of_the_fingerprint(backbone, records, tmp_path):
    """A changed batch size finds the finished pass; a changed temperature does not."""
    runner = PassRunner(Loaded(backbone), Store(tmp_path), TRAINER)
    for pass_ in (SMALL, replace(SMALL, tokens_per_batch=1), replace(SMALL, temperature=0.5)):
        runner.compute(pass_, records[:4], template("alpaca"))
    assert len(runner.computed) == 2 and runner.used[0] == runner.used[1]


def test_resumes_where_it_stopped(backbone, records, tmp_path, monkeypatch):
    """Killed in the third batch: the next start asks the engine only for records that no part on disk holds, and ends
    with the columns of an undisturbed run."""
    whole = columns(compute(backbone, records, tmp_path / "whole", SMALL))
    asked, real = [], _SamplingModule.predict_step

    def killed(self, batch, index):
        if index == 2:
            raise KeyboardInterrupt
        return real(self, batch, index)

    runner = PassRunner(Loaded(backbone), Store(tmp_path / "killed"), TRAINER, flush_seconds=0)
    monkeypatch.setattr(_SamplingModule, "predict_step", killed)
    with pytest.raises(BaseException):  # noqa: B017, PT011  (Lightning turns an interrupt into an exit)
        runner.compute(replace(SMALL, tokens_per_batch=600), records, template("alpaca"))

    def counted(self, batch, index):
        asked.extend(row["id"] for row in batch["columns"])
        return real(self, batch, index)

    monkeypatch.setattr(_SamplingModule, "predict_step", counted)
    runner = PassRunner(Loaded(backbone), Store(tmp_path / "killed"), TRAINER)
    again = columns(runner.compute(SMALL, records, template("alpaca")))
    assert 0 < len(asked) < len(records) - len(FLAGS) and again[0] == whole[0]


def test_temperature_zero_scores_zero(backbone, records, tmp_path):
    """All answers of a record are one answer: D = I = 0, exactly; distinct_answers says why."""
    method = adg(answers=3, temperature=0, max_new_tokens=6)
    tables = {"answers": compute(backbone, records, tmp_path, method.passes["answers"])}
    scores = method.score(tables, records)
    valid = [i for i, flag in enumerate(scores.flag) if flag is None]
    assert valid and (scores.score[valid] == 0).all() and (scores.components["distinct_answers"][valid] == 1).all()


def test_scores_of_sampled_answers(backbone, records, tmp_path):
    """With chance in it, records differ and no score exceeds its bound 0.6 + 0.4 / 2 for K = 3."""
    method = adg(answers=3, temperature=1.0, max_new_tokens=6)
    scores = method.score({"answers": compute(backbone, records, tmp_path, method.passes["answers"])}, records)
    valid = np.array([flag is None for flag in scores.flag])
    assert valid.sum() >= 8 and len(set(scores.score[valid])) == valid.sum() and (scores.score[valid] > 0).all()
    assert (scores.score[valid] < 0.8).all()


class Said:
    """An engine that gives fixed answers: another engine needs `generate` and nothing else."""

    def __init__(self, answers):
        self.answers = answers

    def generate(self, prompts, sampling, shared=0):
        return [self.answers for _ in prompts]


def say(backbone, *texts, vectors=None, settings=SMALL):
    """The columns of one record whose answers are these texts."""
    ids = [backbone.tokenizer(text)["input_ids"] for text in texts]
    made = vectors or [torch.eye(8)[k] + 1 for k in range(len(texts))]
    answers = [Answer(own, "eos", vector if own else None) for own, vector in zip(ids, made, strict=True)]
    module = _SamplingModule(backbone, settings, Said(answers))
    asked = {"id": "r", "ids": [1, 2], "answer_total": 4, "instruction": "say 12"}
    return module.predict_step({"columns": [asked], "shared": 0}, 0)


def test_answers_that_do_not_count(backbone):
    """Empty, blanks alone, not finite, all zero: not usable, products 0. The others keep theirs."""
    vectors = [torch.ones(8), torch.ones(8), torch.full((8,), torch.nan), torch.zeros(8), torch.ones(8) * 2]
    row = say(backbone, "", " \n", "a", "b", "c", vectors=vectors)
    assert row["usable"] == [[False, False, False, False, True]]
    products = np.array(row["gram"][0]).reshape(5, 5)
    assert products[4, 4] == 32 and np.abs(products).sum() == 32


def test_equal_answers_have_one_vector(backbone):
    """Decoding may round the rows of a batch differently. The same tokens are the same answer: D = 0, not 1e-7."""
    vectors = [torch.ones(8), torch.ones(8) * (1 + torch.randn(8) * 1e-4), torch.ones(8)]
    row = say(backbone, "a", "a", "a", vectors=vectors)
    assert gram_geometry(np.array(row["gram"]).reshape(1, 3, 3)) == (0, 0)


def test_authors_pooling_by_hand(backbone):
    """The text is run whole, `instruction + " " + answer`; per token (one byte) the mean of the chosen layers, weight
    1.3 for a digit, 0 for a blank or a comma, 1 else, divided by the sum of the weights."""
    text = "say 12 a, b"
    row = say(backbone, "a, b", settings=replace(SMALL, pooling="authors"))
    ids = torch.tensor([backbone.tokenizer(text)["input_ids"]])
    states = backbone.model(input_ids=ids, output_hidden_states=True).hidden_states
    weights = torch.tensor([{" ": 0.0, ",": 0.0, "1": 1.3, "2": 1.3}.get(letter, 1.0) for letter in text])
    vector = (torch.stack(states[1:4]).mean(0)[0] * weights[:, None]).sum(0) / weights.sum()
    assert row["gram"][0][0] == pytest.approx(float(vector.double() @ vector.double()), rel=1e-5)


def test_authors_vectors_of_a_record_are_one_forward(backbone, monkeypatch):
    """Of its different answers together; blank ones have none."""
    asked = []

    def made(model, tokenizer, texts):
        asked.append(texts)
        return [torch.ones(8)] * len(texts)

    monkeypatch.setattr(sampling, "authors_vectors", made)
    row = say(backbone, "a", " ", "b", "a", settings=replace(SMALL, pooling="authors"))
    assert asked == [["say 12 a", "say 12 b"]] and row["usable"] == [[True, False, True, True]]


def test_authors_vectors_of_padded_texts(backbone):
    """Together as alone; a text without a token that counts has no vector, where the published code has zeros."""
    texts = ["one", " ,.", "a longer text, 3 parts"]
    together = authors_vectors(backbone.model, backbone.tokenizer, texts)
    assert together[1] is None and authors_vectors(backbone.model, backbone.tokenizer, [" ."]) == [None]
    for text, vector in zip(texts, together, strict=True):
        if vector is not None:
            assert torch.allclose(vector, authors_vectors(backbone.model, backbone.tokenizer, [text])[0], atol=1e-5)


def test_authors_vectors_read_markers_as_text(backbone):
    """`<|eos|>` in an answer is seven tokens (bytes) of the tiny tokenizer, not the end token; cutting it in two
    changes nothing."""
    whole = authors_vectors(backbone.model, backbone.tokenizer, ["a <|eos|> b"])[0]
    ids = torch.tensor([[backbone.tokenizer.convert_tokens_to_ids(c) for c in "aĠ<|eos|>Ġb"]])
    states = backbone.model(input_ids=ids, output_hidden_states=True).hidden_states
    weights = torch.tensor([token_weight(backbone.tokenizer.decode([token])) for token in ids[0]])
    assert torch.allclose(
        whole, (torch.stack(states[1:4]).mean(0)[0] * weights[:, None]).sum(0) / weights.sum(), atol=1e-5
    )


def test_a_model_without_an_end_token(tokenizer):
    """Neither tokenizer nor generation settings name one: told before anything is drawn."""
    endless = Backbone(tiny_model(layers=4), copy.deepcopy(tokenizer), {}, "endless")
    endless.tokenizer.eos_token = None
    endless.model.generation_config.eos_token_id = None
    with pytest.raises(UserError, match="endless has no EOS token"):
        SMALL.module(endless)


@pytest.mark.parametrize(
    ("text", "weight"),
    [
        ("word", 1),
        (" 7", 1.3),
        ("50%", 1.3),
        ("", 0),
        (" ", 0),
        ("...", 0),
        ("`-_'", 0),
        ("°", 1.3),
        ("a.", 1),
        ("%", 1.3),
    ],
)
def test_token_weight(text, weight):
    """Punctuation and blanks alone count nothing; a token with a digit, % or a degree sign counts 1.3."""
    assert token_weight(text) == weight


def test_authors_prompt(backbone):
    """Without its input, and cut to 80 tokens (bytes here), so that less than the template's own words is left."""
    one = record("name a colour", "of the sky", "blue")
    whole = SMALL.encode([one], template("alpaca"), backbone.tokenizer)[0]
    cut = replace(SMALL, prompt="authors").encode([one], template("alpaca"), backbone.tokenizer)[0]
    without = template("alpaca").render(replace(one, input=""))
    assert backbone.tokenizer.decode(cut.ids) == without[:80]
    assert backbone.tokenizer.decode(whole.ids) == template("alpaca").render(one) and whole.answer_total == 4


def test_gram_without_vectors():
    assert torch.equal(gram([None, None]), torch.zeros(2, 2, dtype=torch.float64))


def test_progress_counts_answers_and_tokens(backbone):
    row = say(backbone, "abc", "de", "f")
    assert SMALL.progress(row) == {"answers": 3, "tokens": 6}


def test_too_few_layers(tokenizer):
    """Two blocks have three hidden states, the embeddings among them: no four to average. Three can be."""
    shallow = Backbone(tiny_model(layers=2), tokenizer, {}, "shallow")
    with pytest.raises(UserError, match=r"method.layers=\[-4, .*\]: layer -4 does not exist; .*=shallow has 2 blocks"):
        SMALL.module(shallow)
    replace(SMALL, layers=[0, 1, 2]).module(shallow)
    with pytest.raises(UserError, match="-4, -3, -2"):
        replace(SMALL, pooling="authors").module(Backbone(tiny_model(layers=1), tokenizer, {}, "flat"))


def test_layers_are_part_of_the_pass(backbone, records, tmp_path):
    """Another window of layers has the same answers and other products, and is another artifact; pooling=authors has
    its own layers, whatever the window says."""
    first = compute(backbone, records[:4], tmp_path, SMALL)
    other = compute(backbone, records[:4], tmp_path, replace(SMALL, layers=(1, 2)))
    assert first.column("answers") == other.column("answers") and first.column("gram") != other.column("gram")
    own, same = (describe(replace(SMALL, pooling="authors", layers=layers)) for layers in ((1,), (2,)))
    assert own == same and describe(SMALL) != describe(replace(SMALL, layers=(1, 2)))


def test_final_states_of_another_width_are_told_before_sampling():
    """As of OPT with a projection behind its last block: no mean over the last four layers."""
    sizes = {"num_hidden_layers": 4, "num_attention_heads": 4, "hidden_size": 32, "word_embed_proj_dim": 16}
    model = OPTForCausalLM(OPTConfig(vocab_size=300, ffn_dim=48, **sizes)).eval()
    backbone = Backbone(model, tiny_tokenizer(), {}, "opt")
    with pytest.raises(UserError, match=r"\[-4, -3, -2, -1\]: the final state .* has 16 numbers, the other layers 32"):
        adg().sampling.module(backbone)
    adg(layers=[-4, -3, -2]).sampling.module(backbone)
