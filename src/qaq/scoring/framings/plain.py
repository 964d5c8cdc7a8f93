"""No template: a start token, then the texts with an empty line between them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qaq.host.errors import ModelError
from qaq.models.config import ModelConfig
from qaq.models.template import literal_ids
from qaq.scoring.config import FramingConfig
from qaq.scoring.framing import Ids, Layout, framing

if TYPE_CHECKING:
    from transformers.tokenization_utils_base import PreTrainedTokenizerBase

PLAIN_SEPARATOR = "\n\n"


@framing("plain")
def plain_layout(
    config: FramingConfig,
    model: ModelConfig,
    tokenizer: PreTrainedTokenizerBase,
    system_prompt: str | None,
) -> Layout:
    """No template: a start token, then the texts with an empty line between them."""
    start = start_ids(tokenizer)
    between = literal_ids(tokenizer, PLAIN_SEPARATOR)
    return Layout(
        before_q=start, q_to_a=between, before_a=start, before_answer=start, a_to_q=between
    )


def start_ids(tokenizer: PreTrainedTokenizerBase) -> Ids:
    """One token that opens a document (BOS, else EOS), so that a first token can be scored.

    Raises:
        ModelError: the tokenizer has neither.
    """
    known = [i for i in (tokenizer.bos_token_id, tokenizer.eos_token_id) if i is not None]
    if not known:
        raise ModelError(
            f"the tokenizer {tokenizer.name_or_path} has neither a BOS nor an EOS token, and "
            "framing=plain needs one to stand before the first; set eos_token in its "
            "tokenizer_config.json, or use another framing"
        )
    return (known[0],)
