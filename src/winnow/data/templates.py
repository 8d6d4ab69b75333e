"""Prompt templates: from a record to token ids, with the place of every part known by construction.

Template text, tokenizer and truncation live in this module and nowhere else. The text of a record is never
searched: a record may itself contain `### Response:`. Each part's character span is known while the prompt is
put together, and the fast tokenizer's offsets carry it over to tokens.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass

from winnow.data.records import Record
from winnow.errors import UserError
from winnow.store.describe import Free

# Reasons for which a record has nothing to score or to train on.
PROMPT_FILLS_WINDOW = "prompt_fills_window"
EMPTY_ANSWER = "empty_answer"

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

    @property
    def truncated(self) -> bool:
        """True if answer tokens were cut off."""
        return len(self.ids) - self.answer_start < self.answer_total


@dataclass(frozen=True)
class _Piece:
    """A stretch of prompt text. role: `template`, `turns`, `instruction` or `input`.

    control: the text is the tokenizer's own chat markup, in which special tokens mean themselves. In every
    other piece a look-alike such as `<|im_end|>` is ordinary text.
    """

    text: str
    role: str
    control: bool = False


class Template:
    """How a record becomes a prompt, and a prompt and its answer become tokens.

    with_input, without_input: format strings with {instruction}, {input} and, where earlier turns are to be
    shown, {turns}; `without_input` is used when the input is the empty string. Both None: the tokenizer's own
    chat template. direct: the prompt of the `direct` view, in which the instruction is removed; s(A).
    turns: format strings with {text} for the roles system, user and assistant of earlier turns.
    bos: `auto` (as the tokenizer itself does), True or False. boundary: `separate` (prompt and answer are
    tokenised apart and joined; no token can straddle the boundary) or `joint` (one text, as the published IFD
    code does; the answer then starts after as many tokens as the prompt alone has). max_length: window in tokens.
    """

    def __init__(
        self,
        name: Free[str],
        with_input: str | None,
        without_input: str | None,
        direct: str | None = "",
        turns: dict[str, str] | None = None,
        bos: bool | str = "auto",
        boundary: str = "separate",
        max_length: int = 512,
    ) -> None:
        if bos not in ("auto", True, False):
            raise UserError(f"template.bos={bos} is unknown; choose auto, true or false.")
        if boundary not in ("separate", "joint"):
            raise UserError(f"template.boundary={boundary} is unknown; choose separate or joint.")
        if max_length < 2:
            raise UserError(f"template.max_length={max_length} leaves no room for an answer; give at least 2 tokens.")
        self.name, self.bos, self.boundary, self.max_length = name, bos, boundary, max_length
        self.with_input, self.without_input, self.direct = with_input, without_input, direct
        self.turns = dict(turns or {})

    @property
    def is_chat(self) -> bool:
        """True if the tokenizer's own chat template is used."""
        return self.with_input is None

    def render(self, record: Record, tokenizer=None) -> str:
        """The prompt as text, up to where the answer begins. A chat template needs the tokenizer."""
        return "".join(piece.text for piece in self._pieces(record, "clean", tokenizer))

    def encode(self, records: Sequence[Record], tokenizer, view: str = "clean", eos: bool = False) -> list[Encoded]:
        """Token ids of every record's prompt and answer, in the order of `records`.

        view: `clean` (the whole prompt), or `direct` (the instruction removed). eos: append the tokenizer's EOS
        to the answer where it fits the window uncut. The answer is cut on the right so that prompt and answer
        fit `max_length`; the prompt is never cut: where it leaves no room the result is flagged instead.
        """
        if view not in VIEWS:
            raise ValueError(f"unknown view {view!r}; known: {VIEWS}")
        bos = self._bos_ids(tokenizer)
        encoded: list[Encoded] = []
        for start in range(0, len(records), _BATCH):
            batch = records[start : start + _BATCH]
            pieces = [self._pieces(record, view, tokenizer) for record in batch]
            answers = self._tokenise([record.output for record in batch], tokenizer)["input_ids"]
            joint = self._joint_ids(pieces, batch, tokenizer) if self.boundary == "joint" else None
            prompts = self._prompt_ids(pieces, tokenizer)
            for i, record in enumerate(batch):
                ids, spans = prompts[i]
                prefix = [] if self._starts_with_bos(ids, bos) else bos
                answer = answers[i] if joint is None else joint[i][len(ids) :]
                prompt = ids if joint is None else joint[i][: len(ids)]
                spans = {role: (a + len(prefix), b + len(prefix)) for role, (a, b) in spans.items()}
                encoded.append(self._fit(record.id, prefix + prompt, answer, spans, tokenizer, eos))
        return encoded

    def _fit(self, record_id, prompt, answer, spans, tokenizer, eos) -> Encoded:
        total = len(answer)
        room = self.max_length - len(prompt)
        flag = EMPTY_ANSWER if total == 0 else PROMPT_FILLS_WINDOW if room <= 0 else None
        if flag:
            return Encoded(record_id, [], 0, total, {}, flag)
        if eos and total < room:
            answer = answer + [tokenizer.eos_token_id]
        return Encoded(record_id, prompt + answer[:room], len(prompt), total, spans)

    # -- text ------------------------------------------------------------------------------------------

    def _pieces(self, record: Record, view: str, tokenizer) -> list[_Piece]:
        if self.is_chat:
            return self._chat_pieces(record, view, tokenizer)
        if view == "direct":
            return [_Piece(self.direct or "", "template")]
        chosen = self.without_input if record.input == "" else self.with_input
        values = {
            "instruction": record.instruction,
            "input": record.input,
            "turns": "".join(self._turn(role, text) for role, text in record.turns),
        }
        pieces = []
        for literal, name, _, _ in string.Formatter().parse(chosen):
            if literal:
                pieces.append(_Piece(literal, "template"))
            if name is not None:
                if name not in values:
                    raise UserError(
                        f"template {self.name}: placeholder {{{name}}} is unknown; "
                        f"known: {', '.join('{' + key + '}' for key in values)}."
                    )
                if values[name]:
                    pieces.append(_Piece(values[name], name))
        return pieces

    def _turn(self, role: str, text: str) -> str:
        if role not in self.turns:
            raise UserError(
                f"template {self.name} has no form for an earlier turn of role {role}; "
                f"add template.turns.{role}, or use template=chat."
            )
        return self.turns[role].replace("{text}", text)

    def _chat_pieces(self, record: Record, view: str, tokenizer) -> list[_Piece]:
        """The chat template rendered around stand-ins, then cut at the stand-ins; contents never meet Jinja.

        The direct view keeps the assistant's opening only: what the template renders for the generation prompt.
        """
        if tokenizer is None or not tokenizer.chat_template:
            raise UserError("template=chat needs a tokenizer with a chat template; choose alpaca, vicuna or plain.")
        # Private-use characters that no template holds; the record's text is put in afterwards.
        marks = [f"\ue000{i}\ue001" for i in range(len(record.turns) + 1)]
        messages = [{"role": role, "content": mark} for (role, _), mark in zip(record.turns, marks, strict=False)]
        messages.append({"role": "user", "content": marks[-1]})

        def rendered(opening: bool) -> str:
            return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=opening)

        text = rendered(True)
        if view == "direct":
            return [_Piece(text[len(rendered(False)) :], "template", control=True)]
        pieces, rest = [], text
        for mark, turn in zip(marks, [*record.turns, None], strict=True):
            before, found, rest = rest.partition(mark)
            if not found:
                raise UserError("template=chat: the tokenizer's chat template drops or reorders turns of a record.")
            pieces.append(_Piece(before, "template", control=True))
            if turn is not None:
                pieces.append(_Piece(turn[1], "turns"))
                continue
            pieces.append(_Piece(record.instruction, "instruction"))
            if record.input:
                pieces += [_Piece("\n\n", "template"), _Piece(record.input, "input")]
        pieces.append(_Piece(rest, "template", control=True))
        return [piece for piece in pieces if piece.text]

    # -- tokens ----------------------------------------------------------------------------------------

    def _bos_ids(self, tokenizer) -> list[int]:
        token = tokenizer.bos_token_id
        if self.bos == "auto":
            return [token] if token is not None and tokenizer("a")["input_ids"][:1] == [token] else []
        if self.bos and token is None:
            raise UserError("template.bos=true, but the tokenizer has no BOS token; set template.bos=auto.")
        return [token] if self.bos else []

    @staticmethod
    def _starts_with_bos(ids: list[int], bos: list[int]) -> bool:
        # A chat template may write BOS itself; it must not stand there twice.
        return bool(bos) and ids[:1] == bos

    @staticmethod
    def _tokenise(texts: list[str], tokenizer, control: bool = False):
        return tokenizer(
            texts,
            add_special_tokens=False,
            return_offsets_mapping=True,
            return_attention_mask=False,
            split_special_tokens=not control,
            verbose=False,  # a text beyond the model's window is cut or flagged by us
        )

    def _joint_ids(self, pieces, batch, tokenizer) -> list[list[int]]:
        if self.is_chat:
            raise UserError("template.boundary=joint works for text templates only; use separate with template=chat.")
        texts = [
            "".join(piece.text for piece in parts) + record.output for parts, record in zip(pieces, batch, strict=True)
        ]
        return self._tokenise(texts, tokenizer)["input_ids"]

    def _prompt_ids(self, pieces: list[list[_Piece]], tokenizer) -> list[tuple[list[int], dict]]:
        """Ids and token spans of each prompt.

        Neighbouring pieces of one kind are tokenised as one text, as the model met them in training; control
        pieces apart, because only in them special tokens are parsed.
        """
        runs = [_runs(parts) for parts in pieces]
        flat = [(run[0].control, "".join(piece.text for piece in run)) for parts in runs for run in parts]
        tokenised = self._tokenise_runs(flat, tokenizer)
        results, cursor = [], 0
        for parts in runs:
            ids: list[int] = []
            spans: dict[str, tuple[int, int]] = {}
            for run in parts:
                run_ids, offsets = tokenised[cursor]
                cursor += 1
                spans |= _token_spans(run, offsets, len(ids))
                ids = ids + run_ids
            results.append((ids, spans))
        return results

    def _tokenise_runs(self, flat: list[tuple[bool, str]], tokenizer) -> list[tuple[list[int], list]]:
        results: list = [None] * len(flat)
        for control in (False, True):
            where = [i for i, (kind, _) in enumerate(flat) if kind == control]
            if where:
                out = self._tokenise([flat[i][1] for i in where], tokenizer, control)
                for i, ids, offsets in zip(where, out["input_ids"], out["offset_mapping"], strict=True):
                    results[i] = (ids, offsets)
        return results


def _runs(pieces: list[_Piece]) -> list[list[_Piece]]:
    runs: list[list[_Piece]] = []
    for piece in pieces:
        if runs and runs[-1][0].control == piece.control:
            runs[-1].append(piece)
        else:
            runs.append([piece])
    return runs


def _token_spans(run: list[_Piece], offsets: list, base: int) -> dict[str, tuple[int, int]]:
    """Token range of the instruction and the input in one tokenised run.

    A token that straddles two pieces belongs to the piece in which it ends: a word's leading space is often
    the template's, the word is the record's.
    """
    spans, begin = {}, 0
    for piece in run:
        end = begin + len(piece.text)
        if piece.role in ("instruction", "input"):
            inside = [i for i, (_, stop) in enumerate(offsets) if begin < stop <= end]
            if inside:
                spans[piece.role] = (base + inside[0], base + inside[-1] + 1)
        begin = end
    return spans
