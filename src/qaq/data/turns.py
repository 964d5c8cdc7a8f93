"""A conversation as pairs: turns of any usual form, joined where one side goes on, then cut.

`first` takes the first exchange, whose answer rests on its question alone. `last` takes the last
one and puts what was said before into the question; `each` gives a pair for every exchange, with
what was said before it. Two turns of one side in a row are one turn (some files cut long answers).
System turns are no part of either text: an exchange has those that stand before its answer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from qaq.data.refusals import Refusal, kind_of, text_of

Turns = Literal["first", "last", "each"]

ASKING, ANSWERING, SYSTEM, TOOL = "User", "Assistant", "System", "Tool"
ROLES = {
    **dict.fromkeys(("user", "human", "prompter"), ASKING),
    **dict.fromkeys(("assistant", "gpt", "model", "bot", "chatgpt", "bing", "bard"), ANSWERING),
    **dict.fromkeys(("system", "developer"), SYSTEM),
    **dict.fromkeys(("tool", "function", "function_call", "function_response"), TOOL),
    **dict.fromkeys(("tool_call", "tool_response", "observation", "ipython"), TOOL),
}


class Exchange(NamedTuple):
    """A question and the answer right after it; `left_out` counts exchanges that are in no pair.

    `system` holds the contents of the system turns, as they are.
    """

    question: str
    answer: str
    left_out: int = 0
    system: tuple[object, ...] = ()


@dataclass(frozen=True, slots=True)
class _Turn:
    side: str
    text: str
    system: tuple[object, ...] = ()  # contents of the system turns since the turn before


def exchanges(name: str, turns: object, choice: Turns) -> list[Exchange]:
    """The exchanges that are chosen of a conversation, at least one; not yet canonical.

    Raises:
        Refusal: it is no conversation, or the exchange that is chosen is none between two people.
    """
    read = _joined(name, turns)
    asked = [i for i, turn in enumerate(read) if turn.side == ASKING]
    answered = [i for i in asked if i + 1 < len(read) and read[i + 1].side == ANSWERING]
    if not asked:
        raise Refusal("empty_question", f"{name} has no turn of a user")
    if choice == "first" or not answered:
        at = asked[0]
        following = read[at + 1].side if at + 1 < len(read) else None
        if following == TOOL:
            raise Refusal("tool_call", f"the question of {name} is answered by a call of a tool")
        if following is None:
            raise Refusal("empty_answer", f"no turn of an assistant follows the question of {name}")
        answer, left_out = read[at + 1].text, max(0, len(answered) - 1)
        return [Exchange(read[at].text, answer, left_out, _said_to(read[: at + 2]))]
    chosen = answered[-1:] if choice == "last" else answered
    if any(turn.side == TOOL for turn in read[: chosen[-1]]):
        raise Refusal("tool_call", f"{name} holds calls of tools before the answer")
    return [
        Exchange(
            _with_history(read[:at], read[at].text),
            read[at + 1].text,
            system=_said_to(read[: at + 2]),
        )
        for at in chosen
    ]


def _said_to(turns: list[_Turn]) -> tuple[object, ...]:
    return tuple(content for turn in turns for content in turn.system)


def _with_history(before: list[_Turn], question: str) -> str:
    said = [f"{turn.side}: {turn.text}\n\n" for turn in before]
    return "".join(said) + (f"{ASKING}: {question}" if said else question)


def _joined(name: str, turns: object) -> list[_Turn]:
    """The turns of users, assistants and tools, with neighbours of one side joined."""
    if not isinstance(turns, Sequence) or isinstance(turns, str):
        raise Refusal("not_text", f"{name} is {kind_of(turns)}; expected a list of turns")
    if not turns:
        raise Refusal("empty_question", f"{name} is an empty list")
    found: list[_Turn] = []
    system: tuple[object, ...] = ()
    for number, turn in enumerate(turns, start=1):
        where = f"turn {number} of {name}"
        if not isinstance(turn, Mapping):
            raise Refusal("not_text", f"{where} is {kind_of(turn)}, not an object")
        side = side_of(turn)
        if side is None:
            role = _filled(turn, "role", "from")
            raise Refusal(
                "unknown_form", f"{where} has the role {role!r}; expected user, assistant"
            )
        said = _filled(turn, "content", "value", "text")
        if side == SYSTEM:
            system += (said,) if said is not None else ()
            continue
        if turn.get("tool_calls") or turn.get("function_call"):
            side = TOOL
        text = "" if side == TOOL else content_text(where, said)
        if found and found[-1].side == side:
            before = found.pop()
            text, system = f"{before.text}\n{text}", before.system + system
        found.append(_Turn(side, text, system))
        system = ()
    return found


def side_of(turn: Mapping[str, object]) -> str | None:
    """Whose turn it is; null where its role is not known."""
    return ROLES.get(str(_filled(turn, "role", "from")).strip().lower())


def _filled(turn: Mapping[str, object], *names: str) -> object:
    """The first of several fields that is there and not null."""
    return next((turn[name] for name in names if turn.get(name) is not None), None)


def content_text(where: str, content: object) -> str:
    """The text of a turn, also where it comes in parts."""
    if not isinstance(content, Sequence) or isinstance(content, str):
        return text_of(where, content)
    texts = []
    for part in content:
        kind = part.get("type", "text") if isinstance(part, Mapping) else kind_of(part)
        if not isinstance(part, Mapping) or kind != "text":
            raise Refusal("not_text", f"{where} holds a part that is {kind}; expected text")
        texts.append(text_of(where, part.get("text")))
    return "".join(texts)
