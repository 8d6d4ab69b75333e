"""Token ids of texts that are put together from pieces, with the place of every piece.

Two promises hold for every fast tokenizer: a control token in the text of a record is text, and no blank is put before
a text that goes on after another one.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from operator import itemgetter
from typing import NamedTuple

from jinja2 import TemplateError

from winnow.errors import UserError

# Reason for which a record has no ids, followed by a colon and the reason that the tokenizer itself gives.
TOKENIZER_FAILS = "tokenizer_fails"

_REASON = 160  # characters of somebody else's error message that are kept in a flag
# A text is tokenised behind one of these where a tokenizer puts a blank before each text; the first that does not merge
# with the text is taken, and which one that is changes nothing.
_ANCHORS = ("\n", ":", "]", "?")
# What a token that opens or ends a turn looks like; `<0x0A>` is a byte.
_MARKER = re.compile(r"<(?!0x[0-9A-F]{2}>)\S+>|\[/?[A-Z_]+\]")


@dataclass(frozen=True)
class Piece:
    """A stretch of prompt text. role: `template`, or for text of the record `turns`, `instruction`,
    `input` or `answer`."""

    text: str
    role: str


class Tokens(NamedTuple):
    """Ids of a text, and for each the half-open range of characters that it stands for."""

    ids: list[int]
    offsets: list[tuple[int, int]]


class RefusedError(Exception):
    """Why one record cannot be encoded; its text is the record's flag."""


# A prompt before it is tokenised: its pieces, or its ids where no record has a part in it, or why there is none.
Prompt = list[Piece] | Tokens | RefusedError


def text_ids(texts: Sequence[str], tokenizer) -> list[list[int]]:
    """Ids of texts of records, each a text of its own, without BOS: control tokens in them are text. Empty for a text
    that the tokenizer refuses."""
    found = tokens_of([[Piece(text, "turns")] for text in texts], tokenizer)
    return [[] if isinstance(tokens, RefusedError) else tokens.ids for tokens in found]


def control_ids(tokenizer) -> frozenset[int]:
    """Ids that no text of a record may give: special tokens, BOS, EOS, and the markers of turns.

    Markers are the added tokens, and pieces of the vocabulary that look like one (`<...>`, `[INST]`), that the chat
    template writes, and added tokens of the form `<|...|>`. The unknown token is none of them unless it is also BOS or
    EOS, nor is padding that is a single character of ordinary text.
    """
    return _control_ids(tokenizer, str(tokenizer.chat_template), len(tokenizer), tuple(tokenizer.all_special_ids))


@lru_cache(maxsize=16)
def _control_ids(tokenizer, chat_template: str, size: int, special: tuple[int, ...]) -> frozenset[int]:
    added = tokenizer.added_tokens_decoder
    ids = set(special) | {i for i, t in added.items() if t.special or re.fullmatch(r"<\|.*\|>", t.content)}
    written = written_ids(tokenizer)
    for token, text in zip(written, tokenizer.convert_ids_to_tokens(written), strict=True):
        bare = text.replace("▁", " ").strip()
        if _MARKER.fullmatch(bare) or (token in added and bare and not bare.isalnum()):
            ids.add(token)
    ends = {tokenizer.bos_token_id, tokenizer.eos_token_id}
    harmless = {tokenizer.unk_token_id}
    if len(tokenizer.pad_token or "") == 1:
        harmless.add(tokenizer.pad_token_id)
    return frozenset(ids - (harmless - ends))


def written_ids(tokenizer) -> list[int]:
    """Ids of a chat as the chat template writes it; of one without a system turn if it refuses that."""
    turns = [{"role": role, "content": "x"} for role in ("system", "user", "assistant", "user")]
    for messages in (turns, turns[1:], turns[3:]) if tokenizer.chat_template else ():
        try:
            return tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        except (TemplateError, TypeError, ValueError):
            continue
    return []


def places(pieces: Sequence[Piece]) -> Iterator[tuple[Piece, int, int]]:
    """Each piece with its half-open range of characters in the whole."""
    begin = 0
    for piece in pieces:
        yield piece, begin, begin + len(piece.text)
        begin += len(piece.text)


def tokenise(texts: Sequence[str], tokenizer, markup: bool = False) -> list[Tokens | RefusedError]:
    """Ids of texts that each begin a text. markup: special tokens are parsed."""
    if not texts:
        return []
    try:
        out = tokenizer(
            list(texts),
            add_special_tokens=False,
            return_offsets_mapping=True,
            return_attention_mask=False,
            split_special_tokens=not markup,
            verbose=False,  # a text beyond the model's window is cut or flagged by us
        )
    except Exception as error:  # which of the texts it was, and what is wrong with it, only the tokenizer knows
        if len(texts) == 1:
            return [RefusedError(f"{TOKENIZER_FAILS}: {one_line(error)}")]
        return [tokens for text in texts for tokens in tokenise([text], tokenizer, markup)]
    return [Tokens(*pair) for pair in zip(out["input_ids"], out["offset_mapping"], strict=True)]


