"""Prompt templates: from a record to token ids, with the place of every part known by construction.

Template text, tokenizer and truncation live in this module and nowhere else. The text of a record is never
searched: a record may itself contain `### Response:`. Each part's character span is known while the prompt is
put together, and the fast tokenizer's offsets carry it over to tokens.

Three promises hold for every fast tokenizer:

- A chat prompt has the ids of `apply_chat_template(tokenize=True)`, unless the record's text holds a control token.
- A control token in the text of a record is text: no id that ends an answer or opens a turn comes from it.
- The ids of an answer depend on the answer alone, and no blank is put before it.
"""

from __future__ import annotations

import datetime
import re
import string
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from types import SimpleNamespace
from typing import ClassVar, NamedTuple
from unittest.mock import patch

from jinja2 import TemplateError, TemplateSyntaxError

from winnow.data.records import Record
from winnow.errors import UserError
from winnow.store.describe import Free

# Reasons for which a record has nothing to score or to train on. The last two are followed by a colon and the reason
# that the chat template or the tokenizer itself gives.
PROMPT_FILLS_WINDOW = "prompt_fills_window"
EMPTY_ANSWER = "empty_answer"
TEMPLATE_REFUSES = "template_refuses_turns"
TOKENIZER_FAILS = "tokenizer_fails"

VIEWS = ("clean", "direct")
_BATCH = 1000  # records handed to the tokenizer at once; bounds memory, changes nothing else
_REASON = 160  # characters of somebody else's error message that are kept in a flag
# A text is tokenised behind one of these where a tokenizer puts a blank before each text; the first that does not merge
# with the text is taken, and which one that is changes nothing.
_ANCHORS = ("\n", ":", "]", "?")
# What a token that opens or ends a turn looks like; `<0x0A>` is a byte.
_MARKER = re.compile(r"<(?!0x[0-9A-F]{2}>)\S+>|\[/?[A-Z_]+\]")


@dataclass(frozen=True)
class Encoded:
    """One prompt and its answer as token ids, cut to the template's window.

    ids: prompt and answer. answer_start: index of the first answer token, which is also the number of prompt
    tokens. answer_total: answer tokens before any cut, EOS not counted. spans: half-open token ranges of
    `instruction` and `input`. flag: None, or why there is nothing to score.
    """

    id: str
    ids: list[int]
    answer_start: int
    answer_total: int
    spans: dict[str, tuple[int, int]]
    flag: str | None = None


@dataclass(frozen=True)
class _Piece:
    """A stretch of prompt text. role: `template`, or for text of the record `turns`, `instruction`,
    `input` or `answer`."""

    text: str
    role: str


class _Tokens(NamedTuple):
    """Ids of a text, and for each the half-open range of characters that it stands for."""

    ids: list[int]
    offsets: list[tuple[int, int]]


class _RefusedError(Exception):
    """Why one record cannot be encoded; its text is the record's flag."""


# A prompt before it is tokenised: its pieces, or its ids where no record has a part in it, or why there is none.
_Prompt = list[_Piece] | _Tokens | _RefusedError


