"""The noise pass: equal to the formula worked out record by record with all logits, and a property of the record."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from composed import template
from tiny_passes import compute, make_records, record, sharper

from winnow.backbone.causal_model import CausalModel
from winnow.errors import UserError
from winnow.perturb.embedding_noise import add_noise, embedding_noise
from winnow.scoring.passes.divergence import NoiseDivergence
from winnow.store.describe import describe

FLAGS = {5: "empty_answer", 7: "prompt_fills_window", 9: "empty_instruction_and_input"}
SMALL = NoiseDivergence(betas=(1.0,), draws=2)


@pytest.fixture
def records():
    return make_records()


@pytest.fixture
def backbone(backbone):
    return sharper(backbone)


def naive(model, encoded, settings: NoiseDivergence, beta: float) -> tuple[list[float], list[float]]:
    """eq. 3 as it stands: one record, all logits, fp64; KL of each draw over the sequence and over the answer."""
    ids = torch.tensor([encoded.ids])
    words = [k for begin, end in encoded.spans.values() for k in range(begin, end)]
    embeds = model.get_input_embeddings()(ids)
    log_p = model(input_ids=ids).logits[0, :-1].double().log_softmax(-1)
    whole, answer = [], []
    for draw in range(settings.draws):
        own = embeds[0, sorted(words)]
        noise = embedding_noise(own, encoded.id, draw, settings.seed, settings.family, settings.statistics)
        changed = embeds.clone()
        changed[0, sorted(words)] = add_noise(own, noise, beta)
        log_q = model(inputs_embeds=changed).logits[0, :-1].double().log_softmax(-1)
        kl = (log_p.exp() * (log_p - log_q)).sum(-1)
        whole.append(kl.mean().item())
        answer.append(kl[encoded.answer_start - 1 :].mean().item())
    return whole, answer


@pytest.mark.parametrize("shape", ["alpaca", "plain", "chat"])
@pytest.mark.parametrize(
    "settings",
    [NoiseDivergence(betas=(1, 10), seed=4), NoiseDivergence((3,), "uniform", 2, "per_dimension")],
    ids=["gaussian", "uniform"],
)
def test_equals_the_plain_formula(backbone, records, tmp_path, shape, settings):
    """Chunks, shared prefix, skipped positions and shared clean run change nothing: each record alone, with all logits
    of all positions, gives the same numbers. n counts every token but the first."""
    table = compute(backbone, records, tmp_path, settings, shape=template(shape))
    encoded = template(shape).encode(records, backbone.tokenizer)
    for beta in settings.betas:
        whole = table.matrix(settings.column(beta), settings.draws)
        answer = table.matrix(settings.column(beta, "answer"), settings.draws)
        for i, one in enumerate(encoded):
            if one.flag or not one.spans:
                assert np.isnan(whole[i]).all()
                continue
            wanted = naive(backbone.model, one, settings, beta)
            assert np.allclose(whole[i], wanted[0], atol=1e-5) and np.allclose(answer[i], wanted[1], atol=1e-5)
            assert table.numbers("tokens")[i] == len(one.ids) - 1
        assert np.nanmedian(whole) > 0.01 and np.nanmedian(answer) > 0.01  # large beside the tolerance


def test_flags_and_counts(backbone, records, tmp_path):
    """One token per byte: noised tokens are the bytes of instruction and input. A record without either would have a KL
    of 0, the best of all; it is flagged instead."""
    table = compute(backbone, records, tmp_path, SMALL)
    assert {i: flag for i, flag in enumerate(table.flags()) if flag} == FLAGS
    for i, one in enumerate(records):
        if i not in FLAGS:
            assert table.numbers("noised_tokens")[i] == len((one.instruction + one.input).encode())


def test_not_negative_and_zero_at_beta_zero(backbone, records, tmp_path):
    """KL >= 0; without noise P = Q. The noisy run enters by embeddings and the clean one by ids, so 0 is exact."""
    table = compute(backbone, records, tmp_path, NoiseDivergence(betas=(0, 1), draws=2))
    valid = [i for i in range(len(records)) if i not in FLAGS]
    assert (table.matrix("kl_beta_0", 2)[valid] == 0).all()
    assert (table.matrix("kl_beta_1", 2)[valid] > 1e-6).all()


def test_batch_and_order_do_not_matter(backbone, records, tmp_path):
    """Batches of one, of many, and the records shuffled, each under another state of the global generator."""
    reference = compute(backbone, records, tmp_path / "a", SMALL, budget=1).matrix("kl_beta_1", 2)
    torch.manual_seed(99)
    many = compute(backbone, records, tmp_path / "b", SMALL, budget=4096).matrix("kl_beta_1", 2)
    assert np.allclose(reference, many, atol=1e-5, equal_nan=True)
    order = random.Random(1).sample(range(len(records)), len(records))
    shuffled = compute(backbone, [records[i] for i in order], tmp_path / "c", SMALL).matrix("kl_beta_1", 2)
    assert np.allclose(reference[order], shuffled, atol=1e-5, equal_nan=True)
    alone = compute(backbone, records[:1], tmp_path / "d", SMALL).matrix("kl_beta_1", 2)
    assert np.allclose(reference[:1], alone, atol=1e-5)


def test_betas_together_equal_betas_apart(backbone, records, tmp_path):
    """One draw of eps serves all strengths: a pass over three gives what three passes over one each give."""
    together = compute(backbone, records, tmp_path, NoiseDivergence(betas=(15, 1, 5), draws=2))
    for beta in (1, 5, 15):
        alone = compute(backbone, records, tmp_path, NoiseDivergence(betas=(beta,), draws=2))
        name = NoiseDivergence.column(beta)
        assert np.allclose(together.matrix(name, 2), alone.matrix(name, 2), atol=1e-6, equal_nan=True)


class Spy:
    """What the transformer body was given, call by call."""

    def __init__(self, model):
        self.ids, self.embeds = [], []
        causal = CausalModel(model)
        assert causal.reuse  # tried now, not amid the calls that are noted
        causal.body.register_forward_pre_hook(self.note, with_kwargs=True)

    def note(self, module, args, given):
        if given.get("inputs_embeds") is not None:
            self.embeds.append(given["inputs_embeds"])
        else:
            self.ids.append(given["input_ids"])


def test_noise_touches_only_its_span(backbone, tmp_path):
    """One record, so no shared prefix: of the embeddings that went in, those of the template's words (also between
    instruction and input) and of the answer equal the clean ones bit for bit, and all others differ."""
    one = record("name a colour", "of the sky", "blue")
    spy = Spy(backbone.model)
    compute(backbone, [one], tmp_path, SMALL)
    encoded = template("alpaca").encode([one], backbone.tokenizer)[0]
    spans = encoded.spans
    assert spans["input"][0] - spans["instruction"][1] == len("\n\n### Input:\n")
    words = [k for begin, end in spans.values() for k in range(begin, end)]
    rest = [k for k in range(len(encoded.ids)) if k not in words]
    clean = backbone.model.get_input_embeddings()(torch.tensor([encoded.ids]))
    assert len(spy.embeds) == SMALL.draws
    for noisy in spy.embeds:
        assert torch.equal(noisy[:, rest], clean[:, rest])
        assert (noisy[:, words] != clean[:, words]).float().mean() > 0.99


def test_the_clean_run_happens_once(backbone, tmp_path):
    """16 records of one form in one batch, 2 draws at 3 strengths: one clean run and one of the shared prefix by ids, 6
    noisy ones by embeddings, and these only from the instruction on."""
    some = [record(f"name colour {i:02d}", "", "blue") for i in range(16)]
    spy = Spy(backbone.model)
    compute(backbone, some, tmp_path, NoiseDivergence(betas=(1, 3, 5), draws=2), budget=4096)
    encoded = template("alpaca").encode(some, backbone.tokenizer)[0]
    begin = encoded.spans["instruction"][0]
    assert [tuple(ids.shape) for ids in spy.ids] == [(1, begin), (16, len(encoded.ids) - begin)]
    assert [tuple(embeds.shape) for embeds in spy.embeds] == [(16, len(encoded.ids) - begin, 32)] * 6


def test_the_prefix_is_read_from_the_device_once(backbone, tmp_path, monkeypatch):
    """Not again before each noisy run: reading it waits for all that the device still has to do."""
    some, read, original = [record(f"name colour {i:02d}", "", "blue") for i in range(16)], [], torch.Tensor.tolist
    CausalModel(backbone.model)  # whose trials run the model too
    monkeypatch.setattr(torch.Tensor, "tolist", lambda own: read.append(own.dtype) or original(own))
    compute(backbone, some, tmp_path, SMALL, budget=4096)
    assert read.count(torch.long) == 1


def test_without_attention_noise_stays_where_it_is(backbone, tmp_path):
    """With the attention's output set to 0 a position sees its own token only: noise moves the predictions of the words
    it is put on and no other, so the answer's KL is 0, exactly. With attention the answer feels it."""
    one = record("name a colour", "", "blue, and at night a blue that is nearly black")
    with_attention = compute(backbone, [one], tmp_path / "a", SMALL)
    for layer in backbone.model.model.layers:
        layer.self_attn.o_proj.weight.zero_()
    without = compute(backbone, [one], tmp_path / "b", SMALL)
    assert (with_attention.matrix("kl_answer_beta_1", 2) > 1e-3).all()
    assert (without.matrix("kl_answer_beta_1", 2) == 0).all() and (without.matrix("kl_beta_1", 2) > 1e-4).all()


