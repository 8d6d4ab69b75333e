"""How each known schema spells a record, and how a schema is recognised from the keys of its rows.

Chat-shaped rows (lima, sharegpt, messages): the last assistant turn is the answer, the user turn right before
it is the instruction, everything earlier is context. User turns after the last assistant turn have no answer
and are ignored. Texts are never stripped or changed, with one exception: `flan_cot` (see there).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from winnow.errors import UserError

Row = Mapping[str, Any]


class Fields(NamedTuple):
    """The texts of a record; turns as in `Record.turns`."""

    instruction: str
    input: str
    output: str
    turns: tuple[tuple[str, str], ...] = ()


class BadRow(ValueError):
    """A row that cannot become a record; the message is the reason, without file and line."""


class Schema(NamedTuple):
    """matches: has a row the schema's keys? read: the row's fields; raises BadRow. shape: for people."""

    matches: Callable[[Row], bool]
    read: Callable[[Row], Fields]
    shape: str


_ROLES = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
}
_KINDS = {
    type(None): "null",
    str: "a text",
    bool: "a boolean",
    int: "a number",
    float: "a number",
    list: "a list",
    dict: "an object",
}
_REQUIRED = object()


def _kind(value: Any) -> str:
    return _KINDS.get(type(value), f"of type {type(value).__name__}")


def _text(row: Row, key: str, default: Any = _REQUIRED) -> str:
    value = row.get(key, default)
    if type(value) is str:
        return value
    if value is _REQUIRED:
        raise BadRow(f"field `{key}` is missing (keys found: {_keys(row)})")
    raise BadRow(f"field `{key}` is {_kind(value)}, a text was expected")


def _keys(row: Row) -> str:
    return ", ".join(map(str, row)) or "none"


def _flat(instruction: str, input: str, output: str) -> Callable[[Row], Fields]:
    """A reader of three columns. The input column may be absent (then ""); a value in it must be a text."""

    def read(row: Row) -> Fields:
        return Fields(_text(row, instruction), _text(row, input, ""), _text(row, output))

    return read


def _reasoned(question: str, rationale: str, answer: str) -> Callable[[Row], Fields]:
    """A reader of chain-of-thought rows: output = rationale, line break, `The answer is ` and the answer.

    FLAN's TSV files write a line break as the two characters `\\n`; its own loader (flan/v2/preprocessors.py,
    simple_cot_tsv) turns them into line breaks in question and rationale, and so do we. The output's wording
    is that of FLAN's templates `{cot}\\nThe answer is {answer}`.
    """

    def read(row: Row) -> Fields:
        asked, why = (_text(row, key).replace("\\n", "\n") for key in (question, rationale))
        return Fields(asked, "", f"{why}\nThe answer is {_text(row, answer)}")

    return read


def _chat(turns: list[tuple[str, str]]) -> Fields:
    """The fields of a conversation of (role, text) turns, by the rule in the module's docstring."""
    last = max((i for i, (role, _) in enumerate(turns) if role == "assistant"), default=None)
    if last is None:
        raise BadRow("the conversation has no assistant turn")
    if last == 0 or turns[last - 1][0] != "user":
        before = "nothing" if last == 0 else f"a turn of the {turns[last - 1][0]}"
        raise BadRow(f"the last assistant turn (turn {last + 1}) follows {before}, a user turn was expected")
    return Fields(turns[last - 1][1], "", turns[last][1], tuple(turns[: last - 1]))


def _turns(row: Row, key: str) -> list[Any]:
    value = row.get(key, _REQUIRED)
    if value is _REQUIRED:
        raise BadRow(f"field `{key}` is missing (keys found: {_keys(row)})")
    if not isinstance(value, list):
        raise BadRow(f"field `{key}` is {_kind(value)}, a list of turns was expected")
    return value


def _alternating(row: Row) -> Fields:
    """LIMA: a list of texts, user first, then in turn."""
    texts = _turns(row, "conversations")
    for number, text in enumerate(texts, 1):
        if not isinstance(text, str):
            raise BadRow(f"turn {number} of `conversations` is {_kind(text)}, a text was expected")
    return _chat([(("user", "assistant")[i % 2], text) for i, text in enumerate(texts)])


