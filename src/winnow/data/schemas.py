"""How each known schema spells a record, and how a schema is recognised from what its rows hold.

Chats (lima, sharegpt, messages): the last assistant turn is the answer, the user turn right before it is the
instruction, everything earlier is context. Turns after the last assistant turn have no answer and are not read.
Texts are never stripped or changed, with one exception: rows of `flan_cot` from FLAN's TSV files (see `_reasoned`). An
optional column that is null, as in tables merged from sources with and without it, is absent.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from winnow.errors import UserError

Row = Mapping[str, Any]
Turn = tuple[str, str]  # role and text


class Fields(NamedTuple):
    """The texts of a record; turns as in `Record.turns`."""

    instruction: str
    input: str
    output: str
    turns: tuple[Turn, ...] = ()


class BadRow(ValueError):
    """A row that cannot become a record; the message is the reason, without file and line."""


class Schema(NamedTuple):
    """matches: does a row look like it? read: the row's fields; raises BadRow. shape: for people. parts: the row once
    for each of its answers, cut after it. unread: names of what the row holds and `read` does not look at."""

    matches: Callable[[Row], bool]
    read: Callable[[Row], Fields]
    shape: str
    parts: Callable[[Row], list[Row]]
    unread: Callable[[Row], Iterable[str]]


CHATS = ("conversations", "conversation", "messages")
SPEAKER_KEYS = ("from", "role")
TEXT_KEYS = ("value", "content")
ROLES = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "model", "bot", "ai"), "assistant"),
}
TOOL_ROLES = ("tool", "function", "function_call", "observation", "ipython")
_NAMES = "data.columns='{turns: COLUMN, role: KEY, content: KEY, user: NAME, assistant: NAME, system_role: NAME}'"
_KINDS = {type(None): "null", str: "a text", bool: "a boolean", list: "a list", dict: "an object"}
_KINDS |= dict.fromkeys((int, float), "a number")


def _kind(value: Any) -> str:
    return _KINDS.get(type(value), f"of type {type(value).__name__}")


def _absent(value: Any) -> bool:
    """Whether a cell holds nothing: null, or the NaN that pandas writes for it."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def _text(row: Row, key: str) -> str:
    if key not in row:
        raise BadRow(f"field `{key}` is missing (keys found: {_keys(row)})")
    if type(row[key]) is not str:
        raise BadRow(f"field `{key}` is {_kind(row[key])}, a text was expected")
    return row[key]


def _optional(row: Row, key: str | None) -> str:
    return "" if _absent(row.get(key)) else _text(row, key)


def _keys(row: Row) -> str:
    return ", ".join(map(str, row)) or "none"


def _others(row: Row, known: Iterable[str | None]) -> list[str]:
    """Columns of a row that hold something and are not among the known ones."""
    return [str(key) for key, value in row.items() if key not in known and not _absent(value) and value not in ("", [])]


def _has(*keys: str) -> Callable[[Row], bool]:
    return lambda row: all(key in row for key in keys)


# -- columns of texts ------------------------------------------------------------------------------------


