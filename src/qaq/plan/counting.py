"""Tokens of a sample of the pool, counted by what really lays the rows out: framing and encoder.

Where a tokenizer is not on this machine a stand-in takes its place, which cuts words into pieces of
six letters and lays conversations out in ChatML. Counts are kept in the
cache, since Transformers takes seconds to import.
"""

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from qaq.host.paths import cache_dir
from qaq.models.config import ModelConfig
from qaq.models.identity import template_text
from qaq.scoring.config import FRAMINGS, FramingConfig
from qaq.store.cache import remembered_sha256
from qaq.store.keys import content_key, keyed
from qaq.store.tables import SPANS, read_json, write_json

if TYPE_CHECKING:
    from transformers.tokenization_utils_base import PreTrainedTokenizerBase

VERSION = 1  # raised when counts change meaning
LETTERS = 6
# What the stand-in reads as one token: 3.6 characters of code and English on average, as the
# embedded models' own tokenizers do (3.3 to 4.0).
PIECE = rf"\s?\w{{1,{LETTERS}}}|\s?[^\w\s]{{1,3}}|\s+"
# Tokens of a chat prompt by SmolLM2's tokenizer, mean and longest; Gemma's gives 182, 456; 91, 215.
PROMPTS = {"humaneval": (197, 452), "mbpp": (114, 237)}
FRAME = 60  # what chat puts around a problem
# questions, answers, where a question's input part begins, and rows' own system turns
Texts = Sequence[tuple[str, str, int | None, str | None]]


@dataclass(frozen=True)
class Counted:
    """Tokens of a mean row: `run` through the layers, `predicted` under the head; the longest."""

    run: float
    predicted: float
    longest: int


def made_texts(question: int, answer: int) -> Texts:
    """Two rows of so many tokens of the stand-in; they begin differently."""
    letters = (("a", "A"), ("b", "B"))
    return [(q * LETTERS * question, a * LETTERS * answer, None, None) for q, a in letters]


def scored(
    texts: Texts,
    model: ModelConfig,
    folder: Path | None,
    framing: FramingConfig,
    system_prompt: str | None,
    spans: Sequence[str] = SPANS,
) -> Counted:
    """Of scoring these spans: the sequences left after merging, by the framing itself.

    `folder` is where the model's files lie; None has the stand-in read.
    """

    def rows(tokenizer: "PreTrainedTokenizerBase", model: ModelConfig) -> Iterator[tuple[int, int]]:
        from qaq.scoring.framing import make_framer
        from qaq.scoring.plan import Task, merge, only

        framer = make_framer(framing, model, tokenizer, system_prompt)
        for pair in texts:
            merged = merge(only(framer(*pair).renderings, spans))
            found = [span for rendering in merged for span in rendering.spans]
            run = sum(Task(0, rendering).length for rendering in merged)
            yield run, sum(span.end - span.start for span in found)

    way = [keyed(framing), FRAMINGS.fingerprint(framing.kind), system_prompt]
    way += [] if tuple(spans) == SPANS else [list(spans)]
    return _kept(texts, model, folder, ["scored", way], rows)


def asked(suite: str, problems: Sequence[str], system_prompt: str | None) -> Counted:
    """Of the prompts of a suite; `problems` are their texts where the suite is not a known one."""
    system = _pieces(system_prompt or "")
    if suite in PROMPTS:
        mean, longest = PROMPTS[suite]
    else:
        counts = [_pieces(text) + FRAME for text in problems] or [FRAME]
        mean, longest = round(sum(counts) / len(counts)), max(counts)
    return Counted(mean + system, 0.0, longest + system)


def _pieces(text: str) -> int:
    return len(re.findall(PIECE, text))


def encoded(
    texts: Texts,
    model: ModelConfig,
    folder: Path | None,
    most: int,
    system_prompt: str | None,
    label_after_end: bool = False,
) -> Counted:
    """Of an epoch of fine-tuning, or of embedding: rows of at most so many tokens, their labels."""

    def rows(tokenizer: "PreTrainedTokenizerBase", model: ModelConfig) -> Iterator[tuple[int, int]]:
        from qaq.models.template import chat_template
        from qaq.training.rows import Encoder, Example

        layout = chat_template(tokenizer, model, system_prompt)
        encoder = Encoder(tokenizer, layout, most, label_after_end)
        for question, answer, _, system in texts:
            row = encoder.encode("", question, answer, system)
            if isinstance(row, Example):
                yield len(row.ids), len(row.ids) - row.prompt

    return _kept(texts, model, folder, ["encoded", most, system_prompt, label_after_end], rows)


def _kept(
    texts: Texts,
    model: ModelConfig,
    folder: Path | None,
    way: object,
    rows: Callable[["PreTrainedTokenizerBase", ModelConfig], Iterator[tuple[int, int]]],
) -> Counted:
    """What the cache knows, else what the rows add up to, each a sequence of the sample."""
    files = sorted(folder.glob("token*")) + sorted(folder.glob("*.jinja")) if folder else []
    read = [remembered_sha256(file) for file in files]
    read = read or [PIECE]
    asked = [VERSION, list(texts), read, template_text(model), model.template_kwargs, way]
    memory = cache_dir() / "lengths" / f"{content_key(asked)[:16]}.json"
    with contextlib.suppress(OSError, ValueError, TypeError):  # none yet, or a damaged one
        return Counted(**read_json(memory))
    counted = _sum(rows(*_reader(texts, model, folder)), len(texts))
    memory.parent.mkdir(exist_ok=True)
    write_json(memory, asdict(counted))
    return counted


def _sum(rows: Iterator[tuple[int, int]], count: int) -> Counted:
    found = list(rows)
    run, predicted = (sum(row[part] for row in found) / max(1, count) for part in (0, 1))
    return Counted(run, predicted, max((run for run, _ in found), default=0))


def _reader(
    texts: Texts, model: ModelConfig, folder: Path | None
) -> tuple["PreTrainedTokenizerBase", ModelConfig]:
    if folder is None:
        return stand_in(texts), replace(model, chat_template=None, template_kwargs={})
    from qaq.models.load import load_tokenizer

    return load_tokenizer(replace(model, id=str(folder), revision=None)), model


def stand_in(texts: Texts) -> "PreTrainedTokenizerBase":
    """A tokenizer that knows the pieces of these texts, for counting them."""
    from tokenizers import Regex, Tokenizer
    from tokenizers.decoders import Fuse
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Split
    from transformers import PreTrainedTokenizerFast

    words = dict.fromkeys(w for pair in texts for text in pair[:2] for w in re.findall(PIECE, text))
    words |= dict.fromkeys(w for pair in texts for w in re.findall(PIECE, pair[3] or ""))
    controls = ["<|unknown|>", "<|im_start|>", "<|im_end|>"]
    numbers = {word: at for at, word in enumerate([*controls, *words])}
    made = Tokenizer(WordLevel(numbers, unk_token=controls[0]))
    made.pre_tokenizer, made.decoder = Split(Regex(PIECE), "isolated"), Fuse()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=made, unk_token=controls[0], eos_token=controls[2], pad_token=controls[2]
    )
    tokenizer.add_special_tokens({"additional_special_tokens": [controls[1]]})
    chatml = ModelConfig(name="stand-in", id="stand-in", chat_template="chatml")
    tokenizer.chat_template = template_text(chatml)
    return tokenizer