class Template:
    """How a record becomes a prompt, and a prompt and its answer become tokens.

    with_input, without_input: format strings with {instruction}, {input} and, where earlier turns are to be
    shown, {turns}; `without_input` is used when the input is the empty string. Both None: the tokenizer's own
    chat template. direct: the prompt of the `direct` view, in which the instruction is removed; s(A).
    turns: format strings with {text} for the roles system, user and assistant of earlier turns.
    bos: `auto` (as the tokenizer itself does; with a chat template as that writes it), True or False; never twice.
    boundary: `separate` (prompt and answer are tokenised apart and joined as one text would be; no token can
    straddle the boundary) or `joint` (one text, as the published IFD code does; the answer then starts after as many
    tokens as the prompt alone has). max_length: window in tokens. date: the day that a chat template which writes
    today's date is told, YYYY-MM-DD, so that the same record gives the same ids on every day.
    """

    version: ClassVar[int] = 2  # raised when the same settings would give other ids

    def __init__(
        self,
        name: Free[str],
        with_input: str | None,
        without_input: str | None,
        direct: str | None,
        turns: dict[str, str] | None,
        bos: bool | str,
        boundary: str,
        max_length: int,
        date: str,
    ) -> None:
        if bos not in ("auto", True, False):
            raise UserError(f"template.bos={bos} is unknown; choose auto, true or false.")
        if boundary not in ("separate", "joint"):
            raise UserError(f"template.boundary={boundary} is unknown; choose separate or joint.")
        if boundary == "joint" and with_input is None:
            raise UserError("template.boundary=joint works for text templates only; use separate with template=chat.")
        if (with_input is None) != (without_input is None):
            raise UserError("template.with_input and template.without_input go together: give both, or null for both.")
        if max_length < 2:
            raise UserError(f"template.max_length={max_length} leaves no room for an answer; give at least 2 tokens.")
        try:
            datetime.date.fromisoformat(date)
        except (TypeError, ValueError):
            raise UserError(f"template.date={date} is no date; write it as '2024-07-26'.") from None
        self.name, self.bos, self.boundary, self.max_length = name, bos, boundary, max_length
        self.with_input, self.without_input, self.direct = with_input, without_input, direct
        self.turns, self.date = dict(turns or {}), date

    @property
    def is_chat(self) -> bool:
        """True if the tokenizer's own chat template is used."""
        return self.with_input is None

    def render(self, record: Record, tokenizer=None) -> str:
        """The prompt as text, up to where the answer begins. A chat template needs the tokenizer.

        Raises UserError if the chat template refuses the record.
        """
        try:
            return "".join(piece.text for piece in self._pieces(record, tokenizer, {}))
        except _RefusedError as refusal:
            raise UserError(
                f"Record {record.id} has no prompt ({refusal}); take it out or use template=alpaca."
            ) from None

    def encode(self, records: Sequence[Record], tokenizer, view: str = "clean", eos: bool = False) -> list[Encoded]:
        """Token ids of every record's prompt and answer, in the order of `records`.

        view: `clean` (the whole prompt), or `direct` (the instruction removed). eos: append the tokenizer's EOS
        to the answer where it fits the window uncut. The answer is cut on the right so that prompt and answer
        fit `max_length`; the prompt is never cut: where it leaves no room the result is flagged instead. A record
        that the chat template or the tokenizer refuses is flagged with their reason.
        Raises UserError if the tokenizer lacks what the settings need.
        """
        if view not in VIEWS:
            raise ValueError(f"unknown view {view!r}; known: {VIEWS}")
        if eos:
            check_eos(tokenizer)
        bos = self._bos_ids(tokenizer)
        known: dict = {}  # what the chat template writes around the turns, for each order of roles
        encoded: list[Encoded] = []
        for start in range(0, len(records), _BATCH):
            batch = records[start : start + _BATCH]
            prompts = [self._prompt(record, view, tokenizer, known) for record in batch]
            tokens = _tokens_of(prompts, tokenizer, markup=self.is_chat)
            outputs: list[_Prompt] = []
            for record, prompt in zip(batch, prompts, strict=True):
                before = prompt if self.boundary == "joint" and isinstance(prompt, list) else []
                outputs.append([*before, _Piece(record.output, "answer")])
            answers = _tokens_of(outputs, tokenizer, continued=self.boundary == "separate")
            for record, prompt, own, answer in zip(batch, prompts, tokens, answers, strict=True):
                if isinstance(own, _RefusedError) or isinstance(answer, _RefusedError):
                    refusal = own if isinstance(own, _RefusedError) else answer
                    encoded.append(Encoded(record.id, [], 0, 0, {}, str(refusal)))
                    continue
                ids, rest = own.ids, answer.ids
                if self.boundary == "joint":
                    ids, rest = rest[: len(ids)], rest[len(ids) :]
                # The chat template or the template's own text may have written BOS already.
                prefix = [] if ids[:1] == bos else bos
                spans = _spans(prompt, own.offsets, len(prefix)) if isinstance(prompt, list) else {}
                encoded.append(self._fit(record.id, prefix + ids, rest, spans, tokenizer, eos))
        return encoded

    def _fit(self, record_id, prompt, answer, spans, tokenizer, eos) -> Encoded:
        total = len(answer)
        room = self.max_length - len(prompt)
        flag = EMPTY_ANSWER if total == 0 else PROMPT_FILLS_WINDOW if room <= 0 else None
        if flag:
            return Encoded(record_id, [], 0, total, {}, flag)
        if eos and total < room:
            answer = [*answer, tokenizer.eos_token_id]
        return Encoded(record_id, prompt + answer[:room], len(prompt), total, spans)

    def _bos_ids(self, tokenizer) -> list[int]:
        token = tokenizer.bos_token_id
        if self.bos == "auto":
            adds = token is not None and not self.is_chat and tokenizer("a")["input_ids"][:1] == [token]
            return [token] if adds else []
        if self.bos and token is None:
            raise UserError("template.bos=true, but the tokenizer has no BOS token; set template.bos=auto.")
        return [token] if self.bos else []

    # -- text ------------------------------------------------------------------------------------------

    def _prompt(self, record: Record, view: str, tokenizer, known: dict) -> _Prompt:
        try:
            if view == "clean":
                return self._pieces(record, tokenizer, known)
            if not self.is_chat:
                return [_Piece(self.direct or "", "template")]
            roles = _roles(record)
            if (view, roles) not in known:
                known[view, roles] = self._opening(roles, tokenizer)
            return known[view, roles]
        except _RefusedError as refusal:
            return refusal

    def _pieces(self, record: Record, tokenizer, known: dict) -> list[_Piece]:
        if self.is_chat:
            return self._chat_pieces(record, tokenizer, known)
        chosen = self.without_input if record.input == "" else self.with_input
        parts = {
            "instruction": [_Piece(record.instruction, "instruction")],
            "input": [_Piece(record.input, "input")],
            "turns": [piece for role, text in record.turns for piece in self._turn(role, text)],
        }
        pieces = []
        for literal, name, _, _ in string.Formatter().parse(chosen or ""):
            pieces.append(_Piece(literal, "template"))
            if name is not None:
                if name not in parts:
                    raise UserError(
                        f"template {self.name}: placeholder {{{name}}} is unknown; "
                        f"known: {', '.join('{' + key + '}' for key in parts)}."
                    )
                pieces += parts[name]
        return [piece for piece in pieces if piece.text]

    def _turn(self, role: str, text: str) -> Iterator[_Piece]:
        if role not in self.turns:
            raise _RefusedError(
                f"{TEMPLATE_REFUSES}: template {self.name} has no form for the role {role}, add template.turns.{role}"
            )
        first, *others = self.turns[role].split("{text}")
        yield _Piece(first, "template")
        for literal in others:
            yield from (_Piece(text, "turns"), _Piece(literal, "template"))

    def _chat_pieces(self, record: Record, tokenizer, known: dict) -> list[_Piece]:
        """The rendered chat, cut where the text of each turn begins and ends.

        What the chat template writes around the turns is learned from stand-ins and met again in the real rendering,
        in order. A template may strip blanks off a turn; one that changes more than that refuses the record.
        """
        roles = _roles(record)
        if roles not in known:
            known[roles] = self._around(roles, tokenizer)
        last = f"{record.instruction}\n\n{record.input}" if record.input else record.instruction
        contents = [*(text for _, text in record.turns), last]
        text = self._rendered(roles, contents, tokenizer, True)
        at = len(known[roles][0])
        pieces = [_Piece(text[:at], "template")]
        for content, after in zip(contents, known[roles][1:], strict=True):
            forms = (content, content.strip(), content.lstrip(), content.rstrip())
            form = next((form for form in forms if text.startswith(form + after, at)), None)
            if form is None:
                break
            pieces += [_Piece(form, "turns"), _Piece(after, "template")]
            at += len(form) + len(after)
        if pieces[0].text != known[roles][0] or len(pieces) <= 2 * len(contents) or at != len(text):
            raise _RefusedError(f"{TEMPLATE_REFUSES}: the chat template rewrites the text of a turn")
        pieces[-2:-1] = _last_turn(record, last, pieces[-2].text)
        return [piece for piece in pieces if piece.text]

    def _around(self, roles: tuple[str, ...], tokenizer) -> list[str]:
        """What the chat template writes before, between and behind turns of these roles."""
        marks = _marks(roles)
        rest, around = self._rendered(roles, marks, tokenizer, True), []
        for mark in marks:
            before, found, rest = rest.partition(mark)
            around.append(before if found else _MARK)
        around.append(rest)
        if any(_MARK in text for text in around):
            raise _RefusedError(f"{TEMPLATE_REFUSES}: the chat template drops, repeats or reorders turns")
        return around

    def _opening(self, roles: tuple[str, ...], tokenizer) -> _Tokens:
        """The prompt of an answer alone: what follows the common prefix of the renderings with and without the
        generation prompt. No token of either is cut in two. BOS comes first if the chat template begins with it."""
        texts = [self._rendered(roles, _marks(roles), tokenizer, opened) for opened in (True, False)]
        opened, closed = (_unless_refused(tokens) for tokens in _tokenise(texts, tokenizer, markup=True))
        differing = (i for i, (a, b) in enumerate(zip(*texts, strict=False)) if a != b)
        cut, before = next(differing, min(map(len, texts))), -1
        while cut != before:
            before = cut
            cut = min([cut, *(a for a, b in opened.offsets + closed.offsets if a < cut < b)])
        if _MARK in texts[0][cut:]:
            raise UserError(
                "The tokenizer's chat template changes the turns themselves when an answer is opened, so there is no "
                "prompt of an answer alone; choose template=alpaca, vicuna or plain."
            )
        ids = [token for token, (begin, _) in zip(*opened, strict=True) if begin >= cut]
        begins = opened.ids[:1] == [tokenizer.bos_token_id] != ids[:1]
        return _Tokens(opened.ids[:1] + ids if begins else ids, [])

    def _rendered(self, roles: Sequence[str], contents: Sequence[str], tokenizer, opened: bool) -> str:
        """The tokenizer's own rendering. opened: with its generation prompt."""
        if tokenizer is None or not tokenizer.chat_template:
            raise UserError("template=chat needs a tokenizer with a chat template; choose alpaca, vicuna or plain.")
        messages = [{"role": role, "content": text} for role, text in zip(roles, contents, strict=True)]
        day = datetime.datetime.fromisoformat(self.date)
        # The library's clock is set, because transformers 5 hands no function to a chat template.
        with patch("transformers.utils.chat_template_utils.datetime", SimpleNamespace(now=lambda: day)):
            try:
                return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=opened)
            except TemplateSyntaxError as error:
                raise UserError(f"The tokenizer's chat template is no Jinja template: {_one_line(error)}.") from None
            except Exception as error:  # a template may raise anything, for this record alone
                raise _RefusedError(f"{TEMPLATE_REFUSES}: {_one_line(error)}") from error


