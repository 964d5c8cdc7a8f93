"""One row reader for every source: a record of any usual form becomes pairs, or is refused.

Where a record holds its pairs: `qaq.data.forms`. System turns, else a `system` column, are the
pair's system turn. It stands in the row's prompts in place of `system_prompt`; with
`data.system=drop` it is left out. Both kinds of leaving out are noted in `Pair.dropped` and
counted. A refused row keeps its raw text, its position and a reason from `REASONS`.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from qaq.data.config import Defect, Fields, SystemTurns
from qaq.data.forms import named_texts, system_column, usual_texts
from qaq.data.refusals import REASONS, Reason, Refusal, kind_of, text_of
from qaq.data.turns import Turns, content_text

__all__ = ["REASONS", "Entry", "Pair", "Reason", "Rejected", "canonical", "read_row", "read_rows"]

NO_INPUT = frozenset({"", "<noinput>", "<no input>", "noinput"})


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
        source: where the row came from, unless the record has a text field `source` of its own.
        fields: what the question and the answer are called; null for the usual forms.
    """
    try:
        if not isinstance(entry.record, Mapping):
            raise Refusal("not_an_object", f"found {kind_of(entry.record)}; expected an object")
        found = (
            named_texts(entry.record, fields, turns) if fields else usual_texts(entry.record, turns)
        )
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


def _system(
    record: Mapping[str, object],
    turns: tuple[object, ...],
    fields: Fields | None,
    wanted: SystemTurns,
) -> tuple[str, bool]:
    """A pair's system turn, of its conversation or else of a column; was one left out?"""
    column = system_column(record, fields)
    if wanted == "drop":
        return "", bool(turns or column)
    texts = [canonical(content_text("the system turn", content)) for content in turns]
    if not any(texts) and column:
        texts = [canonical(text_of(column, record[column]))]
    return "\n".join(filter(None, texts)), False


def _own_source(record: Mapping[str, object]) -> str:
    """What a mixture of data sets says of where the row is from; '' where it says nothing."""
    try:
        return canonical(text_of("source", record.get("source")))
    except Refusal:
        return ""
