"""Runs rendered pairs through the decoder and averages its last hidden layer by position."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from qaq.host.runtime import RuntimeConfig
from qaq.models.config import ModelConfig
from qaq.models.load import load_model, load_tokenizer
from qaq.models.template import chat_template, text_ids

Ids = tuple[int, ...]


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
        self.decoder, self.device = loaded.get_decoder(), loaded.device
        self.width = int(loaded.config.get_text_config().hidden_size)
        self.pad_id = self.tokenizer.pad_token_id or 0
        self.max_tokens, self.token_budget = max_tokens, runtime.token_budget

    def render(self, question: str, answer: str) -> Ids:
        """The pair as fine-tuning lays it out, cut on the right; a query may have no answer."""
        ids = self.chat.prompt_ids(text_ids(self.tokenizer, question))
        if answer:
            ids += self.chat.response_ids(text_ids(self.tokenizer, answer))
        return ids[: self.max_tokens]

    def batches(self, rendered: Sequence[Ids]) -> Iterator[list[int]]:
        """Indices of batches of similar length, longest first, within the token budget."""
        batch: list[int] = []
        for at in sorted(range(len(rendered)), key=lambda i: (-len(rendered[i]), i)):
            if batch and (len(batch) + 1) * len(rendered[batch[0]]) > self.token_budget:
                yield batch
                batch = []
            batch.append(at)
        if batch:
            yield batch

    def vectors(self, batch: Sequence[Ids]) -> np.ndarray:
        """One vector of length 1 per rendering (n x width, float32); halves if memory runs out."""
        try:
            return self._vectors(batch)
        except torch.OutOfMemoryError:
            if len(batch) == 1:
                raise
            torch.cuda.empty_cache()
            half = len(batch) // 2
            return np.concatenate([self.vectors(batch[:half]), self.vectors(batch[half:])])

    @torch.inference_mode()
    def _vectors(self, batch: Sequence[Ids]) -> np.ndarray:
        """Padding is on the right, where a causal model never looks, and weighs nothing."""
        width = max(map(len, batch))
        rows = [[*ids, *[self.pad_id] * (width - len(ids))] for ids in batch]
        output: Any = self.decoder(
            input_ids=torch.tensor(rows, device=self.device), use_cache=False
        )
        lengths = torch.tensor([len(ids) for ids in batch], device=self.device)
        position = torch.arange(1, width + 1, device=self.device)
        weights = torch.where(position <= lengths[:, None], position, 0).float()
        hidden = output.last_hidden_state.float()
        summed = torch.einsum("bt,btd->bd", weights, hidden.masked_fill(weights[..., None] == 0, 0))
        normal = torch.nn.functional.normalize(summed, dim=1)
        result: np.ndarray = normal.cpu().numpy()
        return result