def check_eos(tokenizer) -> None:
    """Raises UserError if answers cannot be ended because the tokenizer has no EOS token."""
    if tokenizer.eos_token_id is None:
        raise UserError(
            "The tokenizer has no EOS token, with which a tuned answer must end: set `eos_token` in the "
            "tokenizer_config.json of the backbone's folder, or leave out the stage `tune`."
        )


def text_ids(texts: Sequence[str], tokenizer) -> list[list[int]]:
    """Ids of texts of records, each a text of its own, without BOS: control tokens in them are text. Empty for a text
    that the tokenizer refuses."""
    found = _tokens_of([[_Piece(text, "turns")] for text in texts], tokenizer)
    return [[] if isinstance(tokens, _RefusedError) else tokens.ids for tokens in found]


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


def _roles(record: Record) -> tuple[str, ...]:
    return (*(role for role, _ in record.turns), "user")


_MARK = "\ue000"  # a private-use character, which no template holds


def _marks(roles: Sequence[str]) -> list[str]:
    return [f"{_MARK}{i}\ue001" for i in range(len(roles))]


def _last_turn(record: Record, content: str, form: str) -> list[_Piece]:
    """Instruction, blank line and input in the last turn, whose outer blanks the chat template may have stripped."""
    start = content.index(form)  # `form` is `content` without some of its outer blanks
    pieces, begin = [], -start
    for text, role in ((record.instruction, "instruction"), ("\n\n", "turns"), (record.input, "input")):
        end = begin + len(text)
        pieces.append(_Piece(form[max(begin, 0) : max(end, 0)], role))
        begin = end
    return pieces


