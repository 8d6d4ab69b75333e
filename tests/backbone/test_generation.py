"""The engine: answers and vectors are those of plain decoding, record by record, in any batch."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest
import torch
from tiny import tiny_model
from tiny_passes import sharper

from winnow.backbone.generation import HuggingFaceEngine, Prompt, Sampling, end_tokens, pooled
from winnow.backbone.grouped_attention import grouped_attention
from winnow.backbone.loading import Backbone
from winnow.backbone.sampling import next_tokens, uniforms
from winnow.errors import UserError

SAMPLING = Sampling(answers=3, temperature=1.2, top_p=0.9, max_new_tokens=12, seed=5)
# End tokens that come up often: about a fifth of the tiny vocabulary.
ENDS = list(range(2, 259, 5))


@pytest.fixture
def backbone(tokenizer):
    """Four blocks."""
    return sharper(Backbone(tiny_model(layers=4), tokenizer, {"name": "tiny", "tokenizer": "bytes"}, "tiny"))


@pytest.fixture
def engine(backbone):
    return HuggingFaceEngine(backbone.model, backbone.tokenizer, ENDS)


@pytest.fixture
def prompts():
    """14 prompts that share their first 10 tokens, 11 to 60 long."""
    draw = random.Random(0)
    first = [draw.randint(3, 258) for _ in range(10)]
    return [
        Prompt(f"r{i}", first + [draw.randint(3, 258) for _ in range(draw.choice([1, 2, 7, 20, 50]))])
        for i in range(14)
    ]


def plain(model, prompt: Prompt, draw: int, sampling: Sampling) -> tuple[list[int], str, torch.Tensor | None]:
    """One answer without a cache and without a batch, and its vector by running the whole text once more."""
    numbers = uniforms(sampling.seed, prompt.record_id, draw, sampling.max_new_tokens)
    made, finish = [], "length"
    for step in range(sampling.max_new_tokens):
        logits = model(input_ids=torch.tensor([prompt.ids + made])).logits[:, -1]
        token = int(next_tokens(logits, numbers[step : step + 1], sampling.temperature, sampling.top_p, sampling.top_k))
        if token in ENDS:
            finish = "eos"
            break
        made.append(token)
    if not made:
        return made, finish, None
    states = model(input_ids=torch.tensor([prompt.ids + made]), output_hidden_states=True).hidden_states
    chosen = torch.stack([states[layer][0, len(prompt.ids) :] for layer in sampling.layers])
    return made, finish, chosen.mean((0, 1))


@pytest.mark.parametrize("shared", [0, 10])
@pytest.mark.parametrize("layers", [(-1,), (-3, -2, -1)])
def test_equals_plain_decoding(backbone, engine, prompts, shared, layers):
    """Tokens, end and vector of every answer, drawn one by one from whole texts: the vectors taken while decoding are
    those of encoding the same tokens again, to 1e-4 (here 1e-5). Some answers end at once, some are cut."""
    sampling = replace(SAMPLING, layers=layers)
    answers = engine.generate(prompts, sampling, shared)
    kinds = set()
    for prompt, own in zip(prompts, answers, strict=True):
        for draw, answer in enumerate(own):
            ids, finish, vector = plain(backbone.model, prompt, draw, sampling)
            assert (answer.ids, answer.finish) == (ids, finish)
            assert (answer.vector is None) == (vector is None)
            kinds.add((finish, bool(ids)))
            if vector is not None:
                assert torch.allclose(answer.vector, vector, atol=1e-5)
    assert kinds == {("eos", True), ("eos", False), ("length", True)}


def test_pooled_equals_decoding(backbone, engine, prompts):
    """`pooled`, with weight 1 on the answer's tokens behind the prompt and 0 elsewhere, on a padded batch."""
    sampling = replace(SAMPLING, layers=(-2, -1))
    pairs = [
        (prompt, answer)
        for prompt, own in zip(prompts, engine.generate(prompts, sampling), strict=True)
        for answer in own
        if answer.ids
    ]
    width = max(len(prompt.ids) + len(answer.ids) for prompt, answer in pairs)
    ids, weights = torch.zeros(len(pairs), width, dtype=torch.long), torch.zeros(len(pairs), width)
    for i, (prompt, answer) in enumerate(pairs):
        end = len(prompt.ids) + len(answer.ids)
        ids[i, :end] = torch.tensor(prompt.ids + answer.ids)
        weights[i, len(prompt.ids) : end] = 1
    again = pooled(backbone.model, ids, weights, sampling.layers)
    assert torch.allclose(again, torch.stack([answer.vector for _, answer in pairs]), atol=1e-4)


def test_batch_and_order_do_not_matter(engine, prompts):
    """fp32: alone, together, in another order and under another state of the global generator: the same answers, and
    vectors that agree to 1e-5."""
    together = engine.generate(prompts, SAMPLING, 10)
    torch.manual_seed(7)
    order = random.Random(1).sample(range(len(prompts)), len(prompts))
    moved = engine.generate([prompts[i] for i in order], SAMPLING, 10)
    for place, i in enumerate(order):
        alone = engine.generate([prompts[i]], SAMPLING)[0]
        for one, two, three in zip(together[i], moved[place], alone, strict=True):
            assert one.ids == two.ids == three.ids and one.finish == two.finish == three.finish
            if one.ids:
                assert torch.allclose(one.vector, two.vector, atol=1e-5)
                assert torch.allclose(one.vector, three.vector, atol=1e-5)


