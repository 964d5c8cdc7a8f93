"""One row reader for every source: a record of any usual form becomes pairs, or is refused.

The form is decided record by record, by its keys; the first that is filled counts:

| keys | question | answer |
|---|---|---|
| those that `data.fields` names | | |
| `messages`, `conversations`, `conversation` | a user's turn | the assistant's after it |
| one of `ASKED`, and `input` or `context` | both, a blank line between | one of `ANSWERED` |
| `prompt`, and `chosen` or `completion`, as text or turns | its question | its answer |
| `text` with Alpaca's, Magicoder's or Llama 2's headings | behind the first | the second |

System turns, else a `system` column, are the pair's system turn. It stands in the row's prompts in
place of `system_prompt`; with `data.system=drop` it is left out. Which exchange of a conversation
is taken: `qaq.data.turns`. Both kinds of leaving out are noted in `Pair.dropped` and counted. A
refused row keeps its raw text, its position and a reason from `REASONS`.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import NamedTuple

from qaq.data.config import Defect, Fields, SystemTurns
from qaq.data.refusals import REASONS, Reason, Refusal, kind_of, text_of
from qaq.data.turns import Turns, content_text, exchanges

__all__ = ["REASONS", "Entry", "Pair", "Reason", "Rejected", "canonical", "read_row", "read_rows"]

TURNS = ("messages", "conversations", "conversation")
FIRST = (  # where a record has fields of several pairs, these come before the other products
    ("instruction", "response"),
    ("instruction", "output"),
    ("prompt", "completion"),
    ("question", "answer"),
)
ASKED = ("instruction", "prompt", "question", "query", "problem", "input")
ANSWERED = ("response", "output", "completion", "answer", "solution")
FIELDS = tuple(dict.fromkeys((*FIRST, *product(ASKED, ANSWERED))))
PARTS = ("input", "context")  # of the question, in a column of its own
NO_INPUT = frozenset({"", "<noinput>", "<no input>", "noinput"})
SYSTEMS = ("system", "system_prompt")
FORMS = (
    f"messages, conversations, chosen, text with headings, or one of {', '.join(ASKED)} with one "
    f"of {', '.join(ANSWERED)}; for other names set data.fields.question and data.fields.answer"
)
HEADED = (
    re.compile(
        r"(?:^|\n)(?:###?|@@) ?(?:Instruction|Human|User|Question):?[ \t]*\n?(?P<q>.*?)"
        r"(?:\n+(?:###?|@@) ?Input:?[ \t]*\n(?P<i>.*?))?"
        r"\n+(?:###?|@@) ?(?:Response|Assistant|Answer):?[ \t]*\n?(?P<a>.*?)"
        r"(?=\n(?:###?|@@) ?(?:Instruction|Human|User|Question):|\Z)",
        re.DOTALL,
    ),
    re.compile(
        r"\[INST\](?P<q>.*?)(?P<i>)\[/INST\] ?(?P<a>.*?)(?=\s*(?:</s>|<s>|\[INST\]|\Z))", re.DOTALL
    ),
)


@dataclass(frozen=True, slots=True)
class Entry:
    """One record as its source gives it; `raw` is its text where the source is a text file.

    `position` is the line of a JSONL file, else the place in the list or table; both from 1.
    `file` says which of the source's files, from 1; null where it has none.
    """

    position: int
    record: object
    raw: str | None = None
    file: int | None = None


@dataclass(frozen=True, slots=True)
class Rejected:
    """A row that goes to the quarantine."""

    position: int
    reason: Reason
    detail: str
    raw: str
    file: int | None = None


@dataclass(frozen=True, slots=True)
class Pair:
    """A row of the pool: canonical texts, where it came from, and the noise planted in it.

    `system` is the record's own system turn, null where it has none. `input_start` is the character
    of the question at which the record's `input` begins, where it had one: published scripts lay
    instruction and input out apart. `dropped` says what else the record held that is in no pair:
    `turns`, `system`. `position` and `file` are those of the record that it was read from.
    """

    question: str
    answer: str
    source: str
    defect: Defect | None = None
    input_start: int | None = None
    dropped: tuple[str, ...] = ()
    system: str | None = None
    position: int | None = field(default=None, compare=False)
    file: int | None = field(default=None, compare=False)

    @property
    def row_id(self) -> str:
        """The first 16 hex digits of SHA-256 over question, NUL, answer.

        Over NUL and the system turn, too, where there is one: under another one the same texts are
        another row to score and to learn from.
        """
        text = f"{self.question}\0{self.answer}"
        text += f"\0{self.system}" if self.system else ""
        return hashlib.sha256(text.encode()).hexdigest()[:16]


class Layout(NamedTuple):
    """In which fields a record holds its pair: two texts (and a part of the question), or turns."""

    question: str | None = None
    answer: str | None = None
    input: str | None = None
    turns: str | None = None
    system: str | None = None


class _Found(NamedTuple):
    """Texts of one pair, not yet canonical; `extra` is a part of the question of its own."""

    question: str
    answer: str
    extra: str = ""
    left_out: int = 0
    layout: Layout | None = None  # null: in none that other tools know by a name
    system: tuple[object, ...] = ()  # contents of the system turns


def read_row(entry: Entry, source: str) -> Pair | Rejected:
    """The pair that a record holds, or why it holds none; of a conversation the first exchange."""
    return next(read_rows(entry, source))


def read_rows(
    entry: Entry,
    source: str,
    fields: Fields | None = None,
    turns: Turns = "first",
    system: SystemTurns = "prompt",
) -> Iterator[Pair | Rejected]:
    """The pairs that a record holds (one, but for `turns="each"`), or why it holds none.

    Args:
        entry: the record.
        source: where the row came from, unless the record has a text field `source` of its own.
        fields: what the question and the answer are called; null for the usual forms.
        turns: which exchanges of a conversation are taken.
        system: what becomes of the record's system turn.
    """
    try:
        if not isinstance(entry.record, Mapping):
            raise Refusal("not_an_object", f"found {kind_of(entry.record)}; expected an object")
        found = _named(entry.record, fields) if fields else _texts(entry.record, turns)
        own = _own_source(entry.record) or source
        said = [_system(entry.record, one.system, fields, system) for one in found]
    except Refusal as refusal:
        yield Rejected(entry.position, refusal.reason, str(refusal), raw_text(entry), entry.file)
        return
    for one, (prompt, left_out) in zip(found, said, strict=True):
        question, answer = canonical(one.question), canonical(one.answer)
        extra = canonical(one.extra)
        start = None
        if extra and extra.lower() not in NO_INPUT:
            question = "\n\n".join(part for part in (question, extra) if part)
            start = len(question) - len(extra)
        if question and answer:
            dropped = ("turns",) * bool(one.left_out) + ("system",) * left_out
            yield Pair(
                question,
                answer,
                own,
                input_start=start,
                dropped=dropped,
                system=prompt or None,
                position=entry.position,
                file=entry.file,
            )
            continue
        reason: Reason = "empty_answer" if question else "empty_question"
        detail = f"the {reason.removeprefix('empty_')} is empty"
        yield Rejected(entry.position, reason, detail, raw_text(entry), entry.file)


def layout_of(record: object, fields: Fields | None = None) -> Layout | None:
    """In which fields a record holds its pair; null where it is no field or there is none."""
    try:
        if not isinstance(record, Mapping):
            return None
        found = (_named(record, fields) if fields else _texts(record, "first"))[0].layout
        return found and found._replace(system=_column(record, fields))
    except Refusal:
        return None


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


def _named(record: Mapping[str, object], fields: Fields) -> list[_Found]:
    """The texts of fields that the user names."""
    missing = [n for n in (fields.question, fields.answer) if n not in record]
    if missing:
        keys = ", ".join(map(str, list(record)[:12])) or "none"
        raise Refusal("unknown_form", f"found the keys {keys}; data.fields names {missing[0]}")
    part = fields.input if fields.input and record.get(fields.input) is not None else None
    return [_found(record, fields.question, fields.answer, part)]


def _texts(record: Mapping[str, object], turns: Turns) -> list[_Found]:
    """The texts of a record's pairs.

    Raises:
        Refusal: it is of no known form, or a field is not text.
    """
    for strict in (True, False):  # a table with columns of several forms leaves the others empty
        for name in TURNS:
            if name in record and (record[name] not in (None, []) or not strict):
                layout = Layout(turns=name)
                said = exchanges(name, record[name], turns)
                return [_Found(q, a, "", n, layout, system) for q, a, n, system in said]
        if isinstance(record.get("prompt"), list):
            return _prompted(record, turns)
        for asked, answered in FIELDS:
            if asked in record and answered in record and asked != answered:
                part = _part(record, asked)
                empty = record[asked] in (None, "") and part is None
                if strict and (empty or record[answered] in (None, "", [])):
                    continue
                if strict and record[asked] is None:
                    continue
                return [_found(record, asked, answered, part)]
        if record.get("chosen"):
            return _prompted(record, turns)
        if strict and isinstance(record.get("text"), str):
            match = next((m for form in HEADED if (m := form.search(str(record["text"])))), None)
            if match:
                text = text_of("text", record["text"])
                more = match.re.search(text, match.end()) is not None
                return [_Found(match["q"], match["a"], match["i"] or "", left_out=int(more))]
    keys = ", ".join(map(str, list(record)[:12])) or "none"
    raise Refusal("unknown_form", f"found the keys {keys}; expected {FORMS}")


def _part(record: Mapping[str, object], asked: str) -> str | None:
    """The column in which a part of the question stands by itself."""
    return next((p for p in PARTS if p != asked and record.get(p) not in (None, "")), None)


def _found(
    record: Mapping[str, object], asked: str, answered: str, part: str | None = None
) -> _Found:
    question = text_of(asked, record[asked])
    answer = text_of(answered, record[answered], numbers=True)
    extra = text_of("the input", record[part]) if part else ""
    return _Found(question, answer, extra, layout=Layout(asked, answered, part))


def _prompted(record: Mapping[str, object], turns: Turns) -> list[_Found]:
    """A prompt and what answers it, as turns or as text; of a preference the chosen answer."""
    name = "chosen" if record.get("chosen") else "completion"
    prompt, answer = record.get("prompt"), record.get(name)
    before = prompt if isinstance(prompt, list) else []
    if isinstance(answer, str):
        if not before:
            return [_found(record, "prompt", name)] if "prompt" in record else _no_prompt(name)
        answer = [{"role": "assistant", "content": answer}]
    if not isinstance(answer, list):
        raise Refusal("not_text", f"{name} is {kind_of(answer)}; expected text or a list of turns")
    asked = any(
        isinstance(t, Mapping) and t.get("role", t.get("from")) != "assistant" for t in answer
    )
    if not before and not asked and isinstance(prompt, str):
        before = [{"role": "user", "content": prompt}]
    whole = answer if asked else [*before, *answer]
    return [_Found(q, a, "", n, None, system) for q, a, n, system in exchanges(name, whole, turns)]


def _no_prompt(name: str) -> list[_Found]:
    raise Refusal("unknown_form", f"{name} is text and there is no prompt; expected {FORMS}")


def _system(
    record: Mapping[str, object],
    turns: tuple[object, ...],
    fields: Fields | None,
    wanted: SystemTurns,
) -> tuple[str, bool]:
    """A pair's system turn, of its conversation or else of a column; was one left out?"""
    column = _column(record, fields)
    if wanted == "drop":
        return "", bool(turns or column)
    texts = [canonical(content_text("the system turn", content)) for content in turns]
    if not any(texts) and column:
        texts = [canonical(text_of(column, record[column]))]
    return "\n".join(filter(None, texts)), False


def _column(record: Mapping[str, object], fields: Fields | None) -> str | None:
    """The column that holds the system turn: the one that is named, else a usual one with text."""
    if fields and fields.system:
        return fields.system if record.get(fields.system) not in (None, "") else None
    texts = ((name, record.get(name)) for name in SYSTEMS)
    return next((n for n, value in texts if isinstance(value, str) and value.strip()), None)


def _own_source(record: Mapping[str, object]) -> str:
    """What a mixture of data sets says of where the row is from; '' where it says nothing."""
    try:
        return canonical(text_of("source", record.get("source")))
    except Refusal:
        return ""
