"""Runs batches of renderings through a model and sums the negative log-likelihood of each span.

The decoder gives hidden states once; the output head is applied only where a span is scored, a
chunk of positions at a time, so the logits of a whole batch never exist. Log-softmax in float32,
sums in float64. Sequences are padded on the right: a causal model never looks there, so no mask is
needed and a row's numbers do not depend on its neighbours.
"""

from typing import Any

import torch
from transformers import PreTrainedModel

from qaq.errors import ModelError
from qaq.scoring.plan import Task

CHUNK_ELEMENTS = 1 << 25  # logits in memory at once: 128 MiB in float32
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.25, torch.float16: 0.05}


class Engine:
    """A model ready to score."""

    def __init__(self, model: PreTrainedModel, pad_id: int):
        """Check that head(decoder(x)) is what the model itself computes.

        Raises:
            ModelError: it is not (the architecture does something between the two).
        """
        self.decoder, self.head = model.get_decoder(), model.get_output_embeddings()
        self.device, self.pad_id = model.device, pad_id
        config = model.config.get_text_config()
        self.softcap: float | None = getattr(config, "final_logit_softcapping", None)
        self.chunk = max(16, CHUNK_ELEMENTS // int(config.vocab_size))
        self._check(model)

    def score(self, batch: list[Task]) -> list[dict[str, float]]:
        """Summed NLL (nats) of every span of every task; splits the batch if memory runs out."""
        try:
            return self._score(batch)
        except torch.OutOfMemoryError:
            if len(batch) == 1:
                raise
            torch.cuda.empty_cache()
            half = len(batch) // 2
            return self.score(batch[:half]) + self.score(batch[half:])

    @torch.inference_mode()
    def _score(self, batch: list[Task]) -> list[dict[str, float]]:
        hidden = self._hidden(self._padded(batch))
        rows: list[int] = []
        columns: list[int] = []
        targets: list[int] = []
        owner: list[int] = []
        names: list[tuple[int, str]] = []
        for row, task in enumerate(batch):
            for span in task.rendering.spans:
                count = span.end - span.start
                rows += [row] * count
                columns += range(span.start - 1, span.end - 1)
                targets += task.rendering.ids[span.start : span.end]
                owner += [len(names)] * count
                names.append((row, span.name))
        picked = hidden[
            torch.tensor(rows, device=self.device), torch.tensor(columns, device=self.device)
        ]
        nll = self._nll(picked, torch.tensor(targets, device=self.device))
        totals = torch.zeros(len(names), dtype=torch.float64, device=self.device)
        totals.index_add_(0, torch.tensor(owner, device=self.device), nll.double())
        sums: list[dict[str, float]] = [{} for _ in batch]
        for (row, name), total in zip(names, totals.tolist(), strict=True):
            sums[row][name] = total
        return sums

    def _padded(self, batch: list[Task]) -> torch.Tensor:
        width = max(task.length for task in batch)
        rows = [[*t.rendering.ids, *[self.pad_id] * (width - t.length)] for t in batch]
        return torch.tensor(rows, device=self.device)

    def _hidden(self, ids: torch.Tensor) -> torch.Tensor:
        output: Any = self.decoder(input_ids=ids, use_cache=False)
        hidden: torch.Tensor = output.last_hidden_state
        return hidden

    def _nll(self, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Negative log-likelihood (float32) of each target, given the state before it."""
        parts = []
        for states, wanted in zip(
            torch.split(hidden, self.chunk), torch.split(targets, self.chunk), strict=True
        ):
            logits = self._logits(states)
            chosen = logits.gather(1, wanted[:, None])[:, 0]
            parts.append(torch.logsumexp(logits, 1) - chosen)
        return torch.cat(parts)

    def _logits(self, states: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(states).float()
        if self.softcap:
            logits = torch.tanh(logits / self.softcap) * self.softcap
        return logits

    @torch.inference_mode()
    def _check(self, model: PreTrainedModel) -> None:
        ids = torch.arange(1, 9, device=self.device)[None] % int(
            model.config.get_text_config().vocab_size
        )
        ours = self._logits(self._hidden(ids)[0])
        theirs = model(input_ids=ids, use_cache=False).logits[0].float()
        gap = float((ours - theirs).abs().max())
        if not gap <= TOLERANCE.get(model.dtype, 1e-3) * max(1.0, float(theirs.std())):
            raise ModelError(
                f"{type(model).__name__} changes the output head's result (largest difference "
                f"{gap:.3g}); this engine cannot score it exactly. Please report the architecture"
            )