def _one_line(error: Exception) -> str:
    """A foreign error in one line, with its kind unless it is the template's own refusal."""
    reason = " ".join(str(error).split())[:_REASON]
    return reason if isinstance(error, TemplateError) and reason else f"{type(error).__name__}: {reason}"


# -- tokens --------------------------------------------------------------------------------------------


def _tokenise(texts: Sequence[str], tokenizer, markup: bool = False) -> list[_Tokens | _RefusedError]:
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
            return [_RefusedError(f"{TOKENIZER_FAILS}: {_one_line(error)}")]
        return [tokens for text in texts for tokens in _tokenise([text], tokenizer, markup)]
    return [_Tokens(*pair) for pair in zip(out["input_ids"], out["offset_mapping"], strict=True)]


def _continue(texts: Sequence[str], tokenizer, markup: bool = False) -> list[_Tokens | _RefusedError]:
    """Ids of texts that go on after another text: as `_tokenise`, without the blank that some tokenizers put first.

    Such a tokenizer is given the text behind an anchor, whose tokens are taken off again. Where no token covers both,
    what follows is the tokenizer's best for the text alone, so the anchor leaves no trace.
    """
    if not _puts_blank(tokenizer):
        return _tokenise(texts, tokenizer, markup)
    results: list = [_RefusedError(f"{TOKENIZER_FAILS}: no text can go before this one")] * len(texts)
    left = list(range(len(texts)))
    for anchor in _ANCHORS:
        merged = []
        for i, tokens in zip(left, _tokenise([anchor + texts[i] for i in left], tokenizer, markup), strict=True):
            if isinstance(tokens, _RefusedError):
                results[i] = tokens
                continue
            n = sum(begin < len(anchor) for begin, _ in tokens.offsets)
            if n == 0 or any(end > len(anchor) for _, end in tokens.offsets[:n]):
                merged.append(i)
                continue
            offsets = [(begin - len(anchor), end - len(anchor)) for begin, end in tokens.offsets[n:]]
            results[i] = _Tokens(tokens.ids[n:], offsets)
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


