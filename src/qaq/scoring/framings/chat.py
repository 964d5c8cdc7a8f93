"""The model's chat template; the question after the answer as a reply to a request for it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from qaq.models.config import ModelConfig
from qaq.models.template import ChatTemplate, chat_template, text_ids
from qaq.scoring.config import FramingConfig
from qaq.scoring.framing import Layout, framing

if TYPE_CHECKING:
    from transformers.tokenization_utils_base import PreTrainedTokenizerBase


@framing("chat")
def chat_layout(
    config: FramingConfig,
    model: ModelConfig,
    tokenizer: PreTrainedTokenizerBase,
    system_prompt: str | None,
) -> Layout:
    """The model's chat template; Q|A as the assistant's reply to the reverse instruction."""
    chat = chat_template(tokenizer, model, system_prompt)
    before, after = config.reverse_instruction.split("{answer}", 1)
    before_ids, after_ids = text_ids(tokenizer, before), text_ids(tokenizer, after)
    reply = chat.turn_ids + chat.lead_ids

    def laid_out(chat: ChatTemplate) -> Layout:
        return Layout(
            before_q=chat.head_ids,
            q_to_a=reply,
            before_a=chat.prompt_ids(()) + chat.lead_ids,
            before_answer=chat.head_ids + before_ids,
            a_to_q=after_ids + reply,
        )

    if chat.system is None:
        return laid_out(chat)
    return replace(laid_out(chat), under=lambda system: laid_out(chat.under(system)))
