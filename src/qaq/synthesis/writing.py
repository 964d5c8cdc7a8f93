"""Questions from an empty user's turn, and answers to them: what is asked of the generator. Pure.

A chat model was trained to write the assistant's turn only, but it read the user's; given a
template up to where the user speaks it goes on as a user would (Magpie, arXiv 2406.08464).
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from qaq.evaluation.generation.generate import Completion, Request
from qaq.models.template import ChatTemplate
from qaq.store.keys import content_key


@dataclass
class Kept:
    """The questions that are asked, by their number, and why the others are not."""

    questions: dict[int, str] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)


def question_requests(layout: ChatTemplate, count: int) -> list[Request]:
    """Requests for `count` questions: the template up to where the user's text begins."""
    prompt = tuple(layout.head_ids)
    sha = content_key(list(prompt))
    return [Request(f"question/{number}", 0, prompt, sha) for number in range(count)]


def keep(completions: Sequence[Completion]) -> Kept:
    """The finished questions, each text once: in order of their numbers, the first is kept."""
    kept = Kept()
    seen: set[str] = set()
    for number, completion in enumerate(completions):
        text = completion.text.strip()
        same = " ".join(text.casefold().split())
        if completion.finish == "length":
            kept.left_out["question_unfinished"] += 1
        elif not text:
            kept.left_out["question_empty"] += 1
        elif same in seen:
            kept.left_out["question_repeated"] += 1
        else:
            seen.add(same)
            kept.questions[number] = text
    return kept


def answer_request(layout: ChatTemplate, number: int, question: tuple[int, ...]) -> Request:
    """The request for the answer to a tokenised question."""
    prompt = layout.prompt_ids(question) + layout.lead_ids
    return Request(f"answer/{number}", 0, prompt, content_key(list(prompt)))


def assign(numbers: Iterable[int], weights: Mapping[str, float], seed: int) -> dict[int, str]:
    """Who answers each question: a draw by weight from a hash of the seed and its number."""
    total = sum(weights.values())
    names = sorted(weights)
    found = {}
    for number in numbers:
        digest = hashlib.sha256(f"{seed}/{number}".encode()).digest()
        left = int.from_bytes(digest[:8]) / 2**64 * total
        chosen = names[-1]
        for name in names:
            left -= weights[name]
            if left < 0:
                chosen = name
                break
        found[number] = chosen
    return found
