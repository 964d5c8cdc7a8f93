"""Framings: how a (question, answer) pair is laid out as token ids with spans to be scored.

A framing gives up to four *renderings* of a pair. In each, a span names the tokens whose negative
log-likelihood is wanted, given everything to their left:

    q           the question, on its own            a           the answer, on its own
    q_given_a   the question, after the answer      a_given_q   the answer, after the question

Pieces are tokenised once and joined by ids, so a span holds the same tokens wherever it appears.
When a rendering would be longer than `max_tokens`, the answer is cut, never the question.
"""

import sys
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol

from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from qaq.models.config import ModelConfig
from qaq.models.template import ChatTemplate, chat_template, literal_ids, text_ids
from qaq.scoring.config import FramingConfig

if TYPE_CHECKING:
    from qaq.models.load import Positions

Ids = tuple[int, ...]
PLAIN_SEPARATOR = "\n\n"
DROPPED = "the script drops it: "  # reasons that are a published script's own, not a failure


@dataclass(frozen=True)
class Span:
    """Tokens `ids[start:end]` of a rendering; `start` is at least 1 (something stands before).

    Only the `authors` framing makes empty spans, as its script does; their sum is 0 over 0 tokens.
    """

    name: str
    start: int
    end: int


@dataclass(frozen=True)
class Rendering:
    """Token ids with the spans to be scored in them."""

    ids: Ids
    spans: tuple[Span, ...]


@dataclass(frozen=True)
class Framed:
    """A pair laid out. `reason` says why it cannot be scored; then there are no renderings."""

    renderings: tuple[Rendering, ...]
    bytes: dict[str, int]  # UTF-8 bytes of the text of each span
    truncated: bool = False
    reason: str | None = None


class Framer(Protocol):
    """Lays a pair out; `input_start` is where the question's `input` part begins, if it has one."""

    def __call__(self, question: str, answer: str, input_start: int | None = None) -> Framed:
        """The pair's renderings, or why it has none."""


@dataclass(frozen=True)
class Layout:
    """A two-sided layout: what stands around question and answer in each of the renderings.

    q:         `before_q` Q                 a_given_q:  `before_q` Q `q_to_a` A
    a:         `before_a` A                 q_given_a:  `before_answer` A `a_to_q` Q
    """

    before_q: Ids
    q_to_a: Ids
    before_a: Ids
    before_answer: Ids
    a_to_q: Ids

    @property
    def overhead(self) -> int:
        """Tokens of the longest rendering that are neither question nor answer."""
        forward = len(self.before_q) + len(self.q_to_a)
        return max(forward, len(self.before_answer) + len(self.a_to_q))

    def renderings(self, q: Ids, a: Ids) -> tuple[Rendering, ...]:
        """The four renderings of a tokenised pair."""
        return (
            _span("q", self.before_q, q),
            _span("q_given_a", self.before_answer + a + self.a_to_q, q),
            _span("a", self.before_a, a),
            _span("a_given_q", self.before_q + q + self.q_to_a, a),
        )


def make_framer(
    config: FramingConfig,
    model: ModelConfig,
    tokenizer: PreTrainedTokenizerBase,
    system_prompt: str | None,
    positions: "Positions | None" = None,
) -> Framer:
    """The function that lays out a pair for this model.

    `chat` and `plain` cut answers where the model's positions end, if that is below `max_tokens`.
    Published scripts do not look there: rows run on past them as theirs do, unless the positions
    are learned, where the scripts stop with an error and here the row has a reason.

    Raises:
        ModelError: the framing needs a chat template and the tokenizer has none that fits.
    """
    limit = config.max_tokens
    if positions and positions.count < limit:
        _say_limit(config, model, positions)
        limit = positions.count
    if config.kind == "chat":
        layout = chat_layout(config, tokenizer, chat_template(tokenizer, model, system_prompt))
    elif config.kind == "plain":
        layout = plain_layout(tokenizer)
    else:
        from qaq.scoring.published import published_framer

        framer = published_framer(config, model, tokenizer, system_prompt)
        return partial(_refuse_long, framer, limit) if positions and positions.learned else framer
    return partial(_frame, layout, tokenizer, limit)


