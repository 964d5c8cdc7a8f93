"""Runs batches of renderings through a model and sums the negative log-likelihood of each span.

The decoder gives hidden states once (`qaq.models.forward`); the output head is applied only where a
span is scored, a chunk of positions at a time, so the logits of a whole batch never exist.
Log-softmax in float32, sums in float64. A row's numbers do not depend on its neighbours.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from qaq.models.forward.batching import Halving
from qaq.models.forward.forward import WAYS, Forward
from qaq.models.forward.passes import token_nll
from qaq.scoring.plan import Task

HEAD_ROWS = {"cpu": 256, "cuda": 1024}  # states under the head at once: its weight is read seldom
LOGITS = 1 << 27  # in memory at once, in the model's precision


class Engine:
    """A model ready to score."""

    def __init__(self, model: PreTrainedModel, take_over: bool = False, ways: Sequence[str] = WAYS):
        """Find the fastest way of running the model that changes no number.

        Args:
            model: in evaluation mode.
            take_over: nobody else runs this model; weights that are repacked are freed.

        Raises:
            ModelError: the model is not causal.
        """
        self.forward = Forward(model, take_over, ways, purpose="scoring")
        self.device = model.device
        kind = "cpu" if self.device.type == "cpu" else "cuda"
        words = int(model.config.get_text_config().vocab_size)
        self.head_rows = max(16, min(HEAD_ROWS[kind], LOGITS // words))
        self.halving = Halving()

    def batches(self, tasks: list[Task], token_budget: int) -> Iterator[list[Task]]:
        """Batches that suit this engine, of at most `token_budget` tokens if tasks allow."""
        for batch in self.forward.batches([task.ids for task in tasks], token_budget):
            yield [tasks[at] for at in batch]

    def score(self, batch: Sequence[Task]) -> list[dict[str, float]]:
        """Summed NLL (nats) of every span of every task.

        If memory runs out, this batch and later ones as large are split.
        """
        return self.halving(self._score, batch, lambda task: task.length)

    @torch.inference_mode()
    def _score(self, batch: Sequence[Task]) -> list[dict[str, float]]:
        wanted: list[list[int]] = []  # the tokens whose states predict a target
        targets: list[int] = []
        owner: list[int] = []
        names: list[tuple[int, str]] = []
        for row, task in enumerate(batch):
            wanted.append([])
            for span in task.rendering.spans:
                wanted[-1] += range(span.start - 1, span.end - 1)
                targets += task.rendering.ids[span.start : span.end]
                owner += [len(names)] * (span.end - span.start)
                names.append((row, span.name))
        states = self.forward([task.ids for task in batch], wanted)
        nll = self._nll(states, torch.tensor(targets, device=self.device, dtype=torch.long))
        totals = torch.zeros(len(names), dtype=torch.float64, device=self.device)
        index = torch.tensor(owner, device=self.device, dtype=torch.long)
        totals.index_add_(0, index, nll.double())
        sums: list[dict[str, float]] = [{} for _ in batch]
        for (row, name), total in zip(names, totals.tolist(), strict=True):
            sums[row][name] = total
        return sums

    def _nll(self, states: Tensor, targets: Tensor) -> Tensor:
        """Negative log-likelihood (float32) of each target, given the state before it."""
        rows = self.head_rows
        chunks = zip(torch.split(states, rows), torch.split(targets, rows), strict=True)
        return torch.cat([token_nll(self.forward.logits(s), wanted) for s, wanted in chunks])