def test_input_before_instruction(backbone, tmp_path):
    """Ten records with the same input in front of the instruction: the input is part of what all rows have in common,
    and is noised all the same."""
    texts = {"with_input": "Text: {input}\nTask: {instruction}\n", "without_input": "Task: {instruction}\n"}
    shape = template("plain", **texts)
    some = [record(f"task {i}", "the same text", "fine") for i in range(10)]
    table = compute(backbone, some, tmp_path, SMALL, shape=shape)
    for i, one in enumerate(shape.encode(some, backbone.tokenizer)):
        assert np.allclose(table.matrix("kl_beta_1", 2)[i], naive(backbone.model, one, SMALL, 1.0)[0], atol=1e-5)


def test_settings():
    """The order of the strengths is no difference, everything else is; whole numbers and fractions have plain names."""
    assert describe(NoiseDivergence((10, 1))) == describe(NoiseDivergence((1.0, 10.0)))
    changes = [{"betas": (1,)}, {"family": "uniform"}, {"draws": 1}, {"seed": 1}, {"statistics": "per_dimension"}, {}]
    others = [NoiseDivergence(**change) for change in changes]
    assert len({str(describe(other)) for other in others}) == len(others)
    assert NoiseDivergence.column(10) == "kl_beta_10" and NoiseDivergence.column(0.5, "answer") == "kl_answer_beta_0.5"


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"betas": ()}, "method.betas"),
        ({"betas": (-1,)}, "method.betas"),
        ({"family": "cauchy"}, "method.family=cauchy"),
        ({"statistics": "median"}, "method.statistics=median"),
        ({"draws": 0}, "method.draws=0"),
    ],
)
def test_unusable_settings(options, key):
    with pytest.raises(UserError, match=key):
        NoiseDivergence(**options)