def _speakers(key: str, role: str, text: str) -> Callable[[Row], Fields]:
    """A reader of `key`, a list of objects whose `role` and `text` keys say who speaks and what."""

    def read(row: Row) -> Fields:
        turns = []
        for number, turn in enumerate(_turns(row, key), 1):
            if not isinstance(turn, Mapping):
                wanted = f"an object with `{role}` and `{text}`"
                raise BadRow(f"turn {number} of `{key}` is {_kind(turn)}, {wanted} was expected")
            try:
                speaker, words = _text(turn, role), _text(turn, text)
            except BadRow as error:
                raise BadRow(f"turn {number} of `{key}`: {error}") from None
            if speaker not in _ROLES:
                known = ", ".join(_ROLES)
                raise BadRow(f"turn {number} of `{key}` has the unknown {role} {speaker!r}; known: {known}")
            turns.append((_ROLES[speaker], words))
        return _chat(turns)

    return read


def _has(*keys: str) -> Callable[[Row], bool]:
    return lambda row: all(key in row for key in keys)


def _has_turns(key: str, kind: type) -> Callable[[Row], bool]:
    def matches(row: Row) -> bool:
        turns = row.get(key)
        return isinstance(turns, list) and bool(turns) and isinstance(turns[0], kind)

    return matches


SCHEMAS: dict[str, Schema] = {
    "alpaca": Schema(
        _has("instruction", "output"),
        _flat("instruction", "input", "output"),
        "instruction, [input], output",
    ),
    "dolly": Schema(
        _has("instruction", "response"),
        _flat("instruction", "context", "response"),
        "instruction, [context], response",
    ),
    "lima": Schema(_has_turns("conversations", str), _alternating, "conversations: [text, ...]"),
    "sharegpt": Schema(
        _has_turns("conversations", dict),
        _speakers("conversations", "from", "value"),
        "conversations: [{from, value}, ...]",
    ),
    "messages": Schema(
        _has_turns("messages", dict),
        _speakers("messages", "role", "content"),
        "messages: [{role, content}, ...]",
    ),
    "flan_cot": Schema(
        _has("instruction", "rationale", "answer"),
        _reasoned("instruction", "rationale", "answer"),
        "instruction, rationale, answer",
    ),
    "cot_collection": Schema(
        _has("source", "rationale", "target"),
        _reasoned("source", "rationale", "target"),
        "source, rationale, target",
    ),
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


def detect_schema(rows: list[tuple[int, Row]], source: str) -> str | None:
    """The schema that the (row number, row) pairs follow, None if no row follows any.

    Rows of no known schema do not vote. Raises UserError where one row fits several schemas, or rows differ.
    """
    found: dict[str, int] = {}
    for number, row in rows:
        names = [name for name, schema in SCHEMAS.items() if schema.matches(row)]
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
            f"{source} mixes schemas ({first}): choose one with data.schema=<name> (rows of the others are "
            "then refused), or divide the source."
        )
    return next(iter(found), None)


def unknown_schema(rows: list[tuple[int, Row]], source: str) -> UserError:
    """The error for rows that follow no known schema."""
    keys = list(dict.fromkeys(str(key) for _, row in rows for key in row))
    shown = ", ".join(keys[:20]) + (f" and {len(keys) - 20} more" if len(keys) > 20 else "")
    return UserError(
        f"{source}: no known schema has the keys {shown or 'none'}; known schemas are {known_schemas()}; for "
        "others name the columns, as in data.columns='{instruction: question, output: reply}'."
    )


def column_schema(columns: Mapping[str, str]) -> Schema:
    """The schema of a mapping from instruction, output and perhaps input to columns; raises UserError."""
    wrong = [key for key in columns if key not in ("instruction", "input", "output")]
    if wrong or not {"instruction", "output"} <= set(columns):
        found = ", ".join(map(str, columns)) or "nothing"
        raise UserError(
            f"data.columns maps {found}; it must map instruction and output, and may map input, each to the "
            "name of a column."
        )
    unnamed = [key for key, value in columns.items() if not isinstance(value, str)]
    if unnamed:
        raise UserError(f"data.columns.{unnamed[0]}={columns[unnamed[0]]!r} is no column name.")

    def read(row: Row) -> Fields:
        asked_input = _text(row, columns["input"]) if "input" in columns else ""
        return Fields(_text(row, columns["instruction"]), asked_input, _text(row, columns["output"]))

    return Schema(_has(*columns.values()), read, ", ".join(columns.values()))
