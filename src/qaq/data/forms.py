"""In which form a record holds its pairs, and their texts as they stand there.

The form is decided record by record, by its keys; the first that is filled counts:

| keys | question | answer |
|---|---|---|
| those that `data.fields` names | | |
| `messages`, `conversations`, `conversation` | a user's turn | the assistant's after it |
| the same up to a user's turn, and `chosen` | that turn | the chosen answer |
| one of `ASKED`, and `input` or `context` | both, a blank line between | one of `ANSWERED` |
| `prompt`, and `chosen` or `completion`, as text or turns | its question | its answer |
| `text` with Alpaca's, Magicoder's or Llama 2's headings | behind the first | the second |

Which exchange of a conversation is taken: `qaq.data.turns`. A `history` of earlier exchanges makes
a record one, and so do further headings of a text. Where `label` (or `kto_tag`) is false the answer
of an unpaired preference was not chosen, and the record is no pair.
"""

import re
from collections.abc import Mapping
from itertools import product
from typing import NamedTuple

from qaq.data.config import Fields
from qaq.data.refusals import Refusal, kind_of, text_of
from qaq.data.turns import ASKING, Turns, exchanges, side_of

TURNS = ("messages", "conversations", "conversation")
FIRST = (  # where a record has fields of several pairs, these come before the other products
    ("instruction", "response"),
    ("instruction", "output"),
    ("prompt", "completion"),
    ("question", "answer"),
)
ASKED = ("instruction", "prompt", "question", "query", "problem", "input")
ANSWERED = ("response", "output", "completion", "answer", "solution")
FIELDS = tuple(dict.fromkeys((*FIRST, *product(ASKED, ANSWERED), *product(ASKED, ["chosen"]))))
LABELS = ("label", "kto_tag")  # of unpaired preferences
PARTS = ("input", "context")  # of the question, in a column of its own
SYSTEMS = ("system", "system_prompt")
FORMS = (
    f"messages, conversations, chosen, text with headings, or one of {', '.join(ASKED)} with one "
    f"of {', '.join(ANSWERED)}; for other names set data.fields.question and data.fields.answer"
)
HEADED = (
    re.compile(
        r"(?:^|\n)(?:(?:###?|@@) ?System(?::[ \t]*\n?|[ \t]*\n)(?P<s>.*?)\n+)?"
        r"(?:###?|@@) ?(?:Instruction|Human|User|Question):?[ \t]*\n?(?P<q>.*?)"
        r"(?:\n+(?:###?|@@) ?Input:?[ \t]*\n(?P<i>.*?))?"
        r"\n+(?:###?|@@) ?(?:Response|Assistant|Answer):?[ \t]*\n?(?P<a>.*?)"
        r"(?=\n(?:###?|@@) ?(?:Instruction|Human|User|Question|System):|\Z)",
        re.DOTALL,
    ),
    re.compile(
        r"\[INST\](?:\s*<<SYS>>(?P<s>.*?)<</SYS>>)?(?P<q>.*?)(?P<i>)\[/INST\] ?(?P<a>.*?)"
        r"(?=\s*(?:</s>|<s>|\[INST\]|\Z))",
        re.DOTALL,
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
        texts = named_texts(record, fields, "first") if fields else usual_texts(record, "first")
        found = texts[0].layout
        return found and found._replace(system=system_column(record, fields))
    except Refusal:
        return None


def named_texts(record: Mapping[str, object], fields: Fields, turns: Turns) -> list[Found]:
    """The texts of fields that the user names."""
    missing = [n for n in (fields.question, fields.answer) if n not in record]
    if missing:
        keys = ", ".join(map(str, list(record)[:12])) or "none"
        raise Refusal("unknown_form", f"found the keys {keys}; data.fields names {missing[0]}")
    part = fields.input if fields.input and record.get(fields.input) is not None else None
    return _found(record, fields.question, fields.answer, part, turns)


def usual_texts(record: Mapping[str, object], turns: Turns) -> list[Found]:
    """The texts of a record's pairs.

    Raises:
        Refusal: it is of no known form, a field is not text, or the answer was not chosen.
    """
    for name in LABELS:
        if str(record.get(name)).lower() == "false":
            raise Refusal(
                "not_chosen", f"{name} is false: an answer not chosen (with data.fields it is read)"
            )
    for strict in (True, False):  # a table with columns of several forms leaves the others empty
        for name in TURNS:
            if name in record and (record[name] not in (None, []) or not strict):
                if _waits(record[name]) and record.get("chosen"):
                    return _prompted(record, record[name], turns)
                return _taken(name, record[name], turns, Layout(turns=name))
        if isinstance(record.get("prompt"), list):
            return _prompted(record, record["prompt"], turns)
        if said := _in_fields(record, turns, strict):
            return said
        if record.get("chosen"):
            asked = next((n for n in ("prompt", *ASKED) if record.get(n)), "prompt")
            part = next((p for p in PARTS if p != asked and record.get(p)), None)
            return _prompted(record, record.get(asked), turns, part)
        if strict and isinstance(record.get("text"), str) and (said := _headed(record, turns)):
            return said
    keys = ", ".join(map(str, list(record)[:12])) or "none"
    raise Refusal("unknown_form", f"found the keys {keys}; expected {FORMS}")


def _in_fields(record: Mapping[str, object], turns: Turns, strict: bool) -> list[Found]:
    """The pair of two fields; none where there are not two (or, if `strict`, not two filled)."""
    for asked, answered in FIELDS:
        if answered == "chosen" and not isinstance(record.get(answered), str):
            continue  # turns
        if asked in record and answered in record and asked != answered:
            filled = (p for p in PARTS if record.get(p) not in (None, ""))
            part = next((p for p in filled if p != asked), None)
            empty = record[asked] in (None, "") and part is None
            if strict and (empty or record[answered] in (None, "", [])):
                continue
            if strict and record[asked] is None:
                continue
            return _found(record, asked, answered, part, turns)
    return []


def system_column(record: Mapping[str, object], fields: Fields | None) -> str | None:
    """The column that holds the system turn: the one that is named, else a usual one with text."""
    if fields and fields.system:
        return fields.system if record.get(fields.system) not in (None, "") else None
    texts = ((name, record.get(name)) for name in SYSTEMS)
    return next((n for n, value in texts if isinstance(value, str) and value.strip()), None)


def _found(
    record: Mapping[str, object], asked: str, answered: str, part: str | None, turns: Turns
) -> list[Found]:
    question = text_of(asked, record[asked])
    answer = text_of(answered, record[answered], numbers=True)
    extra = text_of("the input", record[part]) if part else ""
    layout = Layout(asked, answered, part)
    before = record.get("history")  # LLaMA-Factory's earlier exchanges
    if not isinstance(before, list) or not before:
        return [Found(question, answer, extra, layout=layout)]
    # No field holds such a pair: a trainer that is told the names would learn another exchange.
    return _taken("history", _talk([*before, (question, answer)]), turns, extra=extra)


def _headed(record: Mapping[str, object], turns: Turns) -> list[Found]:
    """The pairs of a text with headings; none where it has no such."""
    text = text_of("text", record["text"])
    said = next((found for form in HEADED if (found := list(form.finditer(text)))), [])
    if not said:
        return []
    system = (said[0]["s"],) if said[0]["s"] else ()
    if turns == "first" or len(said) == 1:
        return [Found(said[0]["q"], said[0]["a"], said[0]["i"] or "", len(said) - 1, None, system)]
    parts = (((m["q"], m["i"] or ""), m["a"].strip("\n")) for m in said)
    talk = _talk([("\n\n".join(filter(None, map(str.strip, asked))), a) for asked, a in parts])
    return _taken("text", [*({"role": "system", "content": c} for c in system), *talk], turns)


def _prompted(
    record: Mapping[str, object], prompt: object, turns: Turns, part: str | None = None
) -> list[Found]:
    """A prompt and what answers it, as turns; of a preference the chosen answer."""
    name = "chosen" if record.get("chosen") else "completion"
    answer = record.get(name)
    before = prompt if isinstance(prompt, list) else []
    if isinstance(answer, str) and not before:
        raise Refusal("unknown_form", f"{name} is text and there is no prompt; expected {FORMS}")
    if isinstance(answer, str):
        answer = [{"role": "assistant", "content": answer}]
    if isinstance(answer, Mapping):
        answer = [answer]
    if not isinstance(answer, list):
        raise Refusal("not_text", f"{name} is {kind_of(answer)}; expected text or a list of turns")
    whole = any(isinstance(turn, Mapping) and side_of(turn) == ASKING for turn in answer)
    if whole or before or not isinstance(prompt, str):
        return _taken(name, answer if whole else [*before, *answer], turns)
    extra = text_of("the input", record[part]) if part else ""
    return _taken(name, [{"role": "user", "content": prompt}, *answer], turns, extra=extra)


def _waits(turns: object) -> bool:
    """Whether a conversation ends with a user's turn."""
    last = turns[-1] if isinstance(turns, list) and turns else None
    return isinstance(last, Mapping) and side_of(last) == ASKING


def _talk(said: list[object]) -> list[object]:
    """Questions, each with its answer, as the turns of a conversation; turns as they are."""
    found: list[object] = []
    for one in said:
        if isinstance(one, list | tuple) and len(one) == 2:
            found += ({"role": "user", "content": one[0]}, {"role": "assistant", "content": one[1]})
        else:
            found.append(one)
    return found


def _taken(
    name: str, talk: object, turns: Turns, layout: Layout | None = None, extra: str = ""
) -> list[Found]:
    """The exchanges of a conversation that are asked for; `extra` belongs to the last question."""
    said = [Found(q, a, "", n, layout, system) for q, a, n, system in exchanges(name, talk, turns)]
    return said if said[-1].left_out else [*said[:-1], said[-1]._replace(extra=extra)]