def _flat(
    instruction: str,
    inputs: tuple[str, ...],
    output: str,
    shape: str,
    system: str | None = "system",
    history: str | None = "history",
) -> Schema:
    """Columns of texts. All but instruction and output may be absent.

    inputs: columns of the input; where several hold a text, they are joined by a blank line (ours). system: the text of
    a system turn. history: earlier [question, answer] pairs, oldest first.
    """

    def earlier_pairs(row: Row) -> list[list[str]]:
        value = row.get(history)
        if _absent(value) or value == "":
            return []
        try:
            pairs = _parsed(value, history)
            for number, pair in enumerate(pairs if isinstance(pairs, list) else [pairs], 1):
                if not isinstance(pair, list) or [type(text) for text in pair] != [str, str]:
                    raise BadRow(f"pair {number} of `{history}` is no list of two texts, question and answer")
            return pairs
        except BadRow as error:
            given = next((key for key in inputs if key in row), None)
            others = {"instruction": instruction, "output": output, "input": given, "system": system}
            names = ", ".join(f"{field}: {column}" for field, column in others.items() if column in row)
            raise BadRow(f"{error}; to leave it out, set data.columns='{{{names}}}'") from None

    def read(row: Row) -> Fields:
        asked, answer = _text(row, instruction), _text(row, output)
        given = "\n\n".join(filter(None, (_optional(row, key) for key in inputs)))
        told = _optional(row, system)
        turns = [("system", told)] if told else []
        for question, reply in earlier_pairs(row):
            turns += [("user", question), ("assistant", reply)]
        return Fields(asked, given, answer, tuple(turns))

    def parts(row: Row) -> list[Row]:
        pairs = earlier_pairs(row)
        no_input = {key: "" for key in inputs if key in row}
        earlier = [
            {**row, **no_input, instruction: question, output: reply, history: _like(row[history], pairs[:i])}
            for i, (question, reply) in enumerate(pairs)
        ]
        return [*earlier, row]

    known = (instruction, *inputs, output, system, history)
    return Schema(_has(instruction, output), read, shape, parts, lambda row: _others(row, known))


def _reasoned(question: str, rationale: str, answer: str, from_tsv: str | None = None) -> Schema:
    """Chain-of-thought rows: output = rationale, line break, `The answer is ` and the answer.

    from_tsv: the column that marks rows of FLAN's TSV files, which write a line break as the two characters `\\n`;
    FLAN's own loader (flan/v2/preprocessors.py, simple_cot_tsv) turns them into line breaks in question and rationale,
    and so do we. In other rows they may be LaTeX (`\\neq`) or code, and stay. The output's wording is that of FLAN's
    templates `{cot}\\nThe answer is {answer}`.
    """

    def read(row: Row) -> Fields:
        asked, why = _text(row, question), _text(row, rationale)
        if from_tsv in row:
            asked, why = asked.replace("\\n", "\n"), why.replace("\\n", "\n")
        return Fields(asked, "", f"{why}\nThe answer is {_text(row, answer)}")

    keys = (question, rationale, answer)
    return Schema(_has(*keys), read, ", ".join(keys), lambda row: [row], lambda row: _others(row, keys))


# -- chats -----------------------------------------------------------------------------------------------