def _tokens_of(
    prompts: Sequence[_Prompt], tokenizer, markup: bool = False, continued: bool = False
) -> list[_Tokens | _RefusedError]:
    """Each prompt's pieces tokenised as one text, all prompts at once.

    Where a control token comes of it in text of the record, that prompt is tokenised again in parts. markup: the
    template's own pieces hold control tokens. continued: the texts go on after others.
    """
    asked = [prompt for prompt in prompts if isinstance(prompt, list)]
    texts = ["".join(piece.text for piece in pieces) for pieces in asked]
    found = (_continue if continued else _tokenise)(texts, tokenizer, markup)
    control = control_ids(tokenizer)
    for i, (text, pieces, tokens) in enumerate(zip(texts, asked, found, strict=True)):
        if not isinstance(tokens, _RefusedError) and _control_in_record(tokens, text, pieces, control):
            found[i] = _in_parts(text, pieces, tokenizer, markup, continued)
    results = iter(found)
    return [next(results) if isinstance(prompt, list) else prompt for prompt in prompts]


def _control_in_record(
    tokens: _Tokens, text: str, pieces: list[_Piece], control: frozenset[int]
) -> list[tuple[int, int]]:
    """Character ranges of control tokens in text of the record."""
    if control.isdisjoint(tokens.ids):
        return []
    ranges = [(begin, end) for piece, begin, end in _places(pieces) if piece.role != "template"]
    return [
        (a, b)
        for token, (a, b) in zip(*tokens, strict=True)
        if token in control and any(_holds(text, a, b, *own) for own in ranges)
    ]


