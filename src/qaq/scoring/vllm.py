"""Scores by a model that vLLM serves, behind the interface of `qaq.scoring.engine.Engine`."""

import math
from collections.abc import Iterator, Sequence

from qaq.models.vllm import PER_SERVER, Served
from qaq.scoring.plan import Task

PORTION = 8 * PER_SERVER  # sequences that are waited for together, for each server


class VllmEngine:
    """The log-probabilities that vLLM gives a prompt's tokens, summed in float64."""

    def __init__(self, served: Served):
        self.served = served

    def batches(self, tasks: list[Task], token_budget: int) -> Iterator[list[Task]]:
        """Portions of the tasks; the server itself makes its batches, of its own size."""
        size = PORTION * len(self.served.replicas)
        for start in range(0, len(tasks), size):
            yield tasks[start : start + size]

    def score(self, batch: Sequence[Task]) -> list[dict[str, float]]:
        """Summed NLL (nats) of every span of every task."""
        texts = [t.rendering.ids[: max(s.end for s in t.rendering.spans)] for t in batch]
        found = self.served.logprobs(texts)
        return [
            {s.name: -math.fsum(logprobs[s.start : s.end]) for s in task.rendering.spans}
            for task, logprobs in zip(batch, found, strict=True)
        ]
