"""Log-likelihoods with shared prompts against their definition."""

from __future__ import annotations

import math

import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from tiny import tiny_model
from transformers import MistralConfig, MistralForCausalLM

from winnow.backbone.causal_model import CausalModel
from winnow.backbone.prefix import SharedPrefix
from winnow.evaluation.greedy import greedy_answers
from winnow.evaluation.model import HarnessModel
from winnow.evaluation.shared_prompts import _sums, _texts, answer_loglikelihoods, can_share_prompts

# Prompts: one token; two that share three tokens; two that share 20; lengths and answer lengths all differ.
LONG = tuple(range(30, 50))
PAIRS = [
    ((5,), (9, 8, 7)),
    ((5, 6, 7, 20), (11,)),
    ((5, 6, 7, 21, 22), (11, 12, 13, 14)),
    ((5, 6, 7, 21, 22), (12,)),
    ((*LONG, 60), (61, 62)),
    ((*LONG, 70, 71, 72), (61, 62, 63)),
    ((*LONG, 70, 71, 72), (64,)),
    ((5,), (9, 8, 7)),
]


def by_definition(model, prompt, answer) -> float:
    """sum over i of log softmax(logits)[a_i] with the logits of one plain forward over prompt + answer."""
    with torch.no_grad():
        logits = model(torch.tensor([prompt + answer])).logits[0].double()
    predictions = logits.log_softmax(-1)[len(prompt) - 1 : -1]
    return predictions[range(len(answer)), list(answer)].sum().item()


@pytest.mark.parametrize("batch_size", [1, 2, 3, 16])
def test_equals_one_plain_forward_per_pair(batch_size):
    """The expectation is the definition, computed without cache, padding or mask in a batch of one."""
    model = tiny_model()
    expected = [by_definition(model, prompt, answer) for prompt, answer in PAIRS]
    found = answer_loglikelihoods(model, PAIRS, batch_size, progress=False)
    assert [value for value, _ in found] == pytest.approx(expected, abs=1e-4)


def test_rolling_is_the_harnesss_own(tokenizer):
    """Texts of 10, 100 and no bytes under a window of 64: one window, two, none. The harness's sums, for which it runs
    prompt and answer whole."""
    model = tiny_model()
    model.config.max_position_embeddings = 64
    requests = [Instance("loglikelihood_rolling", {}, (text,), 0) for text in ("a text of ", "0123456789" * 10, "")]
    plain = HFLM(model, tokenizer=tokenizer, backend="causal").loglikelihood_rolling(requests, disable_tqdm=True)
    found = HarnessModel(model, tokenizer, 2).loglikelihood_rolling(requests, disable_tqdm=True)
    assert found == pytest.approx(plain, abs=1e-4) and found[2] == 0


def test_what_does_not_fit_loses_its_beginning_and_is_counted(tokenizer):
    """64 positions; the last token is predicted and not read, so that 62 + 3 tokens fit and of 70 + 3 the first 8 go.
    Answers of 4 tokens that are generated leave room for 60: of 70 the first 10 go."""
    model = tiny_model()
    model.config.max_position_embeddings = 64
    own = HarnessModel(model, tokenizer, 2, prompts={"fits": list(range(3, 63)), "long": list(range(3, 73))})
    pairs = [(None, list(range(3, 3 + n)), [9, 8, 7]) for n in (62, 70)]
    expected = [by_definition(model, prompt[-62:], answer) for _, prompt, answer in pairs]
    assert [value for value, _ in own._loglikelihood_tokens(pairs, True)] == pytest.approx(expected, abs=1e-4)
    assert own.truncated == 1
    settings = {"until": ["\u2603"], "max_gen_toks": 4, "do_sample": False}
    requests = [Instance("generate_until", {}, (prompt, settings), i) for i, prompt in enumerate(("fits", "long"))]
    expected = greedy_answers(model, tokenizer, [tuple(range(3, 63)), tuple(range(13, 73))], ["\u2603"], 4, 1, False)
    assert own.generate_until(requests, disable_tqdm=True) == expected and own.truncated == 2