def test_more_answers_and_longer_ones_begin_the_same(engine, prompts):
    """The first 3 of 5 answers are those of K = 3. With 20 tokens in place of 12, an answer that ended is the same and
    one that was cut goes on."""
    few = engine.generate(prompts, SAMPLING)
    more = engine.generate(prompts, replace(SAMPLING, answers=5, max_new_tokens=20))
    for own, longer in zip(few, more, strict=True):
        assert len(longer) == 5
        for one, two in zip(own, longer, strict=False):
            assert two.ids[: len(one.ids)] == one.ids and (one.finish == "length" or one.ids == two.ids)


def test_answers_of_a_record_differ_and_seeds_matter(engine, prompts):
    """Draws are independent: among 14 x 3 answers that are not empty, a record's own are not all the same, and another
    seed gives others."""
    first = engine.generate(prompts, SAMPLING)
    other = engine.generate(prompts, replace(SAMPLING, seed=6))
    assert any(len({tuple(answer.ids) for answer in own}) == 3 for own in first)
    assert [a.ids for own in first for a in own] != [a.ids for own in other for a in own]


def test_temperature_zero(engine, backbone, prompts):
    """K identical answers, the greedy one, decoded once: 14 rows per step and not 42."""
    sampling = replace(SAMPLING, temperature=0.0)
    answers = engine.generate(prompts, sampling)
    assert engine.forwards <= len(prompts) * sampling.max_new_tokens
    for prompt, own in zip(prompts, answers, strict=True):
        ids, finish, _ = plain(backbone.model, prompt, 0, sampling)
        assert [(one.ids, one.finish) for one in own] == [(ids, finish)] * 3
        assert not ids or all(torch.equal(one.vector, own[0].vector) for one in own)


def test_ended_rows_leave_the_batch(engine, prompts):
    """Rows run through the model: at most the tokens of the answers, and the up to four steps until the next look for
    each answer; without dropping it would be 42 x 12."""
    answers = [answer for own in engine.generate(prompts, SAMPLING) for answer in own]
    tokens = sum(len(answer.ids) for answer in answers)
    assert tokens <= engine.forwards <= tokens + 4 * len(answers)
    assert engine.forwards < 0.8 * len(answers) * SAMPLING.max_new_tokens


def test_prompt_is_run_once(backbone, engine, prompts):
    """The prefill sees 14 rows (and one of the shared prefix), decoding single tokens."""
    shapes = []
    backbone.model.base_model.register_forward_pre_hook(
        lambda module, args, given: shapes.append(tuple(given["input_ids"].shape)), with_kwargs=True
    )
    engine.generate(prompts, SAMPLING, 10)
    assert shapes[:2] == [(1, 10), (14, 50)]
    assert all(length == 1 for _, length in shapes[2:]) and shapes[2][0] == 42


def test_attention_has_the_scale_of_its_model():
    """Of the products 0 and 1, times ln 3, the soft-max is 1/4 and 3/4; so the mean of the values 0 and 4 is 3. Without
    a scale of the model's own it is 1 / sqrt(4): 4 / (1 + exp(-1/2))."""
    query, key, value = torch.ones(1, 2, 1, 4), torch.zeros(1, 1, 2, 4), torch.tensor([[[[0.0], [4.0]]]])
    key[..., 1, 0] = 1
    for scaling, wanted in ((math.log(3), 3.0), (None, 4 / (1 + math.exp(-0.5)))):
        mixed, _ = grouped_attention(torch.nn.Module(), query, key, value, None, scaling)
        assert mixed.shape == (1, 1, 2, 1) and mixed.flatten().tolist() == pytest.approx([wanted] * 2)


def test_attention_is_put_back(engine, backbone, prompts):
    """Other passes use the model's own attention afterwards, also after an error."""
    before = backbone.model.config._attn_implementation
    engine.generate(prompts[:1], SAMPLING)
    assert backbone.model.config._attn_implementation == before
    with pytest.raises(IndexError):
        engine.generate(prompts[:1], replace(SAMPLING, layers=(-99,)))
    assert backbone.model.config._attn_implementation == before


def test_no_room_for_an_answer(engine, prompts):
    with pytest.raises(UserError, match="the backbone reads 2048"):
        engine.generate(prompts, replace(SAMPLING, max_new_tokens=2000))


def test_end_tokens(backbone):
    """The model's generation settings may name several; the tokenizer's own is always one."""
    backbone.model.generation_config.eos_token_id = [7, 9]
    assert end_tokens(backbone.model, backbone.tokenizer) == {2, 7, 9}
    backbone.model.generation_config.eos_token_id = 2
    assert end_tokens(backbone.model, backbone.tokenizer) == {2}


def test_no_prompts(engine):
    assert engine.generate([], SAMPLING) == []


def test_bf16_runs(backbone, prompts):
    """In half precision too; vectors are fp32 and finite."""
    engine = HuggingFaceEngine(backbone.model.bfloat16(), backbone.tokenizer, ENDS)
    answers = [answer for own in engine.generate(prompts, SAMPLING, 10) for answer in own if answer.ids]
    assert all(answer.vector.dtype == torch.float32 and torch.isfinite(answer.vector).all() for answer in answers)
