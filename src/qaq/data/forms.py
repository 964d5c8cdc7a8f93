"""In which form a record holds its pairs, and their texts as they stand there.

The form is decided record by record, by its keys; the first that is filled counts:

| keys | question | answer |
|---|---|---|
| those that `data.fields` names | | |
| `messages`, `conversations`, `conversation` | a user's turn | the assistant's after it |
| one of `ASKED`, and `input` or `context` | both, a blank line between | one of `ANSWERED` |
| `prompt`, and `chosen` or `completion`, as text or turns | its question | its answer |
| `text` with Alpaca's, Magicoder's or Llama 2's headings | behind the first | the second |

Which exchange of a conversation is taken: `qaq.data.turns`.
"""

import re
from collections.abc import Mapping
from itertools import product
from typing import NamedTuple

from qaq.data.config import Fields
from qaq.data.refusals import Refusal, kind_of, text_of
from qaq.data.turns import Turns, exchanges

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


class Layout(NamedTuple):
    """In which fields a record holds its pair: two texts (and a part of the question), or turns."""

    question: str | None = None
    answer: str | None = None
    input: str | None = None
    turns: str | None = None
    system: str | None = None


class Found(NamedTuple):
    """Texts of one pair, not yet canonical; `extra` is a part of the question of its own."""

    question: str
    answer: str
    extra: str = ""
    left_out: int = 0
    layout: Layout | None = None  # null: in none that other tools know by a name
    system: tuple[object, ...] = ()  # contents of the system turns


def layout_of(record: object, fields: Fields | None = None) -> Layout | None:
    """In which fields a record holds its pair; null where it is no field or there is none."""
    try:
        if not isinstance(record, Mapping):
            return None
        found = (named_texts(record, fields) if fields else usual_texts(record, "first"))[0].layout
        return found and found._replace(system=system_column(record, fields))
    except Refusal:
        return None


def named_texts(record: Mapping[str, object], fields: Fields) -> list[Found]:
    """The texts of fields that the user names."""
    missing = [n for n in (fields.question, fields.answer) if n not in record]
    if missing:
        keys = ", ".join(map(str, list(record)[:12])) or "none"
        raise Refusal("unknown_form", f"found the keys {keys}; data.fields names {missing[0]}")
    part = fields.input if fields.input and record.get(fields.input) is not None else None
    return [_found(record, fields.question, fields.answer, part)]


def usual_texts(record: Mapping[str, object], turns: Turns) -> list[Found]:
    """The texts of a record's pairs.

    Raises:
        Refusal: it is of no known form, or a field is not text.
    """
    for strict in (True, False):  # a table with columns of several forms leaves the others empty
        for name in TURNS:
            if name in record and (record[name] not in (None, []) or not strict):
                layout = Layout(turns=name)
                said = exchanges(name, record[name], turns)
                return [Found(q, a, "", n, layout, system) for q, a, n, system in said]
        if isinstance(record.get("prompt"), list):
            return _prompted(record, turns)
        for asked, answered in FIELDS:
            if asked in record and answered in record and asked != answered:
                filled = (p for p in PARTS if record.get(p) not in (None, ""))
                part = next((p for p in filled if p != asked), None)
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
                return [Found(match["q"], match["a"], match["i"] or "", left_out=int(more))]
    keys = ", ".join(map(str, list(record)[:12])) or "none"
    raise Refusal("unknown_form", f"found the keys {keys}; expected {FORMS}")


def system_column(record: Mapping[str, object], fields: Fields | None) -> str | None:
    """The column that holds the system turn: the one that is named, else a usual one with text."""
    if fields and fields.system:
        return fields.system if record.get(fields.system) not in (None, "") else None
    texts = ((name, record.get(name)) for name in SYSTEMS)
    return next((n for n, value in texts if isinstance(value, str) and value.strip()), None)


def _found(
    record: Mapping[str, object], asked: str, answered: str, part: str | None = None
) -> Found:
    question = text_of(asked, record[asked])
    answer = text_of(answered, record[answered], numbers=True)
    extra = text_of("the input", record[part]) if part else ""
    before = record.get("history")  # LLaMA-Factory's earlier exchanges
    left_out = len(before) if isinstance(before, list) else 0
    return Found(question, answer, extra, left_out, Layout(asked, answered, part))


def _prompted(record: Mapping[str, object], turns: Turns) -> list[Found]:
    """A prompt and what answers it, as turns or as text; of a preference the chosen answer."""
    name = "chosen" if record.get("chosen") else "completion"
    prompt, answer = record.get("prompt"), record.get(name)
    before = prompt if isinstance(prompt, list) else []
    if isinstance(answer, str):
        if not before and "prompt" not in record:
            raise Refusal(
                "unknown_form", f"{name} is text and there is no prompt; expected {FORMS}"
            )
        if not before:
            return [_found(record, "prompt", name)]
        answer = [{"role": "assistant", "content": answer}]
    if not isinstance(answer, list):
        raise Refusal("not_text", f"{name} is {kind_of(answer)}; expected text or a list of turns")
    asked = any(
        isinstance(t, Mapping) and t.get("role", t.get("from")) != "assistant" for t in answer
    )
    if not before and not asked and isinstance(prompt, str):
        before = [{"role": "user", "content": prompt}]
    whole = answer if asked else [*before, *answer]
    return [Found(q, a, "", n, None, system) for q, a, n, system in exchanges(name, whole, turns)]
