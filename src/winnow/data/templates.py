"""Prompt templates: from a record to token ids, with the place of every part known by construction.

Template text and truncation live in this module and nowhere else, the tokenizer in `winnow.data.tokens`. The text of a
record is never searched: a record may itself contain `### Response:`. Each part's character span is known while the
prompt is put together, and the fast tokenizer's offsets carry it over to tokens.

Three promises hold for every fast tokenizer:

- A chat prompt has the ids of `apply_chat_template(tokenize=True)`, unless the record's text holds a control token.
- A control token in the text of a record is text: no id that ends an answer or opens a turn comes from it.
- The ids of an answer depend on the answer alone, and no blank is put before it.
"""

from __future__ import annotations

import copy
import datetime
import string
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import ClassVar
from unittest.mock import patch

from jinja2 import TemplateSyntaxError

from winnow.data.records import Record
from winnow.data.tokens import Piece, Prompt, RefusedError, Tokens, one_line, places, tokenise, tokens_of
from winnow.errors import UserError, check_choice
from winnow.store.describe import Free

# Reasons for which a record has nothing to score or to train on, beside `tokens.TOKENIZER_FAILS`. The last is followed
# by a colon and the reason that the chat template itself gives.
PROMPT_FILLS_WINDOW = "prompt_fills_window"
EMPTY_ANSWER = "empty_answer"
TEMPLATE_REFUSES = "template_refuses_turns"

VIEWS = ("clean", "direct")
_BATCH = 1000  # records handed to the tokenizer at once; bounds memory, changes nothing else


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


class Template:
    """How a record becomes a prompt, and a prompt and its answer become tokens.

    with_input, without_input: format strings with {instruction}, {input} and, where a record may have earlier turns,
    {turns}; `without_input` is used when the input is the empty string. Both None: the tokenizer's own chat template.
    direct: the prompt of the `direct` view, in which the instruction is removed; s(A). turns: format strings with
    {text} for the roles system, user and assistant of earlier turns.
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
        check_choice("template.boundary", boundary, ("separate", "joint"))
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
        if with_input is not None and without_input is not None:
            # One form for both may have no place for an input; a record with one is then refused.
            needed = ("instruction",) if with_input == without_input else ("instruction", "input")
            _check_placeholders("template.with_input", with_input, needed)
            _check_placeholders("template.without_input", without_input, ("instruction",))
        for role, text in (turns or {}).items():
            if "{text}" not in text:
                raise UserError(f"template.turns.{role}={text!r} drops the turn; write {{text}} where its text stands.")
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
        except RefusedError as refusal:
            raise UserError(
                f"Record {record.id} has no prompt ({refusal}); take it out or use template=alpaca."
            ) from None

    @property
    def alone(self) -> Template:
        """This template for those who read the prompt alone: no token of the prompt reaches into the answer."""
        other = copy.copy(self)
        other.boundary = "separate"
        return other

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
        if eos and tokenizer.eos_token_id is None:
            raise UserError(
                "The tokenizer has no EOS token, with which a tuned answer must end: set `eos_token` in the "
                "tokenizer_config.json of the backbone's folder, or leave out the stage `tune`."
            )
        bos = self._bos_ids(tokenizer)
        known: dict = {}  # what the chat template writes around the turns, for each order of roles
        encoded: list[Encoded] = []
        for start in range(0, len(records), _BATCH):
            batch = records[start : start + _BATCH]
            prompts = [self._prompt(record, view, tokenizer, known) for record in batch]
            tokens = tokens_of(prompts, tokenizer, markup=self.is_chat)
            outputs: list[Prompt] = []
            for record, prompt in zip(batch, prompts, strict=True):
                before = prompt if self.boundary == "joint" and isinstance(prompt, list) else []
                outputs.append([*before, Piece(record.output, "answer")])
            answers = tokens_of(outputs, tokenizer, continued=self.boundary == "separate")
            for record, prompt, own, answer in zip(batch, prompts, tokens, answers, strict=True):
                if isinstance(own, RefusedError) or isinstance(answer, RefusedError):
                    refusal = own if isinstance(own, RefusedError) else answer
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

    def _prompt(self, record: Record, view: str, tokenizer, known: dict) -> Prompt:
        try:
            if view == "clean":
                return self._pieces(record, tokenizer, known)
            if not self.is_chat:
                return [Piece(self.direct or "", "template")]
            roles = _roles(record)
            if (view, roles) not in known:
                known[view, roles] = self._opening(roles, tokenizer)
            return known[view, roles]
        except RefusedError as refusal:
            return refusal

    def _pieces(self, record: Record, tokenizer, known: dict) -> list[Piece]:
        if self.is_chat:
            return self._chat_pieces(record, tokenizer, known)
        chosen = self.without_input if record.input == "" else self.with_input
        parts = {
            "instruction": [Piece(record.instruction, "instruction")],
            "input": [Piece(record.input, "input")],
            "turns": [piece for role, text in record.turns for piece in self._turn(role, text)],
        }
        fields = list(string.Formatter().parse(chosen))
        shown = {name for _, name, *_ in fields}
        for name, own in parts.items():
            if name not in shown and any(piece.text for piece in own):
                raise RefusedError(f"{TEMPLATE_REFUSES}: template {self.name} drops the {name}, add {{{name}}}")
        pieces = []
        for literal, name, *_ in fields:
            pieces.append(Piece(literal, "template"))
            pieces += parts[name] if name is not None else []
        return [piece for piece in pieces if piece.text]

    def _turn(self, role: str, text: str) -> Iterator[Piece]:
        if role not in self.turns:
            raise RefusedError(
                f"{TEMPLATE_REFUSES}: template {self.name} has no form for the role {role}, add template.turns.{role}"
            )
        first, *others = self.turns[role].split("{text}")
        yield Piece(first, "template")
        for literal in others:
            yield from (Piece(text, "turns"), Piece(literal, "template"))

    def _chat_pieces(self, record: Record, tokenizer, known: dict) -> list[Piece]:
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
        pieces = [Piece(text[:at], "template")]
        for content, after in zip(contents, known[roles][1:], strict=True):
            forms = (content, content.strip(), content.lstrip(), content.rstrip())
            form = next((form for form in forms if text.startswith(form + after, at)), None)
            if form is None:
                break
            pieces += [Piece(form, "turns"), Piece(after, "template")]
            at += len(form) + len(after)
        if pieces[0].text != known[roles][0] or len(pieces) <= 2 * len(contents) or at != len(text):
            raise RefusedError(f"{TEMPLATE_REFUSES}: the chat template rewrites the text of a turn")
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
            raise RefusedError(f"{TEMPLATE_REFUSES}: the chat template drops, repeats or reorders turns")
        return around

    def _opening(self, roles: tuple[str, ...], tokenizer) -> Tokens:
        """The prompt of an answer alone: what follows the common prefix of the renderings with and without the
        generation prompt. No token of either is cut in two. BOS comes first if the chat template begins with it."""
        texts = [self._rendered(roles, _marks(roles), tokenizer, opened) for opened in (True, False)]
        opened, closed = both = tokenise(texts, tokenizer, markup=True)
        for refusal in both:
            if isinstance(refusal, RefusedError):
                raise refusal
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
        return Tokens(opened.ids[:1] + ids if begins else ids, [])

    def _rendered(self, roles: Sequence[str], contents: Sequence[str], tokenizer, opened: bool) -> str:
        """The tokenizer's own rendering. opened: with its generation prompt."""
        if tokenizer is None or not tokenizer.chat_template:
            raise UserError("template=chat needs a tokenizer with a chat template; choose alpaca, vicuna or plain.")
        messages = [{"role": role, "content": text} for role, text in zip(roles, contents, strict=True)]
        with dated(self.date):
            try:
                return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=opened)
            except TemplateSyntaxError as error:
                raise UserError(f"The tokenizer's chat template is no Jinja template: {one_line(error)}.") from None
            except Exception as error:  # a template may raise anything, for this record alone
                raise RefusedError(f"{TEMPLATE_REFUSES}: {one_line(error)}") from error


