"""A pair becomes token ids and labels; or it is refused, with the reason.

The pieces of a conversation are tokenised once, on their own, and joined by ids, as in scoring.
So the labels are exactly the answer's tokens and its end token by construction; what is proven
here is that those tokens stand for the text of the row and for nothing else.
"""

import unicodedata
from dataclasses import dataclass

from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from qaq.models.template import ChatTemplate, text_ids

IGNORED = -100


@dataclass(frozen=True)
class Example:
    """One row to learn from: `ids[:prompt]` is given, `ids[prompt:]` is learnt."""

    row_id: str
    ids: tuple[int, ...]
    prompt: int
    truncated: bool

    @property
    def labels(self) -> tuple[int, ...]:
        """One label per token in the usual form: -100 where nothing is learnt."""
        return (IGNORED,) * self.prompt + self.ids[self.prompt :]


@dataclass(frozen=True)
class Refusal:
    """A row that cannot be trained on."""

    row_id: str
    reason: str


class Encoder:
    """Turns pairs into examples, for one tokenizer, template and cut-off."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        template: ChatTemplate,
        cutoff: int,
        label_after_end: bool = False,
    ):
        self.tokenizer = tokenizer
        self.template = template
        self.cutoff = cutoff
        self.ending = template.after_ids if label_after_end else ()
        of_layout = {*template.head_ids, *template.turn_ids, *template.lead_ids, *template.tail_ids}
        # White space among the added tokens (Gemma's line break) is text, not control.
        added = {i for token, i in tokenizer.get_added_vocab().items() if token.strip()}
        self.controls = frozenset(tokenizer.all_special_ids) | (of_layout & added)

    def encode(
        self, row_id: str, question: str, answer: str, system: str | None = None
    ) -> Example | Refusal:
        """Lay out one pair; a row over the cut-off is cut as LlamaFactory cuts it.

        The row's own system turn stands in its prompt, if the template has a place for one.
        """
        question_ids = text_ids(self.tokenizer, question)
        answer_ids = text_ids(self.tokenizer, answer)
        template, system_ids = self.template, text_ids(self.tokenizer, system or "")
        reason = self._doubt(system_ids, question_ids, answer_ids, answer)
        if reason:
            return Refusal(row_id, reason)
        if system:
            template = template.under(system_ids)
        prompt = template.prompt_ids(question_ids)
        target = self.template.response_ids(answer_ids) + self.ending
        kept_prompt, kept_target = cut(len(prompt), len(target), self.cutoff)
        if kept_prompt == 0 or kept_target <= len(self.template.lead_ids):
            return Refusal(row_id, f"nothing of the answer fits into {self.cutoff} tokens")
        ids = prompt[:kept_prompt] + target[:kept_target]
        return Example(row_id, ids, kept_prompt, len(ids) < len(prompt) + len(target))

    def _doubt(
        self,
        system_ids: tuple[int, ...],
        question_ids: tuple[int, ...],
        answer_ids: tuple[int, ...],
        answer: str,
    ) -> str | None:
        """Why the ids are not proven to be the texts, or None."""
        if not answer_ids:
            return "the answer has no tokens"
        texts = {"system turn": system_ids, "question": question_ids, "answer": answer_ids}
        for part, ids in texts.items():
            found = self.controls.intersection(ids)
            if found:  # it would end a turn in its middle
                token = self.tokenizer.convert_ids_to_tokens(min(found))
                return f"the {part} holds the control token {token}"
        decoded = self.tokenizer.decode(
            list(answer_ids), skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        if _plain(str(decoded)) != _plain(answer):
            return "the answer's tokens do not decode to the answer"
        return None


def cut(prompt: int, target: int, cutoff: int) -> tuple[int, int]:
    """Lengths of prompt and target after truncation.

    LlamaFactory 0.9.3, `data/processor/processor_utils.py`, `infer_seqlen`: the shorter of the two
    is kept whole if it is under half of the cut-off, otherwise both are cut in proportion. What is
    cut is the end.
    """
    if target * 2 < cutoff:
        room = cutoff
    elif prompt * 2 < cutoff:
        room = cutoff - prompt
    else:
        room = int(cutoff * (target / (prompt + target)))
    kept_target = min(room, target)
    return min(max(cutoff - kept_target, 0), prompt), kept_target


def _plain(text: str) -> str:
    """Text up to what tokenizers normalise: Unicode composition and one space in front."""
    return unicodedata.normalize("NFC", text).removeprefix(" ")
