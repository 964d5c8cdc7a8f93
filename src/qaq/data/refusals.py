"""Why a record gives no pair, and the check that a field is text."""

import math
from collections.abc import Mapping
from typing import Literal, get_args

Reason = Literal[
    "broken_json",  # the line is not JSON
    "broken_csv",  # the record's quotes are wrong, or it has other cells than the header
    "not_utf8",  # the line is not UTF-8
    "not_an_object",  # JSON, but no object with named fields
    "unknown_form",  # the keys, or the roles of a conversation, are none that are known
    "not_text",  # a field that should be text is something else, or cannot be written as UTF-8
    "tool_call",  # the answer of a conversation is, or rests on, a call of a tool
    "empty_question",
    "empty_answer",
    "not_chosen",  # of an unpaired preference the answer that was not
    "duplicate",  # question and answer are those of an earlier row
]
REASONS: tuple[Reason, ...] = get_args(Reason)
# What could be read and holds no pair, or one that is there already
READABLE: frozenset[Reason] = frozenset(
    {"empty_question", "empty_answer", "not_chosen", "duplicate"}
)


class Refusal(Exception):
    """Why a record gives no pair; caught where rows are read."""

    def __init__(self, reason: Reason, detail: str):
        # a key or a role with half an emoji could not be written
        super().__init__(detail.encode("utf-8", "backslashreplace").decode())
        self.reason: Reason = reason


def text_of(name: str, value: object, numbers: bool = False) -> str:
    """A field that must be text (or, with `numbers`, a number), as it is.

    Raises:
        Refusal: it is something else, or cannot be written as UTF-8.
    """
    if numbers and isinstance(value, int | float) and not isinstance(value, bool):
        if isinstance(value, float) and not math.isfinite(value):
            raise Refusal("not_text", f"{name} is {value}, no value; expected text or a number")
        return str(value)
    if not isinstance(value, str):
        raise Refusal("not_text", f"{name} is {kind_of(value)}; expected text")
    if "\0" in value:
        raise Refusal("not_text", f"{name} holds a NUL character")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise Refusal("not_text", f"{name} cannot be written as UTF-8: {error.reason}") from None
    return value


def kind_of(value: object) -> str:
    """What a value is, in a sentence."""
    if value is None:
        return "null"
    names = {bool: "true or false", int: "a number", float: "a number", str: "text", list: "a list"}
    return names.get(type(value), "an object" if isinstance(value, Mapping) else "no text")
