"""What has to be run: renderings merged where one is the start of another.

In a causal model the scores of a prefix do not depend on what follows it. So a rendering that is a
prefix of another one of the same row is scored inside it, and equal renderings once: `chat` needs
three passes for four spans, `plain` two.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import cached_property

from qaq.models.forward.packing import Ids
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


def only(renderings: Iterable[Rendering], spans: Collection[str]) -> list[Rendering]:
    """The renderings of these spans, which are all that is then scored in them."""
    kept = [
        Rendering(one.ids, tuple(s for s in one.spans if s.name in spans)) for one in renderings
    ]
    return [one for one in kept if one.spans]


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