def chat_layout(
    config: FramingConfig, tokenizer: PreTrainedTokenizerBase, chat: ChatTemplate
) -> Layout:
    """The model's chat template; Q|A as the assistant's reply to the reverse instruction."""
    before, after = config.reverse_instruction.split("{answer}", 1)
    reply = chat.turn_ids + chat.lead_ids
    return Layout(
        before_q=chat.head_ids,
        q_to_a=reply,
        before_a=chat.prompt_ids(()) + chat.lead_ids,
        before_answer=chat.head_ids + text_ids(tokenizer, before),
        a_to_q=text_ids(tokenizer, after) + reply,
    )


def plain_layout(tokenizer: PreTrainedTokenizerBase) -> Layout:
    """No template: a start token, then the texts with an empty line between them."""
    start = start_ids(tokenizer)
    between = literal_ids(tokenizer, PLAIN_SEPARATOR)
    return Layout(
        before_q=start, q_to_a=between, before_a=start, before_answer=start, a_to_q=between
    )


def start_ids(tokenizer: PreTrainedTokenizerBase) -> Ids:
    """One token that opens a document (BOS, else EOS), so that a first token can be scored."""
    token = tokenizer.bos_token_id
    return (tokenizer.eos_token_id if token is None else token,)


def _say_limit(config: FramingConfig, model: ModelConfig, positions: "Positions") -> None:
    what = "answers are cut there"
    if config.kind not in ("chat", "plain"):
        what = "longer rows are not scored" if positions.learned else "longer rows run past them"
    print(
        f"{model.name} has {positions.count} positions, fewer than framing.max_tokens="
        f"{config.max_tokens}: {what}",
        file=sys.stderr,
    )


def measured(
    tokenizer: PreTrainedTokenizerBase,
    renderings: tuple[Rendering, ...],
    truncated: bool,
    need: bool = False,
) -> Framed:
    """A pair laid out by a script, with the sizes of its spans' texts.

    Args:
        need: a span without a token gives the row a reason instead.
    """
    sizes = {}
    for rendering in renderings:
        for span in rendering.spans:
            if span.start >= span.end and need:
                return Framed((), {}, reason=f"{DROPPED}no token of {span.name} is left to score")
            text = str(tokenizer.decode(rendering.ids[span.start : span.end]))
            sizes[span.name] = len(text.encode())
    return Framed(renderings, sizes, truncated)


def _refuse_long(
    framer: Framer, limit: int, question: str, answer: str, input_start: int | None = None
) -> Framed:
    framed = framer(question, answer, input_start)
    if any(len(rendering.ids) > limit for rendering in framed.renderings):
        return Framed((), {}, reason=f"longer than the model's {limit} positions")
    return framed


def _span(name: str, context: Ids, scored: Ids) -> Rendering:
    start = len(context)
    return Rendering(context + scored, (Span(name, start, start + len(scored)),))


def _frame(
    layout: Layout,
    tokenizer: PreTrainedTokenizerBase,
    max_tokens: int,
    question: str,
    answer: str,
    input_start: int | None = None,
) -> Framed:
    q, a = text_ids(tokenizer, question), text_ids(tokenizer, answer)
    if not q or not a:
        return Framed((), {}, reason=f"the {'answer' if q else 'question'} has no tokens")
    room = max_tokens - layout.overhead - len(q)
    if room < 1:
        return Framed((), {}, reason="the question leaves no room for the answer")
    cut = a[:room]
    text = answer if len(cut) == len(a) else str(tokenizer.decode(cut))
    sizes = {"q": len(question.encode()), "a": len(text.encode())}
    sizes |= {"q_given_a": sizes["q"], "a_given_q": sizes["a"]}
    return Framed(layout.renderings(q, cut), sizes, truncated=len(cut) < len(a))
