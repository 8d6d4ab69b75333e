"""Every architecture against plain `model(...)`: losses, noise, sampling, tuning; what cannot be read is refused."""

from __future__ import annotations

import pytest
import torch
from architectures import ARCHITECTURES, LLAMA, NOT_PACKED, PLAIN, tiny_architecture
from torch import nn
from transformers import BertConfig, BertLMHeadModel, LlamaConfig, LlamaForCausalLM

from winnow.backbone.causal_model import CausalModel, positions
from winnow.backbone.generation import HuggingFaceEngine, Prompt, Sampling
from winnow.backbone.loading import Backbone
from winnow.data.templates import Encoded
from winnow.errors import UserError
from winnow.evaluation.greedy import greedy_answers
from winnow.evaluation.shared_prompts import answer_loglikelihoods, can_share_prompts
from winnow.perturb.embedding_noise import add_noise, embedding_noise
from winnow.scoring.passes.divergence import NoiseDivergence
from winnow.scoring.passes.embedding import BackboneEmbedding
from winnow.scoring.passes.likelihood import Likelihood
from winnow.scoring.price import Meter
from winnow.tuning.data import MicroBatch
from winnow.tuning.loss import MicroBatchLoss

SHARED = 18  # first tokens that all texts agree on, more than the windows of 16
SOURCE = torch.Generator().manual_seed(1)
BEGIN = torch.randint(3, 259, (SHARED,), generator=SOURCE).tolist()


def text(prompt: int, answer: int, number: int) -> Encoded:
    """A prompt that begins with the shared tokens, words to put noise on behind them, and an answer."""
    own = torch.randint(3, 259, (prompt + answer,), generator=SOURCE).tolist()
    spans = {"instruction": (SHARED, SHARED + prompt)}
    return Encoded(f"r{number}", BEGIN + own, SHARED + prompt, answer, spans, None)


TEXTS = [text(9, 4, 0), text(2, 7, 1)]


def plain_losses(model, ids: list[int], begin: int, embeds=None) -> torch.Tensor:
    """-log p of the tokens from `begin` on, from the model's own logits, one text at a time."""
    given = {"input_ids": torch.tensor([ids])} if embeds is None else {"inputs_embeds": embeds[None]}
    logits = model(**given, use_cache=False).logits  # RWKV's cache is written in place
    return nn.functional.cross_entropy(logits[0, begin - 1 : len(ids) - 1], torch.tensor(ids[begin:]), reduction="none")