def dated(date: str) -> AbstractContextManager:
    """Inside the block a chat template that writes today's date is told this day."""
    day = datetime.datetime.fromisoformat(date)
    # The library's clock is set, because transformers 5 hands no function to a chat template.
    return patch("transformers.utils.chat_template_utils.datetime", SimpleNamespace(now=lambda: day))


def _check_placeholders(key: str, text: str, needed: Sequence[str]) -> None:
    try:
        names = {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}
    except ValueError as error:
        raise UserError(f"{key} is no format string ({error}); write {{{{ and }}}} for braces of the text.") from None
    for name in sorted(names - {"instruction", "input", "turns"}):
        raise UserError(f"{key}: placeholder {{{name}}} is unknown; known: {{instruction}}, {{input}}, {{turns}}.")
    for name in needed:
        if name not in names:
            raise UserError(f"{key}={text!r} drops the {name}; write {{{name}}} where its text stands.")


def _roles(record: Record) -> tuple[str, ...]:
    return (*(role for role, _ in record.turns), "user")


_MARK = "\ue000"  # a private-use character, which no template holds


def _marks(roles: Sequence[str]) -> list[str]:
    return [f"{_MARK}{i}\ue001" for i in range(len(roles))]


def _last_turn(record: Record, content: str, form: str) -> list[Piece]:
    """Instruction, blank line and input in the last turn, whose outer blanks the chat template may have stripped."""
    start = content.index(form)  # `form` is `content` without some of its outer blanks
    pieces, begin = [], -start
    for text, role in ((record.instruction, "instruction"), ("\n\n", "turns"), (record.input, "input")):
        end = begin + len(text)
        pieces.append(Piece(form[max(begin, 0) : max(end, 0)], role))
        begin = end
    return pieces


def _spans(pieces: Sequence[Piece], offsets: list, base: int) -> dict[str, tuple[int, int]]:
    """Token range of the instruction and the input, `base` tokens further on.

    A token that straddles two pieces belongs to the piece in which it ends: a word's leading space is often
    the template's, the word is the record's.
    """
    spans = {}
    for piece, begin, end in places(pieces):
        if piece.role in ("instruction", "input"):
            inside = [i for i, (_, stop) in enumerate(offsets) if begin < stop <= end]
            if inside:
                spans[piece.role] = (base + inside[0], base + inside[-1] + 1)
    return spans