class _Chat:
    """Readers of a chat: a list of turns, an object of lists, or either of them as JSON text in a table's cell.

    A turn is an object that says who speaks and what, or a text (user first, then in turn). columns: where the turns
    may be. speakers, texts: keys of a turn, the first that holds something is taken. roles: names of roles, in small
    letters. system: a column whose text is a system turn before the others.
    """

    def __init__(
        self,
        columns: tuple[str, ...] = CHATS,
        speakers: tuple[str, ...] = SPEAKER_KEYS,
        texts: tuple[str, ...] = TEXT_KEYS,
        roles: Mapping[str, str] = ROLES,
        system: str | None = "system",
    ) -> None:
        self.columns, self.speakers, self.texts, self.roles, self.system = columns, speakers, texts, roles, system

    def schema(self, shape: str, first: Callable[[Any], bool]) -> Schema:
        """first: whether the first turn is one of the schema's."""

        def matches(row: Row) -> bool:
            try:
                turns = self._list(row)[1]
            except BadRow:
                return False
            return bool(turns) and first(turns[0])

        return Schema(matches, self.read, shape, self.parts, self.unread)

    def read(self, row: Row) -> Fields:
        turns = self._turns(row)
        last = max((i for i, (role, _) in enumerate(turns) if role == "assistant"), default=None)
        if last is None:
            raise BadRow("the conversation has no assistant turn")
        if last == 0 or turns[last - 1][0] != "user":
            before = "nothing" if last == 0 else f"a turn of the {turns[last - 1][0]}"
            raise BadRow(f"the last assistant turn (turn {last + 1}) follows {before}, a user turn was expected")
        earlier, told = turns[: last - 1], _optional(row, self.system)
        if told and ("system", told) not in earlier[:1]:
            if earlier and earlier[0][0] == "system":
                raise BadRow(f"`{self.system}` and the first turn are two different system texts")
            earlier = [("system", told), *earlier]
        return Fields(turns[last - 1][1], "", turns[last][1], tuple(earlier))

    def parts(self, row: Row) -> list[Row]:
        key, turns = self._list(row)
        ends = self._ends([role for role, _ in self._turns(row)])
        return [row if end == len(turns) else {**row, key: _like(row[key], turns[:end])} for end in ends] or [row]

    @staticmethod
    def _ends(roles: list[str]) -> list[int]:
        """How many turns there are up to each answer that follows a user turn."""
        return [i + 1 for i in range(1, len(roles)) if roles[i - 1 : i + 1] == ["user", "assistant"]]

    def unread(self, row: Row) -> Iterator[str]:
        key, turns = self._list(row)
        yield from _others(row, (key, self.system))
        for turn in turns:
            if isinstance(turn, Mapping):
                known = (self._key(turn, self.speakers), self._key(turn, self.texts))
                yield from (f"{key}.{name}" for name in _others(turn, known))
        roles = [role for role, _ in self._turns(row)]
        later = roles[self._ends(roles)[-1] :]
        if "assistant" in later:
            yield "answers that follow no user turn"
        if later and later[-1] != "assistant":
            yield "turns after the last answer"

    def _list(self, row: Row) -> tuple[str, list[Any]]:
        """The column of the turns, and the turns as a list."""
        found = [key for key in self.columns if not _absent(row.get(key)) and row[key] not in ("", [])]
        if len(found) > 1:
            both = " and ".join(f"`{key}`" for key in found)
            raise BadRow(f"there are turns in {both}; name the column with data.columns='{{turns: COLUMN}}'")
        key = next((key for key in [*found, *self.columns] if key in row), None)
        if key is None:
            wanted = " or ".join(f"`{key}`" for key in self.columns)
            raise BadRow(f"field {wanted} is missing (keys found: {_keys(row)})")
        value = _parsed(row[key], key)
        if isinstance(value, Mapping) and value and all(isinstance(column, list) for column in value.values()):
            if len({len(column) for column in value.values()}) > 1:
                raise BadRow(f"the lists of `{key}` differ in length")
            value = [dict(zip(value, turn, strict=True)) for turn in zip(*value.values(), strict=True)]
        if not isinstance(value, list):
            raise BadRow(f"field `{key}` is {_kind(value)}, a list of turns was expected")
        return key, value

    def _turns(self, row: Row) -> list[Turn]:
        key, turns = self._list(row)
        found = []
        texts = bool(turns) and isinstance(turns[0], str)
        for number, turn in enumerate(turns, 1):
            try:
                if texts and not isinstance(turn, str):
                    raise BadRow(f"is {_kind(turn)}, a text was expected")
                found.append((("assistant", "user")[number % 2], turn) if texts else self._turn(turn))
            except BadRow as error:
                raise BadRow(f"turn {number} of `{key}` {error}") from None
        return found

    def _turn(self, turn: Any) -> Turn:
        if not isinstance(turn, Mapping):
            raise BadRow(f"is {_kind(turn)}, an object with `{self.speakers[-1]}` and `{self.texts[-1]}` was expected")
        speaker, text = self._key(turn, self.speakers), self._key(turn, self.texts)
        if not isinstance(turn.get(speaker), str):
            raise BadRow(f"does not say who speaks (keys found: {_keys(turn)}); name the keys with {_NAMES}")
        name = turn[speaker]
        if name.casefold() in TOOL_ROLES or any(turn.get(call) for call in ("tool_calls", "function_call")):
            raise BadRow(f"({name}) is part of a tool call, which is not read")
        if name.casefold() not in self.roles:
            raise BadRow(f"has the unknown {speaker} {name!r}; known are {', '.join(self.roles)}; for others {_NAMES}")
        if text not in turn:
            raise BadRow(f"has no text (keys found: {_keys(turn)}); name the keys with {_NAMES}")
        return self.roles[name.casefold()], _joined(turn[text])

    @staticmethod
    def _key(turn: Row, keys: tuple[str, ...]) -> str:
        there = [key for key in keys if key in turn]
        return next((key for key in there if not _absent(turn[key])), [*there, keys[-1]][0])


