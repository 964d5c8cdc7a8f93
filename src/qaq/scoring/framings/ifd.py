"""IFD and r-IFD rendered, cut and dropped as the scripts of their authors do.

Behaviour re-written here, read at the commits named; one function for each script.

cherry          tianyi-lab/Cherry_LLM since 3a5970a, data_analysis.py with data_by_IFD.py (for
                `vicuna` the files named _vic): a and a_given_q.
cherry_first    the same files at the first commit, 6c200ba.
superfiltering  tianyi-lab/Superfiltering code_ifd/data_analysis.py 7537ffe: a and a_given_q. The
                answer's first token is scored after the question only.
r_ifd           tianyi-lab/Reflection_Tuning selection_code/data_analysis.py ce81d2d: all four
                spans. The reverse instruction stands in the prompt without an input part; the
                first token of question and of answer is scored only after the other.

What a script drops, or gives NaN and then leaves out, is null here with a reason that begins with
`DROPPED`. Text is `str.format`ted as in the scripts: braces in the data stay as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from qaq.models.config import ModelConfig
from qaq.scoring.config import FramingConfig
from qaq.scoring.framing import DROPPED, Framed, Framer, Rendering, Span, framing, measured

if TYPE_CHECKING:
    from transformers.tokenization_utils_base import PreTrainedTokenizerBase

NO_ROOM = DROPPED + "the question leaves no room for the answer"
TOO_LONG = DROPPED + "question and answer are longer than the limit"


@dataclass(frozen=True)
class Prompt:
    """A script's prompt without and with an input part, up to where the answer begins.

    `alone` stands before the answer that is scored without its question; of the tokens it takes
    the scripts give `spare` back to that answer.
    """

    bare: str
    with_input: str
    alone: str = "### Response:"
    spare: int = 4

    def before(self, instruction: str, extra: str) -> str:
        """What stands before the answer."""
        text = self.with_input if extra else self.bare
        return text.format(instruction=instruction, input=extra)


ALPACA = Prompt(
    "Below is an instruction that describes a task. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Response:",
    "Below is an instruction that describes a task, paired with an input that provides further "
    "context. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:",
)
_VICUNA = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the user's questions. USER: {instruction}"
)
VICUNA = Prompt(
    _VICUNA + " ASSISTANT:", _VICUNA + "\nInput:\n{input} ASSISTANT:", alone="ASSISTANT:", spare=6
)
WIZ = "{instruction}\n\n### Response:"
CHERRY = {
    "wiz": Prompt(WIZ, "{instruction}\nInput:{input}\n\n### Response:"),
    "alpaca": ALPACA,
    "vicuna": VICUNA,
}
REFLECTION = CHERRY | {"wiz": Prompt(WIZ, "{instruction}\n{input}\n\n### Response:")}
SUPERFILTERING = Prompt("{instruction}\n", "{instruction}\n{input}\n")


def parts(question: str, input_start: int | None) -> tuple[str, str]:
    """The instruction and its input part ('' where there is none), as the record had them."""
    if input_start is None:
        return question, ""
    return question[:input_start].removesuffix("\n\n"), question[input_start:]


def cherry(
    config: FramingConfig,
    tokenizer: PreTrainedTokenizerBase,
    question: str,
    answer: str,
    input_start: int | None = None,
) -> Framed:
    """Cherry_LLM: data_analysis.py computes losses, data_by_IFD.py drops rows and takes means.

    With `wiz` the first lays the input part out, and the second looks for the answer in the text
    without it: as many tokens as the answer has are scored, beginning too early.
    """
    prompt, limit = CHERRY[config.cherry_prompt], config.max_tokens
    instruction, extra = parts(question, input_start)
    before = prompt.before(instruction, extra)
    length = len(_ids(tokenizer, instruction if config.cherry_prompt == "wiz" else before, limit))
    if config.kind == "cherry_first":
        no_room = limit - len(_ids(tokenizer, instruction, limit)) - 2 <= 4
        room = limit - length - 2
    else:
        no_room = length >= limit
        room = limit - length + prompt.spare
    if no_room:
        return Framed((), {}, reason=NO_ROOM)
    alone, cut = _after(tokenizer, "a", prompt.alone, answer, room)
    asked, asked_cut = _after(tokenizer, "a_given_q", before, answer, limit)
    if config.cherry_prompt == "wiz" and extra:
        window, _ = _after(tokenizer, "a_given_q", prompt.before(instruction, ""), answer, limit)
        (span,) = window.spans
        end = min(span.end, len(asked.ids))
        asked = Rendering(asked.ids, (Span(span.name, min(span.start, end), end),))
    (scored,) = alone.spans
    if config.kind == "cherry" and length + scored.end - scored.start > limit:
        return Framed((), {}, reason=TOO_LONG)
    return measured(tokenizer, (alone, asked), cut or asked_cut, need=True)


def superfiltering(
    config: FramingConfig,
    tokenizer: PreTrainedTokenizerBase,
    question: str,
    answer: str,
    input_start: int | None = None,
) -> Framed:
    """Superfiltering: the answer alone has nothing before it and the room of the longer text."""
    before = SUPERFILTERING.before(*parts(question, input_start))
    alone, asked, cut = _both_ways(tokenizer, before, answer, config.max_tokens)
    return measured(tokenizer, (alone, asked), cut, need=True)


def r_ifd(
    config: FramingConfig,
    tokenizer: PreTrainedTokenizerBase,
    question: str,
    answer: str,
    input_start: int | None = None,
) -> Framed:
    """Selective Reflection-Tuning: Superfiltering's layout in both directions.

    Instruction and input part are the question without anything between them. The question is
    looked for by the instruction's last occurrence, which may lie inside the input part.
    """
    prompt, limit = REFLECTION[config.cherry_prompt], config.max_tokens
    instruction, extra = parts(question, input_start)
    before = prompt.before(instruction, extra)
    alone, asked, cut = _both_ways(tokenizer, before, answer, limit)
    reverse = prompt.before(config.reverse_instruction.replace("{answer}", answer), "")
    room = limit - len(_ids(tokenizer, reverse, limit)) + 1
    q, q_cut = _after(tokenizer, "q", "", instruction + extra, room)
    text = reverse + instruction + extra
    start = text.rfind(instruction)
    q_given_a, reverse_cut = _after(tokenizer, "q_given_a", text[:start], text[start:], limit)
    cut = cut or q_cut or reverse_cut
    return measured(tokenizer, (q, q_given_a, alone, asked), cut, need=True)


@framing("cherry")
@framing("cherry_first")
@framing("superfiltering")
@framing("r_ifd")
def scripted(
    config: FramingConfig,
    model: ModelConfig,
    tokenizer: PreTrainedTokenizerBase,
    system_prompt: str | None,
) -> Framer:
    """The framer of the script that `kind` names; none of them knows a system prompt."""
    scripts = {"superfiltering": superfiltering, "r_ifd": r_ifd}
    return partial(scripts.get(config.kind, cherry), config, tokenizer)


def _both_ways(
    tokenizer: PreTrainedTokenizerBase, before: str, answer: str, limit: int
) -> tuple[Rendering, Rendering, bool]:
    """The answer alone and after `before`, and whether either is cut."""
    room = limit - len(_ids(tokenizer, before, limit)) + 1
    alone, cut = _after(tokenizer, "a", "", answer, room)
    asked, asked_cut = _after(tokenizer, "a_given_q", before, answer, limit)
    return alone, asked, cut or asked_cut


def _after(
    tokenizer: PreTrainedTokenizerBase, name: str, prefix: str, text: str, limit: int
) -> tuple[Rendering, bool]:
    """Score the tokens after as many as the prefix alone has (the first never); was it cut?"""
    whole = tokenizer(prefix + text)["input_ids"]
    ids = whole if len(whole) <= limit else _ids(tokenizer, prefix + text, limit)
    start = min(max(len(tokenizer(prefix)["input_ids"]) if prefix else 0, 1), len(ids))
    return Rendering(tuple(ids), (Span(name, start, len(ids)),)), len(ids) < len(whole)


def _ids(tokenizer: PreTrainedTokenizerBase, text: str, limit: int) -> list[int]:
    """The text's tokens, cut by the tokenizer to at most `limit`."""
    if limit < 1:
        return []
    return list(tokenizer(text, truncation=True, max_length=limit)["input_ids"])