def _holds(text: str, a: int, b: int, begin: int, end: int) -> bool:
    """Whether [a, b) has a part in [begin, end). A template's marker may take blanks beside it along."""
    common = text[max(a, begin) : min(b, end)]
    return bool(common.strip() or (common and not text[a:b].strip()))


def _in_parts(text: str, pieces: list[_Piece], tokenizer, markup: bool, continued: bool) -> _Tokens | _RefusedError:
    """Ids of a prompt whose record holds a control token.

    With markup, text of the record and of the template are tokenised apart, and special tokens parsed in the latter
    only. A control token that is still there is cut in two, again and again.
    Raises UserError for a control token of a single character.
    """
    parts = [(0, len(text), False)]
    if markup:
        parts = []
        for piece, begin, end in _places(pieces):
            own = piece.role == "template"
            if parts and parts[-1][2] == own:
                begin = parts.pop()[0]
            parts.append((begin, end, own))
    control = control_ids(tokenizer)
    while True:
        whole = _Tokens([], [])
        for n, tokens in enumerate(_tokenise_parts(text, parts, tokenizer, continued)):
            if isinstance(tokens, _RefusedError):
                return tokens
            begin = parts[n][0]
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


def _tokenise_parts(text: str, parts: list[tuple[int, int, bool]], tokenizer, continued: bool) -> list:
    """Tokens of each part; the first begins the text unless that goes on after another."""
    results: list = [None] * len(parts)
    for markup in (False, True):
        for first in (False, True):
            function = _tokenise if first and not continued else _continue
            where = [n for n, (_, _, own) in enumerate(parts) if own == markup and (n == 0) == first]
            texts = [text[parts[n][0] : parts[n][1]] for n in where]
            for n, tokens in zip(where, function(texts, tokenizer, markup), strict=True):
                results[n] = tokens
    return results


def _places(pieces: Sequence[_Piece]) -> Iterator[tuple[_Piece, int, int]]:
    """Each piece with its half-open range of characters in the whole."""
    begin = 0
    for piece in pieces:
        yield piece, begin, begin + len(piece.text)
        begin += len(piece.text)


def _spans(pieces: Sequence[_Piece], offsets: list, base: int) -> dict[str, tuple[int, int]]:
    """Token range of the instruction and the input, `base` tokens further on.

    A token that straddles two pieces belongs to the piece in which it ends: a word's leading space is often
    the template's, the word is the record's.
    """
    spans = {}
    for piece, begin, end in _places(pieces):
        if piece.role in ("instruction", "input"):
            inside = [i for i, (_, stop) in enumerate(offsets) if begin < stop <= end]
            if inside:
                spans[piece.role] = (base + inside[0], base + inside[-1] + 1)
    return spans


def _unless_refused(tokens: _Tokens | _RefusedError) -> _Tokens:
    if isinstance(tokens, _RefusedError):
        raise tokens
    return tokens
