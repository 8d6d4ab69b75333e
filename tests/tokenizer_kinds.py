"""Small tokenizers of every kind that people bring, and chat templates written after the rules of well-known ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from winnow.evaluation.embedded import load_heldout

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA2 = (  # the system text goes into the first user turn; no generation prompt
    "{% if messages[0]['role'] == 'system' %}{% set rest = messages[1:] %}{% set system = '<<SYS>>\n' + "
    "messages[0]['content'] + '\n<</SYS>>\n\n' %}{% else %}{% set rest = messages %}{% set system = '' %}{% endif %}"
    "{% for m in rest %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if loop.index0 == 0 %}{% set content = system + m['content'] %}{% else %}{% set content = m['content'] %}"
    "{% endif %}{% if m['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}"
    "{% else %}{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{{ '<start_of_turn>' + ('model' if m['role'] == 'assistant' else m['role']) + '\n' + m['content'] | trim + "
    "'<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Roles must alternate!') }}{% endif %}{% if m['role'] == 'user' %}"
    "{{ '[INST] ' + m['content'] + ' [/INST]' }}{% else %}{{ m['content'] + eos_token }}{% endif %}{% endfor %}"
)
PHI = (  # ends in EOS where no answer is opened
    "{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)
LLAMA3 = (  # writes today's date
    "{{ bos_token }}{% set date = strftime_now('%d %b %Y') %}{{ '<|start_header_id|>system<|end_header_id|>\n\n' + "
    "'Today Date: ' + date + '\n\n' }}{% if messages[0]['role'] == 'system' %}{{ messages[0]['content'] | trim }}"
    "{% set messages = messages[1:] %}{% endif %}{{ '<|eot_id|>' }}{% for m in messages %}{{ '<|start_header_id|>' + "
    "m['role'] + '<|end_header_id|>\n\n' + m['content'] | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
CHATS = {"chatml": CHATML, "llama2": LLAMA2, "gemma": GEMMA, "mistral": MISTRAL, "phi": PHI, "llama3": LLAMA3}

MARKERS = [
    "<|im_start|>", "<|im_end|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>", "<start_of_turn>",
    "<end_of_turn>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>",
]  # fmt: skip
ENDS = ["<unk>", "<s>", "</s>"]


@cache
def _texts() -> tuple[str, ...]:
    return tuple(f"{item.record.instruction}\n{item.record.output}" for item in load_heldout())


def _bytes(special: bool = True, bos: bool = False, pad: bool = True) -> PreTrainedTokenizerFast:
    """Byte-level BPE. special: how the markers are added. bos: put before each text by the tokenizer itself."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    core.train_from_iterator(
        _texts(), trainers.BpeTrainer(vocab_size=700, initial_alphabet=alphabet, show_progress=False)
    )
    core.add_special_tokens(ENDS)
    core.add_tokens([AddedToken(marker, special=special, normalized=False) for marker in MARKERS])
    if bos:
        core.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", core.token_to_id("<s>"))]
        )
    options = {"pad_token": "<unk>"} if pad else {}
    return PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>", **options)


def _llama(way: str, special: bool = True) -> PreTrainedTokenizerFast:
    """BPE with byte fallback and a blank before each text: `prepend` by the normaliser, or by Metaspace."""
    core = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    if way == "prepend":
        core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        core.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")  # for the training alone
    else:
        core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=way, split=True)
    fallback = [f"<0x{i:02X}>" for i in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=900, special_tokens=ENDS + fallback, show_progress=False)
    core.train_from_iterator(_texts(), trainer)
    state = json.loads(core.to_str())
    state["added_tokens"] = [token for token in state["added_tokens"] if token["content"] in ENDS]
    if way == "prepend":
        state["pre_tokenizer"] = None
    core = Tokenizer.from_str(json.dumps(state))
    core.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    core.add_tokens([AddedToken(marker, special=special, normalized=False) for marker in MARKERS])
    core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=core, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="<unk>"
    )


def _unigram() -> PreTrainedTokenizerFast:
    """Unigram that holds the markers as ordinary pieces, none of them added."""
    core = Tokenizer(models.Unigram())
    core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    trainer = trainers.UnigramTrainer(
        vocab_size=500, special_tokens=ENDS, unk_token="<unk>", show_progress=False, initial_alphabet=["\n", "<", ">"]
    )
    core.train_from_iterator(_texts(), trainer)
    state = json.loads(core.to_str())
    state["added_tokens"] = []
    state["model"]["vocab"] = [[piece, -1.0 if piece in ENDS else score] for piece, score in state["model"]["vocab"]]
    state["model"]["vocab"] += [[marker, -1.0] for marker in MARKERS]
    core = Tokenizer.from_str(json.dumps(state))
    core.decoder = decoders.Metaspace()
    return PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>", bos_token="<s>", eos_token="</s>")


def _wordpiece() -> PreTrainedTokenizerFast:
    core = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    core.normalizer = normalizers.BertNormalizer()
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[UNK]", "[CLS]", "[SEP]"]
    core.train_from_iterator(
        _texts(), trainers.WordPieceTrainer(vocab_size=500, special_tokens=special, show_progress=False)
    )
    core.decoder = decoders.WordPiece()
    core.add_special_tokens(MARKERS)
    return PreTrainedTokenizerFast(
        tokenizer_object=core, unk_token="[UNK]", bos_token="[CLS]", eos_token="[SEP]", pad_token="[UNK]"
    )


def _bytes_with_merged_markers() -> PreTrainedTokenizerFast:
    """Byte-level BPE whose ordinary merges make `</s>`, which is EOS as well."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("<", "/"), ("</", "s"), ("</s", ">"), ("H", "e"), ("l", "l"), ("ll", "o"), ("He", "llo")]
    vocab = {token: i for i, token in enumerate([*alphabet, *("".join(pair) for pair in merges), "<s>"])}
    core = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(" ", "merged_with_next"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    core.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>")


KINDS: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
    "byte-level BPE": _bytes,
    "byte-level BPE with BOS": lambda: _bytes(bos=True),
    "byte-level BPE without pad": lambda: _bytes(pad=False),
    "byte-level BPE, markers special=False": lambda: _bytes(special=False),
    "byte-level BPE that merges to EOS": _bytes_with_merged_markers,
    "SentencePiece-like, Prepend": lambda: _llama("prepend"),
    "SentencePiece-like, Metaspace first": lambda: _llama("first"),
    "SentencePiece-like, Metaspace always": lambda: _llama("always", special=False),
    "Unigram with markers as pieces": _unigram,
    "WordPiece": _wordpiece,
}
BLANK_FIRST = [kind for kind in KINDS if "SentencePiece" in kind or "Unigram" in kind]
LOSSLESS = [kind for kind in KINDS if "BPE" in kind or "SentencePiece" in kind]


@cache
def _core(kind: str) -> PreTrainedTokenizerFast:
    return KINDS[kind]()


@cache
def tokenizer_of(kind: str, chat: str | None = None) -> PreTrainedTokenizerFast:
    """A tokenizer of a kind, with one of `CHATS`."""
    import copy

    made = copy.deepcopy(_core(kind))
    made.chat_template = None if chat is None else CHATS[chat]
    return made
