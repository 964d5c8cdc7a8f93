"""The model is asked whether a pair is worth training on; scored is its "yes" (Ask-LLM).

One rendering: a user's turn with the pair and the question, and "yes" as the reply, which is the
span `a_given_q`. There is no other span, so that no metric of a pair comes out of such a table;
`qaq.selection.rules.ask_llm` reads it.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from qaq.models.config import ModelConfig
from qaq.models.template import chat_template, text_ids
from qaq.scoring.config import FramingConfig
from qaq.scoring.framing import Framed, Framer, Ids, Rendering, Span, framing

if TYPE_CHECKING:
    from transformers.tokenization_utils_base import PreTrainedTokenizerBase

BEFORE, BETWEEN = "###\nInstruction: ", "\n\nResponse: "
ASKED = (
    "\n###\n\nDoes the previous paragraph demarcated within ### and ### contain informative signal "
    "for fine-tuning a large-language model? An informative datapoint should be well-formatted, "
    "its response should do what its instruction asks, and strictly NOT have any harmful, racist, "
    "sexist, etc. content.\n\nOPTIONS:\n- yes\n- no"
)
YES = "yes"


@framing("ask_llm")
def ask_llm(
    config: FramingConfig,
    model: ModelConfig,
    tokenizer: PreTrainedTokenizerBase,
    system_prompt: str | None,
) -> Framer:
    """The question of Sachdeva et al. (arXiv 2402.09668), figure 3, about a pair.

    Theirs asks of a text "for pre-training" and whether it holds "some usable knowledge of the
    world"; in place of that stands here whether the response does what the instruction asks.

    Raises:
        ModelError: the model has no chat template that fits.
    """
    chat = chat_template(tokenizer, model, system_prompt)
    before, between, asked = (text_ids(tokenizer, text) for text in (BEFORE, BETWEEN, ASKED))
    reply = asked + chat.turn_ids + chat.lead_ids
    head, yes = chat.head_ids + before, text_ids(tokenizer, YES)
    return partial(_ask, tokenizer, config.max_tokens, head, between, reply, yes)


def _ask(
    tokenizer: PreTrainedTokenizerBase,
    max_tokens: int,
    head: Ids,
    between: Ids,
    reply: Ids,
    yes: Ids,
    question: str,
    answer: str,
    input_start: int | None = None,
) -> Framed:
    q, a = text_ids(tokenizer, question), text_ids(tokenizer, answer)
    around = len(head) + len(q) + len(between) + len(reply) + len(yes)
    if around >= max_tokens:
        return Framed((), {}, reason="the question leaves no room for the answer")
    cut = a[: max_tokens - around]
    before = head + q + between + cut + reply
    span = Span("a_given_q", len(before), len(before) + len(yes))
    sizes = {"a_given_q": len(YES.encode())}
    return Framed((Rendering(before + yes, (span,)),), sizes, truncated=len(cut) < len(a))
