"""What has to be run: renderings merged where one is the start of another, cut into batches.

In a causal model the scores of a prefix do not depend on what follows it. So a rendering that is a
prefix of another one of the same row is scored inside it, and equal renderings once: `chat` needs
three passes for four spans, `plain` two.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

from qaq.models.forward.packing import Ids, common_prefix
from qaq.scoring.framing import Rendering


@dataclass(frozen=True)
class Task:
    """One sequence to run for one row."""

    row: int
    rendering: Rendering

    @cached_property
    def ids(self) -> Ids:
        """The tokens that are run: the last one that is scored is predicted, and predicts none."""
        last = max(span.end for span in self.rendering.spans)
        return self.rendering.ids[: max(1, last - 1)]

    @property
    def length(self) -> int:
        """How many tokens are run."""
        return len(self.ids)


def merge(renderings: Iterable[Rendering]) -> list[Rendering]:
    """The fewest sequences that hold all spans, longest first."""
    merged: list[Rendering] = []
    for rendering in sorted(renderings, key=lambda r: -len(r.ids)):
        for at, host in enumerate(merged):
            if host.ids[: len(rendering.ids)] == rendering.ids:
                merged[at] = Rendering(host.ids, host.spans + rendering.spans)
                break
        else:
            merged.append(rendering)
    return merged


def batches(tasks: list[Task], token_budget: int) -> Iterator[list[Task]]:
    """Batches of similar length, longest first, of at most `token_budget` tokens with padding.

    Longest first: what does not fit in memory fails at once, not after hours. A single sequence
    longer than the budget makes a batch of its own.
    """
    batch: list[Task] = []
    width = 0
    for task in sorted(tasks, key=lambda t: (-t.length, t.row)):
        width = width or task.length
        if batch and (len(batch) + 1) * width > token_budget:
            yield batch
            batch, width = [], task.length
        batch.append(task)
    if batch:
        yield batch


def packed_batches(tasks: list[Task], token_budget: int) -> Iterator[list[Task]]:
    """Batches without padding, of at most `token_budget` tokens with shared beginnings once.

    In lexicographic order, so that sequences that begin alike meet in a batch; the largest batch
    first: what does not fit in memory fails at once, not after hours. A single sequence longer
    than the budget makes a batch of its own.
    """
    found: list[tuple[int, list[Task]]] = []
    batch: list[Task] = []
    size = 0
    for task in sorted(tasks, key=lambda t: (t.ids, t.row)):
        shared = common_prefix(batch[-1].ids, task.ids) if batch else 0
        if batch and size + task.length - shared > token_budget:
            found.append((size, batch))
            batch, size, shared = [], 0, 0
        batch.append(task)
        size += task.length - shared
    if batch:
        found.append((size, batch))
    found.sort(key=lambda sized: -sized[0])
    yield from (batch for _, batch in found)