def _continue(texts: Sequence[str], tokenizer, markup: bool = False) -> list[Tokens | RefusedError]:
    """Ids of texts that go on after another text: as `tokenise`, without the blank that some tokenizers put first.

    Such a tokenizer is given the text behind an anchor, whose tokens are taken off again. Where no token covers both,
    what follows is the tokenizer's best for the text alone, so the anchor leaves no trace.
    """
    if not _puts_blank(tokenizer):
        return tokenise(texts, tokenizer, markup)
    results: list = [RefusedError(f"{TOKENIZER_FAILS}: no text can go before this one")] * len(texts)
    left = list(range(len(texts)))
    for anchor in _ANCHORS:
        merged = []
        for i, tokens in zip(left, tokenise([anchor + texts[i] for i in left], tokenizer, markup), strict=True):
            if isinstance(tokens, RefusedError):
                results[i] = tokens
                continue
            n = sum(begin < len(anchor) for begin, _ in tokens.offsets)
            if n == 0 or any(end > len(anchor) for _, end in tokens.offsets[:n]):
                merged.append(i)
                continue
            offsets = [(begin - len(anchor), end - len(anchor)) for begin, end in tokens.offsets[n:]]
            results[i] = Tokens(tokens.ids[n:], offsets)
        left = merged
    return results


def _puts_blank(tokenizer) -> bool:
    """True if the tokenizer puts a blank before each text, as SentencePiece does for Llama-2 and Mistral."""
    core, text = tokenizer.backend_tokenizer, "a"
    if core.normalizer is not None:
        text = core.normalizer.normalize_str(text)
    if core.pre_tokenizer is not None:
        text = core.pre_tokenizer.pre_tokenize_str(text)[0][0]
    return len(text) > 1


def tokens_of(
    prompts: Sequence[Prompt], tokenizer, markup: bool = False, continued: bool = False
) -> list[Tokens | RefusedError]:
    """Each prompt's pieces tokenised as one text, all prompts at once.

    Where a control token comes of it in text of the record, that prompt is tokenised again in parts. markup: the
    template's own pieces hold control tokens. continued: the texts go on after others.
    """
    asked = [prompt for prompt in prompts if isinstance(prompt, list)]
    texts = ["".join(piece.text for piece in pieces) for pieces in asked]
    found = (_continue if continued else tokenise)(texts, tokenizer, markup)
    control = control_ids(tokenizer)
    for i, (text, pieces, tokens) in enumerate(zip(texts, asked, found, strict=True)):
        if not isinstance(tokens, RefusedError) and _control_in_record(tokens, text, pieces, control):
            found[i] = _in_parts(text, pieces, tokenizer, markup, continued)
    results = iter(found)
    return [next(results) if isinstance(prompt, list) else prompt for prompt in prompts]


def _control_in_record(
    tokens: Tokens, text: str, pieces: list[Piece], control: frozenset[int]
) -> list[tuple[int, int]]:
    """Character ranges of control tokens in text of the record."""
    if control.isdisjoint(tokens.ids):
        return []
    ranges = [(begin, end) for piece, begin, end in places(pieces) if piece.role != "template"]
    found = []
    for token, (a, b) in zip(*tokens, strict=True):
        if token in control:
            first = bisect_right(ranges, a, key=itemgetter(1))  # that ends behind the token's beginning
            if any(_holds(text, a, b, *own) for own in ranges[first : bisect_left(ranges, (b,))]):
                found.append((a, b))
    return found


def _holds(text: str, a: int, b: int, begin: int, end: int) -> bool:
    """Whether [a, b) has a part in [begin, end). A template's marker may take blanks beside it along."""
    common = text[max(a, begin) : min(b, end)]
    return bool(common.strip() or (common and not text[a:b].strip()))


def _in_parts(text: str, pieces: list[Piece], tokenizer, markup: bool, continued: bool) -> Tokens | RefusedError:
    """Ids of a prompt whose record holds a control token.

    With markup, text of the record and of the template are tokenised apart, and special tokens parsed in the latter
    only. A control token that is still there is cut in two, again and again.
    Raises UserError for a control token of a single character.
    """
    parts = [(0, len(text), False)]
    if markup:
        parts = []
        for piece, begin, end in places(pieces):
            own = piece.role == "template"
            if parts and parts[-1][2] == own:
                begin = parts.pop()[0]
            parts.append((begin, end, own))
    control = control_ids(tokenizer)
    while True:
        whole = Tokens([], [])
        for begin, end, own in parts:
            first = begin == 0 and not continued
            (tokens,) = (tokenise if first else _continue)([text[begin:end]], tokenizer, own)
            if isinstance(tokens, RefusedError):
                return tokens
            whole.ids.extend(tokens.ids)
            whole.offsets.extend((a + begin, b + begin) for a, b in tokens.offsets)
        found = _control_in_record(whole, text, pieces, control)
        cuts = sorted({(a + b) // 2 for a, b in found})
        if not cuts:
            return whole
        for a, b in found:
            if b - a < 2:
                raise UserError(
                    f"The tokenizer's control token {text[a:b]!r} is a character of ordinary text, so that any text "
                    f"may end an answer or a turn: give it another eos_token or bos_token in tokenizer_config.json."
                )
        parts = [
            (begin, end, own)
            for start, stop, own in parts
            for begin, end in pairwise([start, *cuts[bisect_right(cuts, start) : bisect_left(cuts, stop)], stop])
        ]


def one_line(error: Exception) -> str:
    """A foreign error in one line, with its kind unless it is the template's own refusal."""
    reason = " ".join(str(error).split())[:_REASON]
    return reason if isinstance(error, TemplateError) and reason else f"{type(error).__name__}: {reason}"
