"""Framings: how a (question, answer) pair is rendered as token ids with spans to be scored.

A framing gives up to four *renderings* of a pair. In each, a span names the tokens whose negative
log-likelihood is wanted, given everything to their left:

    q           the question, on its own            a           the answer, on its own
    q_given_a   the question, after the answer      a_given_q   the answer, after the question

Pieces are tokenised once and joined by ids, so a span holds the same tokens wherever it appears.
When a rendering would be longer than `max_tokens`, the answer is cut, never the question.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol

from qaq.host.errors import UserError
from qaq.host.plugins import guarded, owner
from qaq.host.terminal import show
from qaq.models.config import ModelConfig
from qaq.models.template import text_ids
from qaq.scoring.config import FRAMINGS, Framing, FramingConfig
from qaq.store.tables import SPANS

if TYPE_CHECKING:
    from transformers.tokenization_utils_base import PreTrainedTokenizerBase

    from qaq.models.load import Positions

Ids = tuple[int, ...]
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
    """A rendered pair. `reason` says why it cannot be scored; then there are no renderings."""

    renderings: tuple[Rendering, ...]
    bytes: dict[str, int]  # UTF-8 bytes of the text of each span
    truncated: bool = False
    reason: str | None = None


class Framer(Protocol):
    """Lays a pair out; `input_start` is where the question's `input` part begins, if it has one.

    `system` is the row's own system turn. It stands in the place of `system_prompt` in all
    renderings alike, so that a difference of two spans never holds what it says; a framing that has
    no place for it (`places_system`) leaves it out.
    """

    def __call__(
        self,
        question: str,
        answer: str,
        input_start: int | None = None,
        system: str | None = None,
    ) -> Framed:
        """The pair's renderings, or why it has none."""


@dataclass(frozen=True)
class Layout:
    """A two-sided layout: what stands around question and answer in each of the renderings.

    q:         `before_q` Q                 a_given_q:  `before_q` Q `q_to_a` A
    a:         `before_a` A                 q_given_a:  `before_answer` A `a_to_q` Q

    `under` gives the layout of a row with a system turn of its own, from the turn's tokens; None
    where the layout has no place for one.

    Raises:
        UserError: a part is not a tuple of token ids, or nothing stands before a scored token.
    """

    before_q: Ids
    q_to_a: Ids
    before_a: Ids
    before_answer: Ids
    a_to_q: Ids
    under: Callable[[Ids], Layout] | None = None

    def __post_init__(self) -> None:
        for name in ("before_q", "q_to_a", "before_a", "before_answer", "a_to_q"):
            ids = getattr(self, name)
            if not isinstance(ids, tuple) or not all(isinstance(i, int) for i in ids):
                raise UserError(f"the layout's {name} is {ids!r}; expected a tuple of token ids")
        for name in ("before_q", "before_a"):
            if not getattr(self, name):
                raise UserError(
                    f"the layout's {name} is empty; a first token is scored only behind another, "
                    "so let a start token stand there (qaq.scoring.framings.plain.start_ids)"
                )

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


def framing(kind: str) -> Callable[[Framing], Framing]:
    """Register a function as the framing `kind`.

    It gets the framing's config, the model's, its tokenizer and the system prompt, and returns a
    `Layout`, or a function of its own that lays out each pair.
    """

    def register(function: Framing) -> Framing:
        module = owner(function.__module__)
        FRAMINGS.add(kind, guarded(function, module), module)
        return function

    return register


def make_framer(
    config: FramingConfig,
    model: ModelConfig,
    tokenizer: PreTrainedTokenizerBase,
    system_prompt: str | None,
    positions: Positions | None = None,
) -> Framer:
    """The function that lays out a pair for this model.

    Where a framing gives a `Layout`, answers are cut where the model's positions end, if that is
    below `max_tokens`. Published scripts do not look there: rows run on past them as theirs do,
    unless the positions are learned, where the scripts stop with an error and here the row has a
    reason.

    Raises:
        ModelError: the framing needs a chat template and the tokenizer has none that fits.
    """
    made = FRAMINGS[config.kind](config, model, tokenizer, system_prompt)
    limit = config.max_tokens
    if positions and positions.count < limit:
        _say_limit(config, model, positions, cut=isinstance(made, Layout))
        limit = positions.count
    if isinstance(made, Layout):
        return _LaidOut(made, tokenizer, limit)
    framer = made
    if FRAMINGS.fingerprint(config.kind):  # a file of the user's own
        made = _with_start(made)
        framer = FRAMINGS.guard(config.kind, partial(_sound, config.kind, made))
    if positions and positions.learned:
        framer = partial(_refuse_long, framer, limit)
    return partial(_without_system, framer)


