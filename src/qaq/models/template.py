"""One prompt layout per model, cut into pieces that are tokenised once and joined by ids.

Scoring, fine-tuning and evaluation lay out a conversation with the same object, so that a span of
text has the same tokens wherever it appears and an adapter is asked the way it was taught. The
layout is the tokenizer's chat template, rendered with markers in place of the texts and split at
them; nothing ever searches for a text inside a tokenised rendering.

    prompt    = head + question + turn            (what a model is given to answer)
    response  = lead + answer + tail              (what it learns to write)

`turn` ends where the template's generation prompt ends; what the template puts between that and
the answer (DeepSeek Coder: a line break) is `lead`. `tail` ends with the end-of-turn token;
what the template puts behind it (a line break, mostly) is `after`, which nobody has to write.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from qaq.host.errors import ModelError
from qaq.models.config import ModelConfig
from qaq.models.rendering import ANSWER, QUESTION, SYSTEM, within_seconds
from qaq.models.weights import several
from qaq.store.keys import content_key

if TYPE_CHECKING:
    from transformers.tokenization_utils_base import PreTrainedTokenizerBase

# What a template writes to steer a model, in the notations that are in use; `[INST]` and words
# between hashes are ordinary text in many families, and not looked for.
MARKER = re.compile(
    r"<\|[^<>|\s]{1,40}\|?>|<[^<>|\s]{1,40}\|>|<｜[^<>｜\s]{1,40}｜>|</?s>|<(?:bos|eos|pad)>"
    r"|<\w+_of_\w+>"
)


@dataclass(frozen=True)
class ChatTemplate:
    """The literal pieces of a conversation of one question and one answer.

    Texts are as the template renders them; ids are their tokens, special tokens included. `system`
    has the ids of the head before and behind a row's own system turn; None: the template has none.
    """

    head: str
    turn: str
    lead: str
    tail: str
    head_ids: tuple[int, ...]
    turn_ids: tuple[int, ...]
    lead_ids: tuple[int, ...]
    tail_ids: tuple[int, ...]
    after: str = ""
    after_ids: tuple[int, ...] = ()
    system: tuple[tuple[int, ...], tuple[int, ...]] | None = None

    def under(self, system: tuple[int, ...]) -> ChatTemplate:
        """The layout of a row whose own system turn is this tokenised text, if it has a place.

        It stands in place of the system prompt that the head holds, the template's own included.
        """
        if self.system is None:
            return self
        before, behind = self.system
        return replace(self, head_ids=before + system + behind)

    @property
    def sha(self) -> str:
        """Identifies the layout: equal if and only if texts and tokens up to the end are equal."""
        texts = [self.head, self.turn, self.lead, self.tail]
        ids = [self.head_ids, self.turn_ids, self.lead_ids, self.tail_ids]
        return content_key([texts, [list(i) for i in ids]])

    def prompt_ids(self, question: tuple[int, ...]) -> tuple[int, ...]:
        """What the model is given to answer a tokenised question.

        With an empty question it is the context of an answer that nothing asked for. An assistant
        turn straight after the system turn would be nearer to Cherry_LLM's direct answer, but many
        templates refuse it, and an empty question renders with every one.
        """
        return self.head_ids + question + self.turn_ids

    def response_ids(self, answer: tuple[int, ...]) -> tuple[int, ...]:
        """What the model learns to write for a tokenised answer, end of turn included."""
        return self.lead_ids + answer + self.tail_ids


def text_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[int, ...]:
    """Tokens of a data text. Special-token strings inside it stay ordinary text."""
    encoded = tokenizer(text, add_special_tokens=False, split_special_tokens=True)
    return tuple(encoded["input_ids"])


def literal_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[int, ...]:
    """Tokens of a piece of the template, special tokens recognised, none added."""
    return tuple(tokenizer(text, add_special_tokens=False)["input_ids"]) if text else ()


def chat_template(
    tokenizer: PreTrainedTokenizerBase, config: ModelConfig, system_prompt: str | None
) -> ChatTemplate:
    """Cut the tokenizer's chat template into pieces.

    Raises:
        ModelError: there is no chat template, or it does not render one question and one answer
            in this order with the generation prompt as the start of the assistant's turn.
    """
    if not tokenizer.chat_template:
        raise ModelError(
            f"{config.label}: its tokenizer has no chat template. Set chat_template "
            "of the model to a packaged name or a Jinja file (base models borrow the one of their "
            "instruct sibling), or use a framing that needs none: framing=plain"
        )
    system = [{"role": "system", "content": system_prompt}] if system_prompt else []
    user = {"role": "user", "content": QUESTION}
    reply = {"role": "assistant", "content": ANSWER}
    whole = _render(tokenizer, config, [*system, user, reply], False)
    asked = _render(tokenizer, config, [*system, user], True)
    head, rest = _split(config, whole, QUESTION)
    between, tail = _split(config, rest, ANSWER)
    asked_head, turn = _split(config, asked, QUESTION)
    if asked_head != head or not between.startswith(turn):
        raise ModelError(
            f"{config.label}: the chat template renders a prompt and a conversation differently: "
            f"{asked_head + '…' + turn!r} against {head + '…' + between!r}. Give a template whose "
            "generation prompt is the start of the assistant's turn"
        )
    lead = between[len(turn) :]
    end = _cut_after_end(tokenizer, tail)
    pieces = {"head": head, "turn": turn, "lead": lead, "tail": end, "after": tail[len(end) :]}
    if not config.allow_split_markers:
        refuse_split(tokenizer, list(pieces.values()), config.label)
    ids = {f"{name}_ids": literal_ids(tokenizer, text) for name, text in pieces.items()}
    around = _around_system(tokenizer, config, turn + lead + tail)
    return ChatTemplate(**pieces, **ids, system=around)  # type: ignore[arg-type]


def _around_system(
    tokenizer: PreTrainedTokenizerBase, config: ModelConfig, rest: str
) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Tokens before a system turn's text and from there to the question.

    None where the template refuses such a turn, leaves it out, or renders the `rest` otherwise.
    """
    turns = (("system", SYSTEM), ("user", QUESTION), ("assistant", ANSWER))
    try:
        text = _render(tokenizer, config, [{"role": r, "content": c} for r, c in turns], False)
        head, behind = _split(config, text, QUESTION)
        before, between = _split(config, head, SYSTEM)
        if not config.allow_split_markers:
            refuse_split(tokenizer, [head], config.label)
    except ModelError:
        return None
    if behind.replace(ANSWER, "") != rest:
        return None
    return literal_ids(tokenizer, before), literal_ids(tokenizer, between)


