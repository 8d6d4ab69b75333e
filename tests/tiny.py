"""The tiny backbone of the tests, suites for it, and answers in its place."""

from __future__ import annotations

import json

import torch
from composed import build
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

SPECIAL = ["<|pad|>", "<|bos|>", "<|eos|>"]
CHAT = (
    "{% for m in messages %}<|bos|>{{ m['role'] }}\n{{ m['content'] }}<|eos|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|bos|>assistant\n{% endif %}"
)


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """256 bytes and three special tokens; no merges, so token counts are byte counts."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: i for i, token in enumerate(SPECIAL + alphabet)}
    core = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(SPECIAL)
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<|pad|>", bos_token="<|bos|>", eos_token="<|eos|>", chat_template=CHAT
    )


def tiny_model(layers: int = 2, width: int = 32) -> LlamaForCausalLM:
    """A Llama whose weights come from a fixed sine ramp, so that no number hangs on a random generator."""
    config = LlamaConfig(
        vocab_size=259,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        tie_word_embeddings=False,
    )
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        start = 0
        for name, weight in model.named_parameters():
            ramp = torch.arange(start, start + weight.numel(), dtype=torch.float64)
            if "norm" in name:
                weight.fill_(1.0)
            else:
                weight.copy_((torch.sin(ramp * 12.9898) * 0.2).reshape(weight.shape))
            start += weight.numel()
    return model.requires_grad_(False)


def suite_of(tasks, **changes):
    """A suite of these tasks alone, with some keys of `evaluation=none` replaced."""
    return build("evaluation/none", tasks=tasks, **changes)


def write_items(mirror, task, **splits) -> None:
    """What a suite finds of a task in its mirror; splits: split -> its rows."""
    (mirror / task).mkdir(parents=True)
    for split, rows in splits.items():
        (mirror / task / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def arc(question: str, answer: str = "B") -> dict:
    """A row of ARC."""
    return {"question": question, "choices": {"text": ["no", "yes"], "label": ["A", "B"]}, "answerKey": answer}


def answering(monkeypatch, reply) -> list[str]:
    """Puts `reply(document)` in the place of the model's answers; collects the prompts."""
    from winnow.evaluation.model import HarnessModel  # lm-eval takes seconds to import

    asked: list[str] = []

    def answer(self, requests, **_):
        asked.extend(request.args[0] for request in requests)
        return [reply(request.doc) for request in requests]

    monkeypatch.setattr(HarnessModel, "generate_until", answer)
    return asked