def places_system(framer: Framer) -> bool:
    """Whether a row's own system turn has a place in its renderings."""
    return isinstance(framer, _LaidOut) and framer.layout.under is not None


def _without_system(
    framer: Callable[[str, str, int | None], Framed],
    question: str,
    answer: str,
    input_start: int | None = None,
    system: str | None = None,
) -> Framed:
    return framer(question, answer, input_start)


def _say_limit(
    config: FramingConfig, model: ModelConfig, positions: Positions, *, cut: bool
) -> None:
    what = "answers are cut there"
    if not cut:
        what = "longer rows are not scored" if positions.learned else "longer rows run past them"
    show(
        f"{model.name} has {positions.count} positions, fewer than framing.max_tokens="
        f"{config.max_tokens}: {what}",
        error=True,
    )


def measured(
    tokenizer: PreTrainedTokenizerBase,
    renderings: tuple[Rendering, ...],
    truncated: bool,
    need: bool = False,
) -> Framed:
    """A pair rendered by a script, with the sizes of its spans' texts.

    A span in `need` without a token gives the row a reason instead.
    """
    sizes = {}
    for rendering in renderings:
        for span in rendering.spans:
            if span.start >= span.end and need:
                return Framed((), {}, reason=f"{DROPPED}no token of {span.name} is left to score")
            text = str(tokenizer.decode(rendering.ids[span.start : span.end]))
            sizes[span.name] = len(text.encode())
    return Framed(renderings, sizes, truncated)


def _with_start(made: Callable[..., Framed]) -> Callable[..., Framed]:
    """A function of (question, answer), which need not ask where the `input` part begins."""
    try:
        inspect.signature(made).bind("", "", None)
    except TypeError:
        return lambda question, answer, input_start=None: made(question, answer)
    return made


def _sound(
    kind: str, framer: Framer, question: str, answer: str, input_start: int | None = None
) -> Framed:
    framed = framer(question, answer, input_start)
    for rendering in framed.renderings:
        for span in rendering.spans:
            if span.name not in SPANS or not 1 <= span.start <= span.end <= len(rendering.ids):
                raise UserError(
                    f"the framing {kind} gave {span} for {len(rendering.ids)} tokens; expected one "
                    f"of {', '.join(SPANS)}, and 1 <= start <= end <= the number of tokens"
                )
    return framed


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


@dataclass(frozen=True)
class _LaidOut:
    """Lays pairs out in a layout, of at most so many tokens."""

    layout: Layout
    tokenizer: PreTrainedTokenizerBase
    max_tokens: int

    def __call__(
        self,
        question: str,
        answer: str,
        input_start: int | None = None,
        system: str | None = None,
    ) -> Framed:
        layout = self.layout
        q, a = text_ids(self.tokenizer, question), text_ids(self.tokenizer, answer)
        if not q or not a:
            return Framed((), {}, reason=f"the {'answer' if q else 'question'} has no tokens")
        under = layout.under if system else None
        if system and under:
            layout = under(text_ids(self.tokenizer, system))
        room = self.max_tokens - layout.overhead - len(q)
        if room < 1:
            taken = "the system turn and the question leave" if under else "the question leaves"
            return Framed((), {}, reason=f"{taken} no room for the answer")
        cut = a[:room]
        text = answer if len(cut) == len(a) else str(self.tokenizer.decode(cut))
        sizes = {"q": len(question.encode()), "a": len(text.encode())}
        sizes |= {"q_given_a": sizes["q"], "a_given_q": sizes["a"]}
        return Framed(layout.renderings(q, cut), sizes, truncated=len(cut) < len(a))