def refuse_foreign(tokenizer: PreTrainedTokenizerBase, config: ModelConfig) -> None:
    """Refuse a template that was written for another tokenizer, where it is rendered as a whole.

    Raises:
        ModelError: it does not render, or its control texts are not tokens of this tokenizer.
    """
    said = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": ANSWER}]
    text = _render(tokenizer, config, said, False)
    if not config.allow_split_markers:
        refuse_split(tokenizer, [text], config.label)


def refuse_split(tokenizer: PreTrainedTokenizerBase, pieces: Sequence[str], label: str) -> None:
    """Refuse a chat template whose control texts are not each a token of this tokenizer.

    Raises:
        ModelError: with those texts, and what they are cut into.
    """
    known = tokenizer.get_vocab()
    split = []
    ids = [i for piece in pieces for i in literal_ids(tokenizer, piece)]
    written = [marker for piece in pieces for marker in MARKER.findall(piece)]
    for marker in dict.fromkeys(written):
        token = known.get(marker)
        if token is None or ids.count(token) < written.count(marker):
            cut = tokenizer.convert_ids_to_tokens(text_ids(tokenizer, marker))
            split.append(f"{marker} (read as {len(cut)} tokens)")
    if split:
        raise ModelError(
            f"{label}: the chat template and the tokenizer do not belong together: the template "
            f"writes {several(split)}, which should each be one token. Give the template of this "
            "model (chat_template), or set allow_split_markers=true of this model if it was "
            "trained so"
        )


def _render(
    tokenizer: PreTrainedTokenizerBase,
    config: ModelConfig,
    messages: list[dict[str, Any]],
    generation: bool,
) -> str:
    try:
        with within_seconds(config.label):
            text = tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=generation, **config.template_kwargs
            )
    except ModelError:
        raise
    except Exception as error:  # Jinja's own errors and the template's raise_exception
        roles = " then ".join(m["role"] for m in messages)
        raise ModelError(
            f"{config.label}: the chat template cannot render {roles}: {error}"
        ) from error
    return str(text)


def _split(config: ModelConfig, text: str, mark: str) -> tuple[str, str]:
    parts = text.split(mark)
    if len(parts) != 2:
        raise ModelError(
            f"{config.label}: the chat template shows a message {len(parts) - 1} times instead of "
            f"once in {text!r}"
        )
    return parts[0], parts[1]


def _cut_after_end(tokenizer: PreTrainedTokenizerBase, tail: str) -> str:
    """The tail up to its first special token, so that no label follows the end of the turn."""
    ends = [tail.find(t) + len(t) for t in tokenizer.all_special_tokens if t and t in tail]
    added = [str(t) for t in tokenizer.get_added_vocab()]
    ends += [tail.find(t) + len(t) for t in added if t.strip() and t in tail]
    return tail[: min(ends)] if ends else tail