def _joined(content: Any) -> str:
    """The text of a turn; of a list of text parts all of them, nothing between."""
    if not isinstance(content, list):
        if type(content) is not str:
            raise BadRow(f"has a content that is {_kind(content)}, a text was expected")
        return content
    texts = []
    for number, part in enumerate(content, 1):
        text = part.get("text") if isinstance(part, Mapping) and part.get("type", "text") == "text" else part
        if type(text) is not str:
            what = f"of type {part['type']!r}" if isinstance(part, Mapping) and "type" in part else _kind(part)
            raise BadRow(f"has a content whose part {number} is {what}, a text was expected")
        texts.append(text)
    return "".join(texts)


def _parsed(value: Any, key: str) -> Any:
    """The lists and objects of a cell: a table without nested columns holds them as JSON text."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        raise BadRow(f"field `{key}` is a text that is no JSON, a list was expected") from None


def _like(cell: Any, turns: list[Any]) -> Any:
    """Fewer turns in the form that the whole cell has: a list, an object of lists, or JSON text."""
    if isinstance(cell, str):
        return json.dumps(_like(json.loads(cell), turns), ensure_ascii=False)
    if isinstance(cell, Mapping):
        return {name: column[: len(turns)] for name, column in cell.items()}
    return turns


def _speaks(key: str) -> Callable[[Any], bool]:
    return lambda turn: isinstance(turn, Mapping) and (_Chat._key(turn, SPEAKER_KEYS) == key)


_CHAT = _Chat()
SCHEMAS: dict[str, Schema] = {
    "alpaca": _flat("instruction", ("input", "context"), "output", "instruction, [input], output"),
    "dolly": _flat("instruction", ("context", "input"), "response", "instruction, [context], response"),
    "lima": _CHAT.schema("conversations: [text, ...]", lambda turn: isinstance(turn, str)),
    "sharegpt": _CHAT.schema("conversations: [{from, value}, ...]", _speaks("from")),
    "messages": _CHAT.schema("messages: [{role, content}, ...]", _speaks("role")),
    "flan_cot": _reasoned("instruction", "rationale", "answer", from_tsv="source"),
    "cot_collection": _reasoned("source", "rationale", "target"),
}


def known_schemas() -> str:
    """The schemas and their shapes, for messages."""
    return "; ".join(f"{name} ({schema.shape})" for name, schema in SCHEMAS.items())


def read_fields(schema: Schema, row: Any) -> Fields:
    """The fields of one row; raises BadRow where it is no record.

    Refused besides what the schema refuses: a row that is not an object, an empty instruction with an empty
    input, and text that UTF-8 cannot hold. An empty output is let through: scoring flags it.
    """
    if not isinstance(row, Mapping):
        raise BadRow(f"the row is {_kind(row)}, an object was expected")
    fields = schema.read(row)
    if not fields.instruction and not fields.input:
        raise BadRow("instruction and input are both empty")
    for name, text in (*zip(Fields._fields[:3], fields[:3], strict=True), *fields.turns):
        if not text.isascii():
            try:
                text.encode("utf-8")
            except UnicodeEncodeError as error:
                found = text[error.start].encode("unicode_escape").decode("ascii")
                reason = f"{name} holds {found} at character {error.start}, half a surrogate pair"
                raise BadRow(reason) from None
    return fields


def detect_schema(rows: list[tuple[int, Row]], source: str) -> str:
    """The schema that the (row number, row) pairs follow.

    Columns without a value count only where the others fit no schema. Rows of no known schema do not vote, unless a
    column has the name of a chat: then the reader of chats says what is wrong with it. Raises UserError where one row
    fits several schemas, rows differ, or no row follows any.
    """
    found: dict[str, int] = {}
    for number, row in rows:
        names = _fitting({key: value for key, value in row.items() if not _absent(value)}) or _fitting(row)
        if len(names) > 1:
            raise UserError(
                f"{source}: row {number} with the keys {_keys(row)} fits several schemas "
                f"({', '.join(names)}): choose one with data.schema=<name>."
            )
        if names:
            found.setdefault(names[0], number)
    if len(found) > 1:
        first = ", ".join(f"{name} from row {number}" for name, number in found.items())
        raise UserError(
            f"{source} mixes schemas ({first}): choose one with data.schema=<name> (rows that it cannot "
            "read are then refused), or divide the source."
        )
    if not found and all(_absent(row.get(key)) for _, row in rows for key in CHATS):
        keys = list(dict.fromkeys(str(key) for _, row in rows for key in row))
        shown = ", ".join(keys[:20]) + (f" and {len(keys) - 20} more" if len(keys) > 20 else "")
        raise UserError(
            f"{source}: no known schema has the keys {shown or 'none'}; known schemas are {known_schemas()}; for "
            "others name the columns, as in data.columns='{instruction: question, output: reply}', or of chats "
            "data.columns='{turns: dialog}'."
        )
    return next(iter(found), "messages")


def _fitting(row: Row) -> list[str]:
    return [name for name, schema in SCHEMAS.items() if schema.matches(row)]


def column_schema(columns: Mapping[str, str]) -> Schema:
    """The schema of `data.columns`; raises UserError.

    Texts: instruction and output, perhaps input, system and history, to the names of columns. Chats: turns and perhaps
    system to columns, role and content to the keys of a turn, user, assistant and system_role to further names of the
    roles.
    """
    given = columns if isinstance(columns, Mapping) else {}
    known, needed = (_OF_CHATS, {"turns"}) if "turns" in given else (_OF_TEXTS, {"instruction", "output"})
    if not needed <= set(given) <= set(known):
        found = ", ".join(map(str, given)) or "nothing"
        raise UserError(
            f"data.columns={columns} maps {found}; it must map instruction and output, and may map input, system and "
            "history, each to the name of a column; of chats it must map turns, and may map role, content, user, "
            "assistant, system_role and system; null recognises the schema."
        )
    unnamed = [key for key, value in columns.items() if not isinstance(value, str)]
    if unnamed:
        raise UserError(f"data.columns.{unnamed[0]}={columns[unnamed[0]]!r} is no column name.")
    shape, system = ", ".join(columns.values()), columns.get("system")
    if "turns" in columns:
        roles = ROLES | {columns[key].casefold(): key.removesuffix("_role") for key in _OF_ROLES if key in columns}
        keys = [(columns[name],) if name in columns else usual for name, usual in _KEYS_OF_TURNS]
        return _Chat((columns["turns"],), *keys, roles, system).schema(shape, lambda turn: True)
    inputs = (columns["input"],) if "input" in columns else ()
    return _flat(columns["instruction"], inputs, columns["output"], shape, system, columns.get("history"))


_KEYS_OF_TURNS = (("role", SPEAKER_KEYS), ("content", TEXT_KEYS))
_OF_TEXTS = ("instruction", "output", "input", "system", "history")
NEEDED_COLUMNS = ("instruction", "output", "turns")
_OF_ROLES = ("user", "assistant", "system_role")
NO_COLUMNS = ("role", "content", *_OF_ROLES)  # of `data.columns`: what is not the name of a column
_OF_CHATS = ("turns", *NO_COLUMNS, "system")
