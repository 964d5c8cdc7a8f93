"""Which sequences run together: as many as a budget of tokens allows, the largest batch first.

The largest first: what does not fit in memory fails at once, not after hours. A single sequence
longer than the budget makes a batch of its own.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch

from qaq.models.forward.packing import Ids, common_prefix

Item = TypeVar("Item")
Result = TypeVar("Result")


def padded_batches(sequences: Sequence[Ids], budget: int) -> Iterator[list[int]]:
    """Sequences of similar length, longest first, at most `budget` tokens with padding."""
    batch: list[int] = []
    width = 0
    for at in sorted(range(len(sequences)), key=lambda i: (-len(sequences[i]), i)):
        width = width or len(sequences[at])
        if batch and (len(batch) + 1) * width > budget:
            yield batch
            batch, width = [], len(sequences[at])
        batch.append(at)
    if batch:
        yield batch


def packed_batches(sequences: Sequence[Ids], budget: int) -> Iterator[list[int]]:
    """Sequences without padding, at most `budget` tokens with shared beginnings once.

    In lexicographic order, so that sequences that begin alike meet in a batch.
    """
    found: list[tuple[int, list[int]]] = []
    batch: list[int] = []
    size = 0
    for at in sorted(range(len(sequences)), key=lambda i: (sequences[i], i)):
        shared = common_prefix(sequences[batch[-1]], sequences[at]) if batch else 0
        if batch and size + len(sequences[at]) - shared > budget:
            found.append((size, batch))
            batch, size, shared = [], 0, 0
        batch.append(at)
        size += len(sequences[at]) - shared
    if batch:
        found.append((size, batch))
    found.sort(key=lambda sized: -sized[0])
    yield from (batch for _, batch in found)


class Halving:
    """Runs batches; one that memory is too small for is split, and later ones as large with it."""

    def __init__(self) -> None:
        self.most = sys.maxsize  # tokens of a batch, by what memory was too small for

    def __call__(
        self,
        run: Callable[[Sequence[Item]], list[Result]],
        batch: Sequence[Item],
        size: Callable[[Item], int],
    ) -> list[Result]:
        """The results of `run` for every item of the batch, in their order."""
        tokens = sum(map(size, batch))
        if len(batch) == 1 or tokens <= self.most:
            try:
                return run(batch)
            except torch.OutOfMemoryError:
                if len(batch) == 1:
                    raise
                self.most = tokens // 2
        # here and not above: an error that is being handled keeps the tensors of its frames
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        half = len(batch) // 2
        return self(run, batch[:half], size) + self(run, batch[half:], size)
