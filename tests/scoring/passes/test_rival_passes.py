"""The passes of the rivals against the model itself, one record at a time."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from composed import template
from tiny_passes import compute, make_records

from winnow.backbone.likelihood import token_nll_entropy
from winnow.scoring.passes.embedding import BackboneEmbedding
from winnow.scoring.passes.likelihood import Likelihood, LikelihoodEntropy
from winnow.scoring.passes.noised_likelihood import NoisedLikelihood
from winnow.scoring.passes.rating import Rating
from winnow.store.describe import describe


def ids(backbone, records):
    return [one for one in template("alpaca").encode(records, backbone.tokenizer) if one.flag is None]


def test_entropy_of_known_distributions():
    """Four equal logits: ln 4, all of log V, and so is the loss. One of 1000 beside zeros: 0, and a loss of 1000.
    Two equal ones: ln 2, half of ln 4."""
    table = torch.tensor([[0.0] * 4, [1000.0, 0, 0, 0], [5.0, 5, -1000, -1000]])
    targets = torch.tensor([3, 1, 0])
    nll, entropy, openness = token_nll_entropy(table, lambda rows: rows, targets, chunk=2)
    assert nll.tolist() == pytest.approx([math.log(4), 1000, math.log(2)])
    assert entropy.tolist() == pytest.approx([math.log(4), 0, math.log(2)])
    assert openness.tolist() == pytest.approx([1, 0, 0.5])
    assert [len(one) for one in token_nll_entropy(table[:0], lambda rows: rows, targets[:0])] == [0, 0, 0]


def test_entropies_come_beside_the_same_losses(backbone, tmp_path):
    """The losses are `Likelihood`'s, the entropies those of the model's own logits; the default pass is not touched."""
    records = make_records(12)
    table = compute(backbone, records, tmp_path, LikelihoodEntropy("clean"))
    plain = compute(backbone, records, tmp_path, Likelihood("clean"))
    assert np.allclose(table.ragged("nll")[0], plain.ragged("nll")[0], atol=1e-5)
    values, offsets = table.ragged("entropy")
    assert (offsets == table.ragged("nll")[1]).all()
    wanted = []
    for one in ids(backbone, records):
        log_p = backbone.model(torch.tensor([one.ids])).logits[0, one.answer_start - 1 : -1].log_softmax(-1)
        wanted += (-(log_p.exp() * log_p).sum(-1)).tolist()
    assert np.allclose(values, wanted, atol=1e-4)
    assert np.allclose(table.ragged("openness")[0], values / math.log(259), atol=1e-5)
    assert "entropy" not in Likelihood.schema.names and describe(Likelihood("clean"))["class.version"] == 3


def test_noise_of_strength_zero_changes_nothing_and_draws_belong_to_the_record(backbone, tmp_path):
    """alpha 0: each draw has the losses of `Likelihood`, in both views. With noise the two draws differ, and a record
    has the same losses in any batch."""
    records = make_records(12)
    for view in ("clean", "direct"):
        plain, offsets = compute(backbone, records, tmp_path, Likelihood(view)).ragged("nll")
        still, twice = compute(backbone, records, tmp_path, NoisedLikelihood(view, 2, 0.0, 0)).ragged("nll")
        for i in range(len(records)):
            own = plain[offsets[i] : offsets[i + 1]]
            if twice[i + 1] > twice[i]:  # a prompt that fills the window is flagged in both views
                assert np.allclose(still[twice[i] : twice[i + 1]].reshape(2, -1), own, atol=1e-5)
    noised = NoisedLikelihood("clean", 2, 5.0, 0)
    together, offsets = compute(backbone, records, tmp_path / "a", noised).ragged("nll")
    alone, _ = compute(backbone, records[::-1], tmp_path / "b", noised, budget=1).ragged("nll")
    first = together[: offsets[1]].reshape(2, -1)
    assert not np.allclose(first[0], first[1], atol=1e-4)
    assert np.allclose(first.ravel(), alone[-offsets[1] :], atol=1e-5)


def test_both_views_noise_the_answer_alike(backbone):
    """Of one record the answer's rows are the same in both views, within alpha / sqrt(L h) of 0 on either side, as the
    prompt's are, and nothing is put on padding. L is that of the whole text."""
    records = make_records(3)
    noise = {}
    for view in ("clean", "direct"):
        pass_ = NoisedLikelihood(view, 1, 5.0, 0)
        batch = pass_.collate(pass_.encode(records, template("alpaca"), backbone.tokenizer))
        embeds = backbone.model.get_input_embeddings()(batch["input_ids"])
        noise[view] = pass_._noise(embeds, batch["columns"], 0), batch["columns"]
        other = NoisedLikelihood(view, 1, 5.0, 1)._noise(embeds, batch["columns"], 0)  # another seed
        assert not torch.allclose(other, noise[view][0])
    for i in range(len(records)):
        rows = [table[i, own[i]["prompt_tokens"] : own[i]["tokens"]] for table, own in noise.values()]
        assert torch.equal(*rows)
        table, own = noise["direct"]
        bound = 5.0 / math.sqrt(noise["clean"][1][i]["tokens"] * table.shape[-1])
        assert table[i].abs().max() <= bound and not table[i, own[i]["tokens"] :].any()
        for part in (rows[0], noise["clean"][0][i, : noise["clean"][1][i]["prompt_tokens"]]):
            assert part.min() < -0.5 * bound and 0.5 * bound < part.max()


def test_ratings_are_the_models_own_probabilities(backbone, tmp_path):
    """One token a byte: after the request's text, the soft-max over the bytes 1 to 5."""
    records = make_records(3)
    table = compute(backbone, records, tmp_path, Rating("Rate {it}."), shape=template("alpaca", max_length=2000))
    grades = [backbone.tokenizer(grade)["input_ids"][0] for grade in "12345"]
    for one, own in zip(records, table.matrix("probabilities", 5), strict=True):
        asked = f"{one.instruction}\n{one.input}" if one.input else one.instruction
        text = f"Rate {{it}}.\n\nInstruction:\n{asked}\n\nResponse:\n{one.output}\n\nScore:\n"
        logits = backbone.model(torch.tensor([backbone.tokenizer(text)["input_ids"]])).logits[0, -1, grades]
        assert own == pytest.approx(logits.softmax(-1).tolist(), abs=1e-5) and own.sum() == pytest.approx(1, abs=1e-5)


def test_a_rating_sees_earlier_turns_and_needs_an_answer(backbone):
    """The turns stand before the instruction; a record without an answer has a reason in place of a text."""
    one = replace(make_records(1)[0], turns=(("user", "Hi."), ("assistant", "Hello.")))
    asked, empty = Rating("Rate it.").encode(
        [one, replace(one, output="")], template("alpaca", max_length=2000), backbone.tokenizer
    )
    assert "Instruction:\nHi.\nHello.\n" + one.instruction in backbone.tokenizer.decode(asked.ids)
    assert (asked.flag, empty.flag, empty.ids) == (None, "empty_answer", [])


def test_weighted_pooling_is_by_position(backbone, tmp_path):
    """H = sum t h_t / sum t with t from 1; of a one-token region it is that token's state."""
    records = make_records(3)
    got = compute(backbone, records, tmp_path, BackboneEmbedding("all", -1, "weighted")).vectors("vector")
    for one, own in zip(ids(backbone, records), got, strict=True):
        states = backbone.model(torch.tensor([one.ids]), output_hidden_states=True).hidden_states[-1][0]
        t = torch.arange(1, len(one.ids) + 1)[:, None]
        assert own == pytest.approx(((t * states).sum(0) / t.sum()).tolist(), abs=1e-4)
