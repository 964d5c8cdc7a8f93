"""One row reader for every source: a record of any usual form becomes a pair, or is refused.

The form is decided record by record, by its keys:

| keys | question | answer |
|---|---|---|
| `messages` (turns of role, content) | first user turn | the assistant turn after it |
| `conversations` (turns of from, value) | first human turn | the gpt turn after it |
| `instruction`, `input`, `response` or `output` | both, a blank line between | it |
| `prompt`, `completion` | it | it |
| `question`, `answer` | it | it |

System turns are skipped: the pipeline sets the system prompt itself, the same for every row. Of a
conversation of several turns the first exchange is taken, since a later answer rests on more than
its question. A refused row keeps its raw text, its position and a reason from `REASONS`.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from qaq.data.config import Defect

Reason = Literal[
    "broken_json",  # the line is not JSON
    "not_utf8",  # the line is not UTF-8
    "not_an_object",  # JSON, but no object with named fields
    "unknown_form",  # the keys match no form above
    "not_text",  # a field that should be text is something else, or cannot be written as UTF-8
    "empty_question",
    "empty_answer",
    "duplicate",  # question and answer are those of an earlier row
]
REASONS: tuple[Reason, ...] = get_args(Reason)

TURNS = ("messages", "conversations")
FIELDS = (
    ("instruction", "response"),
    ("instruction", "output"),
    ("prompt", "completion"),
    ("question", "answer"),
)
FORMS = (
    "messages, conversations, instruction/response, instruction/input/output, prompt/completion, "
    "question/answer"
)
ASKING = frozenset({"user", "human"})
ANSWERING = frozenset({"assistant", "gpt", "model"})


@dataclass(frozen=True, slots=True)
class Entry:
    """One record as its source gives it; `raw` is its text where the source is a text file.

    `position` is the line of a JSONL file, else the place in the list or table; both from 1.
    """

    position: int
    record: object
    raw: str | None = None


@dataclass(frozen=True, slots=True)
class Rejected:
    """A row that goes to the quarantine."""

    position: int
    reason: Reason
    detail: str
    raw: str


@dataclass(frozen=True, slots=True)
class Pair:
    """A row of the pool: canonical texts, where it came from, and the noise planted in it.

    `input_start` is the character of the question at which the record's `input` begins, where it
    had one: published scripts lay instruction and input out apart. It is no part of the row's id.
    """

    question: str
    answer: str
    source: str
    defect: Defect | None = None
    input_start: int | None = None

    @property
    def row_id(self) -> str:
        """The first 16 hex digits of SHA-256 over question, NUL, answer."""
        text = f"{self.question}\0{self.answer}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]


class Refusal(Exception):
    """Why a record gives no pair; caught in this module."""

    def __init__(self, reason: Reason, detail: str):
        super().__init__(detail)
        self.reason: Reason = reason


def read_row(entry: Entry, source: str) -> Pair | Rejected:
    """The pair that a record holds, or why it holds none.

    Args:
        source: where the row came from, unless the record has a text field `source` of its own.
    """
    try:
        if not isinstance(entry.record, Mapping):
            raise Refusal("not_an_object", f"found {_kind(entry.record)}; expected an object")
        question, answer, input_start = _texts(entry.record)
        if not question:
            raise Refusal("empty_question", "the question is empty")
        if not answer:
            raise Refusal("empty_answer", "the answer is empty")
    except Refusal as refusal:
        return Rejected(entry.position, refusal.reason, str(refusal), raw_text(entry))
    own = _own_source(entry.record)
    return Pair(question, answer, own or source, input_start=input_start)


def canonical(text: str) -> str:
    """The form of a text that is kept, hashed, scored and trained on.

    CRLF becomes LF; blank lines at the start, and whitespace at the end and before the first
    word, go. Only where the next line shares the first line's indentation (a block of code) does
    the first line keep it, since taking it away would change what the text means.
    """
    lines = text.replace("\r\n", "\n").rstrip().split("\n")
    while lines and not lines[0].strip():
        lines.pop(0)
    if not lines:
        return ""
    bare = lines[0].lstrip()
    indent = lines[0][: len(lines[0]) - len(bare)]
    following = next((line for line in lines[1:] if line.strip()), "")
    if not indent or not following.startswith(indent):
        lines[0] = bare
    return "\n".join(lines)


def raw_text(entry: Entry) -> str:
    """The record as text, for the quarantine."""
    if entry.raw is not None:
        return entry.raw
    # ASCII escapes: a lone surrogate in a record could not be written as UTF-8
    return json.dumps(entry.record, default=str)


def _texts(record: Mapping[str, object]) -> tuple[str, str, int | None]:
    """Canonical question and answer of a record, and where the question's input part begins.

    Raises:
        Refusal: it is of no known form, or a field is not text.
    """
    for strict in (True, False):  # a table with columns of several forms leaves the others null
        for name in TURNS:
            if name in record and (record[name] is not None or not strict):
                return *_first_exchange(name, record[name]), None
        for asked, answered in FIELDS:
            if asked in record and answered in record:
                question, answer = record[asked], record[answered]
                if strict and (question is None or answer is None):
                    continue
                extra = record.get("input") if asked == "instruction" else None
                whole, start = _with_input(_text(asked, question), extra)
                return whole, _text(answered, answer), start
    keys = ", ".join(map(str, list(record)[:12])) or "none"
    raise Refusal("unknown_form", f"found the keys {keys}; expected one of {FORMS}")


def _first_exchange(name: str, turns: object) -> tuple[str, str]:
    """The first question of a conversation and the answer right after it ('' where missing)."""
    if not isinstance(turns, Sequence) or isinstance(turns, str):
        raise Refusal("not_text", f"{name} is {_kind(turns)}; expected a list of turns")
    question = ""
    asked = False
    for number, turn in enumerate(turns, start=1):
        if not isinstance(turn, Mapping):
            raise Refusal("not_text", f"turn {number} of {name} is {_kind(turn)}, not an object")
        role = turn.get("role", turn.get("from"))
        content = turn.get("content", turn.get("value"))
        if asked:
            answers = role in ANSWERING
            return question, _text(f"turn {number} of {name}", content) if answers else ""
        if role in ASKING:
            question = _text(f"turn {number} of {name}", content)
            asked = True
    return question, ""


def _own_source(record: Mapping[str, object]) -> str:
    """What a mixture of data sets says of where the row is from; '' where it says nothing."""
    try:
        return _text("source", record.get("source"))
    except Refusal:
        return ""


def _with_input(instruction: str, extra: object) -> tuple[str, int | None]:
    """Instruction and input (null or empty: none), a blank line between, and where it begins."""
    text = "" if extra is None else _text("input", extra)
    if not text:
        return instruction, None
    whole = "\n\n".join(part for part in (instruction, text) if part)
    return whole, len(whole) - len(text)


def _text(name: str, value: object) -> str:
    """The canonical form of a field that must be text."""
    if not isinstance(value, str):
        raise Refusal("not_text", f"{name} is {_kind(value)}; expected text")
    if "\0" in value:
        raise Refusal("not_text", f"{name} holds a NUL character")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise Refusal("not_text", f"{name} cannot be written as UTF-8: {error.reason}") from None
    return canonical(value)


def _kind(value: object) -> str:
    if value is None:
        return "null"
    names = {bool: "true or false", int: "a number", float: "a number", str: "text", list: "a list"}
    return names.get(type(value), "an object" if isinstance(value, Mapping) else "no text")