def test_the_head_is_read_once_for_many_answers(monkeypatch):
    """Answers of 2, 3 and 300 tokens are 305 rows of logits, 256 of which stand at once; the first answer is what the
    model thinks likeliest. A state behind an answer's last prediction does not count."""
    prefix, asked, logits = SharedPrefix(tiny_model()), [], CausalModel.logits
    states = [torch.linspace(-1, 1, (n + 1) * 32).sin().reshape(n + 1, 32) * n for n in (2, 3, 300)]
    log_p = [prefix.causal.head(own[:-1]).double().log_softmax(-1) for own in states]
    answers = [tuple(log_p[0].argmax(-1).tolist()), (5, 6, 7), (9,) * 300]
    monkeypatch.setattr(CausalModel, "logits", lambda self, rows: asked.append(len(rows)) or logits(self, rows))
    found = _sums(prefix, states, [((), answer) for answer in answers])
    expected = [float(own[range(len(answer)), answer].sum()) for own, answer in zip(log_p, answers, strict=True)]
    assert [total for total, _ in found] == pytest.approx(expected, rel=1e-5)
    assert [hit for _, hit in found] == [True, False, False] and asked == [256, 49]


def test_uniform_model():
    """With a zero output matrix every token has probability 1/259, so n tokens have -n ln 259.

    All logits are equal and argmax takes the first token, 0, so only an answer of zeros counts as greedy.
    """
    model = tiny_model()
    model.lm_head.weight.zero_()
    found = answer_loglikelihoods(model, [((4, 5), (6, 7, 8)), ((4, 5), (0, 0))], 8, progress=False)
    assert found[0] == (pytest.approx(-3 * math.log(259), abs=1e-4), False)
    assert found[1] == (pytest.approx(-2 * math.log(259), abs=1e-4), True)


def test_adapter_counts():
    """A LoRA adapter that is not zero changes the scores, and they are those of the merged model."""
    from peft import LoraConfig, get_peft_model

    adapted = get_peft_model(tiny_model(), LoraConfig(r=2, target_modules=["q_proj"])).eval()
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_" in name:
                weight.copy_(torch.linspace(-0.5, 0.5, weight.numel()).reshape(weight.shape))
    assert can_share_prompts(adapted)
    found = [value for value, _ in answer_loglikelihoods(adapted, PAIRS, 4, progress=False)]
    merged = adapted.merge_and_unload()
    assert found == pytest.approx([by_definition(merged, *pair) for pair in PAIRS], abs=1e-4)
    plain = [by_definition(tiny_model(), *pair) for pair in PAIRS]
    assert max(abs(a - b) for a, b in zip(found, plain, strict=True)) > 1e-2


@pytest.mark.parametrize(("window", "shares"), [(None, True), (8, False)])
def test_sliding_window_takes_the_plain_way(window, shares):
    """Padding between prompt and answer would fill a fixed look-back window, so such models are not shared."""
    config = MistralConfig(
        vocab_size=16,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        sliding_window=window,
    )
    assert can_share_prompts(MistralForCausalLM(config)) is shares


def test_texts_of_one_answer_hold_little_padding():
    """Texts of 100, 90, 60 and 10 tokens, at most three together. 100 and 90: 10 of 200 places are padding. With 60: 50
    of 300, a sixth. 10 is the fourth, and stands alone. Behind 400: 100 would leave 300 of 800 places empty."""
    texts = {(*range(k),): [(1,) * (n - k + 1)] for k, n in ((5, 60), (6, 400), (7, 90), (8, 10), (9, 100))}
    batches = [[len(prompt) + len(answer) - 1 for prompt, answer in batch] for _, batch in _texts(texts, 3)]
    assert batches == [[400], [100, 90, 60], [10]]
