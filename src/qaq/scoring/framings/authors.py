"""q and q_given_a rendered and scored as the authors' script does, its quirks included.

It follows XXSg559/QAQ rmi_math.py, 11ee1c0 (behaviour re-written here), so that its numbers can be
compared with ours on the same model and rows. Unlike `chat` and `plain`, whole texts are tokenised
with the tokenizer's own special tokens, and the scored tokens are found by position in the text.
The start of Q in PPL(Q) is the length of a rendering with an empty user turn, end-of-turn text
included: the question's first tokens go unscored and end-of-turn tokens are scored. BOS stands
twice where the tokenizer adds one. Right truncation may leave no token of Q. `docs/framings.md`
says where and why the other framings differ.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from qaq.host.errors import ModelError
from qaq.models.config import ModelConfig
from qaq.models.template import refuse_foreign
from qaq.scoring.config import FramingConfig
from qaq.scoring.framing import Framed, Framer, Rendering, Span, framing, measured

if TYPE_CHECKING:
    from transformers.tokenization_utils_base import PreTrainedTokenizerBase


@framing("authors")
def authors(
    config: FramingConfig,
    model: ModelConfig,
    tokenizer: PreTrainedTokenizerBase,
    system_prompt: str | None,
) -> Framer:
    """The framer of the authors' script.

    Raises:
        ModelError: no chat template, or a tokenizer without character offsets.
    """
    if not tokenizer.chat_template:
        raise ModelError(
            f"{model.name}: framing=authors needs a chat template and {model.id} has none; "
            "set chat_template of the model to the one of its instruct sibling"
        )
    if not tokenizer.is_fast:
        raise ModelError(f"{model.name}: framing=authors needs a fast tokenizer (offsets)")
    refuse_foreign(tokenizer, model)
    return partial(_authors, config, model, tokenizer, system_prompt)


def _authors(
    config: FramingConfig,
    model: ModelConfig,
    tokenizer: PreTrainedTokenizerBase,
    system_prompt: str | None,
    question: str,
    answer: str,
    input_start: int | None = None,
) -> Framed:
    system = [{"role": "system", "content": system_prompt}] if system_prompt else []

    def render(messages: list[dict[str, str]], generation: bool, **options: Any) -> str:
        text = tokenizer.apply_chat_template(
            [*system, *messages], tokenize=False, add_generation_prompt=generation, **options
        )
        return str(text)

    reverse = config.reverse_instruction.replace("{answer}", answer)
    asked = [{"role": "user", "content": reverse}]
    thinking = {"enable_thinking": False} | model.template_kwargs
    alone = render([{"role": "user", "content": question}], False)
    empty = render([{"role": "user", "content": ""}], False)
    replied = render([*asked, {"role": "assistant", "content": question}], False, **thinking)
    prompt = render(asked, True, **thinking)
    q, q_cut = _after_character(tokenizer, "q", alone, len(empty), config.max_tokens)
    q_given_a, cut = _after_character(
        tokenizer, "q_given_a", replied, len(prompt), config.max_tokens
    )
    return measured(tokenizer, (q, q_given_a), q_cut or cut)


def _after_character(
    tokenizer: PreTrainedTokenizerBase, name: str, text: str, start: int, max_tokens: int
) -> tuple[Rendering, bool]:
    """Score the tokens whose text begins at character `start` or later."""
    whole = tokenizer(text, return_offsets_mapping=True)
    ids, offsets = whole["input_ids"][:max_tokens], whole["offset_mapping"][:max_tokens]
    scored = [i for i, (begin, _) in enumerate(offsets) if begin >= start and i > 0]
    span = Span(name, scored[0], scored[-1] + 1) if scored else Span(name, len(ids), len(ids))
    if span.end - span.start != len(scored):
        raise ModelError(f"the tokenizer's offsets for {name} are not in order; cannot score it")
    return Rendering(tuple(ids), (span,)), len(ids) < len(whole["input_ids"])