def at_block_1(model, ids: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """(length, width) each: what the first block of the plain model is given, and what it puts out."""
    seen: list[torch.Tensor] = []

    def see(_, given, named, out):
        seen[:] = [one[0] if isinstance(one, tuple | list) else one for one in (given or [named["hidden_states"]], out)]

    hook = CausalModel(model).block(1).register_forward_hook(see, with_kwargs=True)
    model(input_ids=torch.tensor([ids]), use_cache=False)
    hook.remove()
    return seen[0][0], seen[1][0]


def predicted(pass_, model) -> dict[str, list]:
    """The columns of a pass for the two texts, in one padded batch with a shared prefix."""
    module = pass_.module(Backbone(model, None, {}, "tiny"))
    with torch.no_grad():
        return module.predict_step(pass_.collate(TEXTS) | {"shared": SHARED}, 0)


@pytest.fixture(scope="module", params=list(ARCHITECTURES))
def case(request):
    settings, expected = ARCHITECTURES[request.param]
    return tiny_architecture(request.param, settings), expected


def test_trials_find_what_the_architecture_does(case):
    """`docs/backbones.md` has the same table. Where texts in one row are found to keep apart, the test of the tuning
    loss compares them with single texts."""
    model, expected = case
    causal = CausalModel(model)
    assert (causal._found.readout, causal.reuse, causal.padding) == expected
    assert causal.packing or model.config.model_type in NOT_PACKED


def test_losses_and_vectors(case):
    """Padded, with a shared prefix: the losses of the model's own logits text by text, and the mean over all tokens of
    the states that its head reads."""
    model, _ = case
    columns = predicted(Likelihood(), model)
    for losses, one in zip(columns["nll"], TEXTS, strict=True):
        assert torch.allclose(
            torch.tensor(losses), plain_losses(model, one.ids, one.answer_start), rtol=1e-4, atol=1e-4
        )
    vectors = predicted(BackboneEmbedding("all", -1, "mean"), model)["vector"]
    read: list[torch.Tensor] = []
    head = getattr(
        model, "lm_head", model.get_output_embeddings()
    )  # ModernBERT's `lm_head` stands before the last layer
    hook = head.register_forward_pre_hook(lambda _, given: read.append(given[0]))
    model(input_ids=torch.tensor([TEXTS[1].ids]))
    hook.remove()
    assert torch.allclose(torch.tensor(vectors[1]), read[0][0].mean(0), rtol=1e-4, atol=1e-4)


def test_layers(case):
    """Layer 0 is what block 1 is given, layer 1 what it puts out, and layer 2 of 2 the final states."""
    causal, ids = CausalModel(case[0]), TEXTS[1].ids
    _, states = causal.run(layers=[0, 1, 2, -1], input_ids=torch.tensor([ids]))
    for state, own in zip(states, at_block_1(causal.model, ids), strict=False):
        assert torch.allclose(state[0], own, rtol=1e-5, atol=1e-6)
    assert torch.equal(states[2], states[3])


def test_noise(case):
    """Noise of strength 0 moves nothing, and its embeddings are the model's input: KL 0. Of strength 1: above 0, and
    what plain logits give for the same noised embeddings."""
    model, _ = case
    columns = predicted(NoiseDivergence(betas=(0.0, 1.0), draws=1), model)
    assert max(max(values) for values in columns["kl_beta_0"]) < 1e-6
    for values, one in zip(columns["kl_beta_1"], TEXTS, strict=True):
        own, clean = slice(*one.spans["instruction"]), model.get_input_embeddings()(torch.tensor(one.ids))
        noised = clean.clone()
        noised[own] = add_noise(clean[own], embedding_noise(clean[own], one.id, 0), 1.0)
        log_p, log_q = (
            model(inputs_embeds=embeds[None], use_cache=False).logits[0, :-1].double().log_softmax(-1)
            for embeds in (clean, noised)
        )
        divergence = (log_p.exp() * (log_p - log_q)).sum(-1).mean().item()
        assert divergence > 0 and values[0] == pytest.approx(divergence, rel=1e-3)


def test_greedy_answers_are_the_models_own(case):
    """Four prompts of unlike length in one batch; the longest outgrows a window of 16. Token by token the likeliest of
    the model's own logits, and `generate`'s; the vector is the mean of block 1's states at the answer's tokens."""
    model, _ = case
    prompts = [Prompt(str(i), [*BEGIN[:n], 7 + i]) for i, n in enumerate((2, 17, 9, 2))]
    sampling = Sampling(answers=2, temperature=0, max_new_tokens=5, layers=(1,))
    engine = HuggingFaceEngine(model, None, eos=[2])
    for prompt, (answer, _) in zip(prompts, engine.generate(prompts, sampling, 2), strict=True):
        ids = torch.tensor([prompt.ids])
        settings = {"max_new_tokens": 5, "do_sample": False, "eos_token_id": 2, "pad_token_id": 0}
        own = model.generate(ids, attention_mask=torch.ones_like(ids), **settings)[0]
        assert answer.ids == [token for token in own[ids.shape[1] :].tolist() if token != 2]
        if answer.ids:
            states = at_block_1(model, [*prompt.ids, *answer.ids])[1][len(prompt.ids) :]
            assert torch.allclose(answer.vector, states.mean(0), rtol=1e-3, atol=1e-4)


def test_tuning_loss_and_gradient(case):
    """A micro-batch as a function of its padded embeddings: the loss of plain logits and its gradient, by both ways in
    which adversaries ask for it; and once more without padding, where the texts can stand in one row."""
    model, _ = case
    longest = max(len(one.ids) for one in TEXTS)
    ids = torch.tensor([one.ids + [0] * (longest - len(one.ids)) for one in TEXTS])
    mask = torch.tensor([[k < len(one.ids) for k in range(longest)] for one in TEXTS])
    rows = [i * longest + k - 1 for i, one in enumerate(TEXTS) for k in range(one.answer_start, len(one.ids))]
    targets = torch.tensor([token for one in TEXTS for token in one.ids[one.answer_start :]])
    batch = MicroBatch(0, 0, 0, ("r0", "r1"), ids, mask, {"sample": mask}, torch.tensor(rows), targets, len(targets))
    point = model.get_input_embeddings()(ids).detach()
    plain = point.clone().requires_grad_()
    own = torch.cat([plain_losses(model, t.ids, t.answer_start, plain[i, : len(t.ids)]) for i, t in enumerate(TEXTS)])
    wanted = torch.autograd.grad(own.mean(), plain)[0]
    for padding_free in (False, True) if CausalModel(model).packing else (False,):
        loss_of = MicroBatchLoss(model, batch, padding_free=padding_free)
        leaf = point.clone().requires_grad_()
        loss = loss_of(leaf)
        assert torch.allclose(loss, own.mean(), rtol=1e-4)
        for gradient in (torch.autograd.grad(loss, leaf)[0], loss_of.gradient(point)):
            assert torch.allclose(gradient, wanted, rtol=1e-3, atol=1e-4 * float(wanted.abs().max()))


@pytest.mark.parametrize("name", ["llama", "gemma2", "bloom", "mistral", "mamba"])
def test_evaluation(name, tokenizer):
    """Log-likelihoods behind shared prompts, where they can be shared, and greedy answers: the model's own."""
    model = tiny_architecture(name, ARCHITECTURES[name][0])
    prompts = [tuple(BEGIN[:n]) for n in (3, 17)]
    if can_share_prompts(model):
        found = answer_loglikelihoods(model, [(prompt, (9, 8)) for prompt in prompts], 2, progress=False)
        own = [-float(plain_losses(model, [*prompt, 9, 8], len(prompt)).sum()) for prompt in prompts]
        assert [value for value, _ in found] == pytest.approx(own, abs=1e-4)
    together = greedy_answers(model, tokenizer, prompts, ["\u2603"], 4, 2, progress=False)
    assert together == [greedy_answers(model, tokenizer, [one], ["\u2603"], 4, 1, progress=False)[0] for one in prompts]


def test_sdpa_finds_the_same():
    """The trials go through whatever attention the model was loaded with."""
    for name in ("llama", "gemma3_text", "mistral"):
        causal = CausalModel(tiny_architecture(name, ARCHITECTURES[name][0], "sdpa"))
        assert (causal._found.readout, causal.reuse, causal.padding) == ARCHITECTURES[name][1]


def test_whole_texts_attend_in_the_kernel(monkeypatch):
    """Texts of 24 tokens: the block without a window is given no table of 24 x 24, the one with a window of 16 its own.
    On a GPU in half precision alone, and on no old one."""
    model, masks = tiny_architecture("exaone4", ARCHITECTURES["exaone4"][0], "sdpa"), []
    causal, attend = CausalModel(model), nn.functional.scaled_dot_product_attention

    def spy(*given, attn_mask, **options):
        masks.append(attn_mask is not None)
        return attend(*given, attn_mask=attn_mask, **options)

    monkeypatch.setattr(nn.functional, "scaled_dot_product_attention", spy)
    ids = torch.randint(3, 259, (2, 24), generator=torch.Generator().manual_seed(2))
    got = causal.logits(causal.hidden(input_ids=ids).flatten(0, 1)).view(2, 24, -1)
    assert sorted(masks) == [False, True]
    assert torch.allclose(got, model(input_ids=ids, use_cache=False).logits, rtol=1e-4, atol=1e-5)
    monkeypatch.setattr(CausalModel, "device", torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    assert not causal._knows_causal
    model.bfloat16()
    assert causal._knows_causal
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert not causal._knows_causal


def test_a_pass_that_fails_leaves_no_layer_wrapped():
    """While transformers 4 keeps the states of layers it wraps them, and it unwraps them after success alone."""
    causal = CausalModel(tiny_architecture("llama", LLAMA))

    def full(module, given):
        raise torch.OutOfMemoryError("CUDA out of memory")

    causal.blocks[1].mlp.register_forward_pre_hook(full)
    with pytest.raises(torch.OutOfMemoryError):
        causal.run(layers=(1,), input_ids=torch.ones(1, 4, dtype=torch.long))
    assert "wrapped_forward" not in {block.forward.__code__.co_name for block in causal.blocks}


class WithBigrams(LlamaForCausalLM):
    """Logits that hang on the token itself besides the final state: no map of states gives them."""

    def forward(self, input_ids=None, inputs_embeds=None, **options):
        out = super().forward(input_ids=input_ids, inputs_embeds=inputs_embeds, **options)
        embeds = self.model.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        out.logits = out.logits + embeds.sum(-1, keepdim=True) * torch.linspace(-9, 9, 259)
        return out


class EmbedsElsewhere(LlamaForCausalLM):
    """Embeddings that are given are not what the model would have looked up."""

    def forward(self, input_ids=None, inputs_embeds=None, **options):
        return super().forward(input_ids=input_ids, inputs_embeds=inputs_embeds, **options)

    def get_input_embeddings(self):
        return nn.Embedding.from_pretrained(2 * self.model.embed_tokens.weight + 1)


def test_whole_forward_where_no_map_fits():
    model = WithBigrams(LlamaConfig(**LLAMA)).eval()
    assert CausalModel(model)._found.readout == "whole"
    losses_of_texts = predicted(Likelihood(), model)["nll"]
    for losses, one in zip(losses_of_texts, TEXTS, strict=True):
        assert torch.allclose(torch.tensor(losses), plain_losses(model, one.ids, one.answer_start), atol=1e-4)
    prompts = [Prompt("a", BEGIN[:4]), Prompt("b", BEGIN[:9])]
    answers = HuggingFaceEngine(model, None, eos=[2]).generate(prompts, Sampling(1, 0, max_new_tokens=3, layers=()))
    own = model.generate(torch.tensor([BEGIN[:4]]), max_new_tokens=3, do_sample=False, use_cache=False, pad_token_id=0)
    assert answers[0][0].ids == own[0, 4:].tolist()


def test_refused():
    """One sentence each: a state that outlives its text, a model that looks ahead, embeddings that are no input."""
    carries, rows = LlamaForCausalLM(LlamaConfig(**LLAMA)).eval(), []
    # A state that the first batch leaves for all of its shape, and another for others.
    carries.model.norm.register_forward_hook(lambda _, given, out: rows.append(len(out)) or out + (rows[0] != len(out)))
    with pytest.raises(UserError, match="carries a state from one text to the next"):
        CausalModel(carries, "griffin")
    bert = BertConfig(**PLAIN | {"num_attention_heads": 4, "intermediate_size": 48})
    with pytest.raises(UserError, match="looks ahead"):
        CausalModel(BertLMHeadModel(bert).eval(), "bert")
    odd = EmbedsElsewhere(LlamaConfig(**LLAMA)).eval()
    with pytest.raises(UserError, match="this method or adversary needs another backbone"):
        predicted(NoiseDivergence(draws=1), odd)


def test_trials_leave_no_trace():
    """A model in training stays in training, module by module, and the global generator where it was."""
    model = LlamaForCausalLM(LlamaConfig(**LLAMA, attention_dropout=0.5)).train()
    model.model.norm.eval()
    state = torch.random.get_rng_state()
    causal = CausalModel(model)
    assert causal.reuse and causal.padding and model.training and not model.model.norm.training
    assert torch.equal(state, torch.random.get_rng_state())


def test_positions():
    """GPT-2 has 1,024; a rotary scaling that changes with length counts up to where it begins; BLOOM has no limit."""
    from transformers import BloomConfig, GPT2Config, Phi3Config

    longrope = {"type": "longrope", "short_factor": [1.0] * 48, "long_factor": [2.0] * 48}
    phi3 = Phi3Config(max_position_embeddings=131072, original_max_position_embeddings=4096, rope_scaling=longrope)
    assert (positions(GPT2Config()), positions(phi3), positions(BloomConfig())) == (1024, 4096, None)


def test_a_head_over_states_that_are_there_is_no_forward():
    """Gemma-2 caps its logits, so its own forward runs over states that are there: 2 x 5 tokens stay 2 forwards."""
    causal = CausalModel(tiny_architecture("gemma2", ARCHITECTURES["gemma2"][0]))
    meter = Meter(causal.model, encoder=False)
    meter.open()
    causal.logits(causal.hidden(input_ids=torch.ones(2, 5, dtype=torch.long)).flatten(0, 1))
    line = meter.entry("pass", 2, 1.0)
    assert causal._found.readout == "tail" and (line["forwards"], line["tokens"]) == (2, 10)
