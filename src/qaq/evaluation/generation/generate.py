"""Answers of a model to prompts: requests in, completions out, as each one is finished.

Two generators stand behind one interface, `Generator`: our own batched decoding on `transformers`
(`hf`) and servers of vLLM (`vllm`). What is finished is written to a journal
at once, so that a killed run does nothing twice.
"""

import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Literal, Protocol

from transformers import AutoConfig, GenerationConfig

from qaq.evaluation.prompts import Stops
from qaq.host.progress import Progress
from qaq.models.config import ModelConfig
from qaq.models.load import location
from qaq.store.tables import read_jsonl, write_jsonl

TOP_P = 0.95  # EvalPlus's, where it samples

Finish = Literal["end", "stop", "length"]


@dataclass(frozen=True)
class Request:
    """One answer that is wanted; `index` numbers the samples of one task from 0.

    `entry_point` is the function that it should define, where its stops ask for that.
    """

    task_id: str
    index: int
    prompt: tuple[int, ...]
    prompt_sha: str
    entry_point: str = ""


@dataclass(frozen=True)
class Decoding:
    """How an answer is written: greedily at temperature 0, else sampled with a seed.

    `end_ids` end an answer as a token, `stops` as text. `context` is the greatest number of tokens
    of prompt and answer together; null where the model has no limit. `continues`: the prompt's text
    goes on in the answer.
    """

    max_new_tokens: int
    stops: Stops
    end_ids: frozenset[int]
    context: int | None = None
    temperature: float = 0.0
    seed: int = 0
    top_p: float = TOP_P
    continues: bool = False

    def budget(self, request: Request) -> int:
        """New tokens that an answer to this request may have."""
        room = self.max_new_tokens if self.context is None else self.context - len(request.prompt)
        return min(self.max_new_tokens, room)

    def row_seed(self, request: Request) -> int:
        """The seed of one sample; it does not depend on what else is generated."""
        text = f"{self.seed}|{request.task_id}|{request.index}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) >> 1


@dataclass(frozen=True)
class Completion:
    """A finished answer. `new_tokens` counts what was generated, the end token and cut text too.

    `finish` is `end` (end token), `stop` (a stop text; it is cut off) or `length`. `seconds` is the
    time since the answer before it was finished: summed, the time that generation took.
    """

    task_id: str
    index: int
    prompt_sha: str
    text: str
    new_tokens: int
    finish: Finish
    seconds: float = 0.0

    @property
    def sha(self) -> str:
        """Identifies the text."""
        return hashlib.sha256(self.text.encode()).hexdigest()


class Generator(Protocol):
    """Answers requests; completions come in the order in which they are finished."""

    def __call__(self, requests: Sequence[Request]) -> Iterator[Completion]:
        """Generate one completion per request."""
        ...


class Journal:
    """The finished completions of one job, one JSON object a line, written as they come."""

    def __init__(self, path: Path):
        self.path = path
        known = {f.name for f in fields(Completion)}
        rows = list(read_jsonl(path)) if path.exists() else []
        self.done = {
            (row["task_id"], row["index"]): Completion(**row) for row in rows if set(row) == known
        }
        write_jsonl(path, (asdict(c) for c in self.done.values()))  # without a torn last line

    def missing(self, requests: Sequence[Request]) -> list[Request]:
        """Requests that have no answer yet, or one to another prompt."""
        return [
            r
            for r in requests
            if (found := self.done.get((r.task_id, r.index))) is None
            or found.prompt_sha != r.prompt_sha
        ]

    def extend(self, completions: Iterator[Completion], progress: Progress) -> None:
        """Take in completions and write each at once."""
        before = time.monotonic()
        with self.path.open("a", encoding="utf-8") as file:
            for finished in completions:
                now = time.monotonic()
                completion = replace(finished, seconds=round(now - before, 4))
                before = now
                file.write(json.dumps(asdict(completion), ensure_ascii=False) + "\n")
                file.flush()
                self.done[completion.task_id, completion.index] = completion
                progress.update(1, completion.new_tokens)


def complete(
    decode: Callable[[list[int]], str],
    tokens: list[int],
    ended: bool,
    request: Request,
    decoding: Decoding,
) -> Completion:
    """The completion that all new tokens amount to; `ended`: the last is an end token."""
    new = tokens[:-1] if ended else tokens
    text = _added(decode, request.prompt[-1:], new) if decoding.continues else decode(new)
    cut = decoding.stops.cut(text, request.entry_point)
    finish: Finish = "stop" if cut is not None else "end" if ended else "length"
    return Completion(
        request.task_id, request.index, request.prompt_sha, text[:cut], len(tokens), finish
    )


def _added(decode: Callable[[list[int]], str], before: Sequence[int], new: list[int]) -> str:
    """What new tokens add to the text of those before.

    Decoders of Llama's kind take a space from the beginning of a text: here of an indentation.
    """
    known, whole = decode([*before]), decode([*before, *new])
    return whole[len(known) :] if whole.startswith(known) else decode(new)


def model_limits(config: ModelConfig) -> tuple[int | None, frozenset[int]]:
    """The greatest number of tokens that a model takes in, and the tokens that end its text.

    Read from its configuration files; the weights are not loaded.
    """
    where = location(config)
    facts = AutoConfig.from_pretrained(**where).get_text_config()
    ends = facts.eos_token_id
    where.pop("trust_remote_code", None)
    with contextlib.suppress(OSError):  # there need not be a generation_config.json
        name = where.pop("pretrained_model_name_or_path")
        ends = GenerationConfig.from_pretrained(name, **where).eos_token_id or ends
    listed = ends if isinstance(ends, list) else [ends]
    return getattr(facts, "max_position_embeddings", None), frozenset(listed) - {None}
