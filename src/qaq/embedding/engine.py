"""Runs rendered pairs through the decoder and averages its last hidden layer by position."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from qaq.host.runtime import RuntimeConfig
from qaq.models.config import ModelConfig
from qaq.models.forward.batching import Halving
from qaq.models.forward.forward import Forward
from qaq.models.forward.packing import Ids
from qaq.models.load import fitting, load_model, load_tokenizer
from qaq.models.template import chat_template, text_ids


class Embedder:
    """A model ready to embed pairs."""

    def __init__(
        self,
        model: ModelConfig,
        system_prompt: str | None,
        max_tokens: int,
        runtime: RuntimeConfig,
    ):
        self.tokenizer = load_tokenizer(model)
        self.chat = chat_template(self.tokenizer, model, system_prompt)
        loaded = load_model(model, runtime.device)
        self.forward = Forward(loaded, take_over=True, purpose="embedding", head=False)
        self.halving = Halving()
        self.max_tokens = fitting(model, max_tokens, "selector.max_tokens")
        self.token_budget = runtime.token_budget

    def render(self, question: str, answer: str, system: str | None = None) -> Ids:
        """The pair as fine-tuning lays it out, cut on the right; a query may have no answer."""
        chat = self.chat.under(text_ids(self.tokenizer, system)) if system else self.chat
        ids = chat.prompt_ids(text_ids(self.tokenizer, question))
        if answer:
            ids += chat.response_ids(text_ids(self.tokenizer, answer))
        return ids[: self.max_tokens]

    def batches(self, rendered: Sequence[Ids]) -> Iterator[list[int]]:
        """Indices of batches within the token budget."""
        return self.forward.batches(rendered, self.token_budget)

    def vectors(self, batch: Sequence[Ids]) -> np.ndarray:
        """One vector of length 1 per rendering (n x width, float32); halves if memory runs out."""
        found: list[np.ndarray] = self.halving(self._vectors, batch, len)
        return np.stack(found)

    @torch.inference_mode()
    def _vectors(self, batch: Sequence[Ids]) -> list[np.ndarray]:
        states = self.forward(batch, [range(len(ids)) for ids in batch])
        rows = torch.split(states.float(), [len(ids) for ids in batch])
        summed = [
            torch.arange(1, len(row) + 1, device=row.device, dtype=torch.float32) @ row
            for row in rows
        ]
        return list(torch.nn.functional.normalize(torch.stack(summed), dim=1).cpu().numpy())
