"""Causal attention of sequences to their own columns of a key-value cache.

A pass holds the next tokens of many sequences end to end, be it a whole prompt, one token, or a
token and guesses of what follows. Column n of a sequence's slot in the cache holds the token at
position n. Attention is computed run by run, a run being neighbouring slots with equally many new
tokens; the heads that share keys are queries of one product, which is several times faster on
processors than the built-in grouping.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby

import torch
from torch import Tensor
from torch.nn import functional

from qaq.models.forward.attention import Scores
from qaq.models.forward.gradients import capped

RUN = 16  # sequences of a run on processors: short ones need not look as far as the longest
RUN_TOKENS = 1024  # of a run with several new tokens a sequence; bounds its mask


@dataclass(frozen=True)
class Chunk:
    """Tokens of one sequence, from position `start` on; the successors of the last are wanted."""

    slot: int
    start: int
    tokens: Sequence[int]
    wanted: int = 1


@dataclass
class Run:
    """Neighbouring slots with `count` new tokens each; `first` is where these stand in the pass."""

    slots: slice
    first: int
    count: int
    starts: tuple[int, ...]
    masks: dict[tuple[int | None, int], Tensor | None] = field(default_factory=dict)

    @property
    def tokens(self) -> slice:
        """Where their tokens lie in the pass."""
        return slice(self.first, self.first + self.count * len(self.starts))

    def columns(self, window: int | None) -> slice:
        """The columns that any of their tokens looks at."""
        first = 0 if window is None else max(0, min(self.starts) - window + 1)
        return slice(first, max(self.starts) + self.count)

    def mask(self, window: int | None, group: int, like: Tensor) -> Tensor | None:
        """What each token must not look at, [sequences, 1, 1 or group * count, columns].

        Null where there is nothing of the kind.
        """
        key = (window, group)
        if key not in self.masks:
            self.masks[key] = self._mask(window, group, like)
        return self.masks[key]

    def _mask(self, window: int | None, group: int, like: Tensor) -> Tensor | None:
        if self.count == 1 and len(set(self.starts)) == 1:
            return None
        seen = self.columns(window)
        columns = torch.arange(seen.start, seen.stop, device=like.device)
        starts = torch.tensor(self.starts, device=like.device)
        positions = starts[:, None, None] + torch.arange(self.count, device=like.device)[:, None]
        hidden = columns > positions
        if window is not None:
            hidden = hidden | (columns <= positions - window)
        mask = torch.zeros(hidden.shape, dtype=like.dtype, device=like.device)
        mask.masked_fill_(hidden, float("-inf"))
        return mask[:, None] if self.count == 1 else mask.repeat(1, group, 1)[:, None]


class Cached:
    """The runs of one pass; see `qaq.models.forward.attention.Segments`."""

    def __init__(self, chunks: Sequence[Chunk], device: torch.device):
        self.runs = runs_of(chunks, RUN if device.type == "cpu" else len(chunks))

    def attend(self, q: Tensor, k: Tensor, v: Tensor, scores: Scores) -> Tensor:
        """Attention of q [1, heads, tokens, width] to the blocks of a cache.

        Keys and values are [slots, key heads, columns, width]; returns [1, tokens, heads, width].
        """
        heads, tokens, width = q.shape[1:]
        shared = k.shape[1]
        group = heads // shared
        out = q.new_empty(tokens, heads, v.shape[3])
        for run in self.runs:
            rows, count, seen = len(run.starts), run.count, run.columns(scores.window)
            asked = q[0, :, run.tokens].view(shared, group, rows, count, width)
            asked = asked.permute(2, 0, 1, 3, 4).reshape(rows, shared, group * count, width)
            keys, values = k[run.slots, :, seen], v[run.slots, :, seen]
            mask = run.mask(scores.window, group, q)
            found = _attend(asked, keys, values, mask, scores)
            found = found.view(rows, shared, group, count, -1).permute(0, 3, 1, 2, 4)
            out[run.tokens] = found.reshape(rows * count, heads, -1)
        return out[None]


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scores: Scores) -> Tensor:
    if scores.softcap is None:
        return functional.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, scale=scores.scaling
        )
    hidden = torch.zeros(1, dtype=torch.bool, device=q.device) if mask is None else mask < 0
    return capped(q, k, scores.scaling, scores.softcap, hidden) @ v


def runs_of(chunks: Sequence[Chunk], longest: int) -> list[Run]:
    """Cut a pass into runs of at most `longest` sequences; slots must rise."""
    found = []
    place = 0
    # slot - index is the same along consecutive slots
    for (_, count), pairs in groupby(
        enumerate(chunks), key=lambda pair: (pair[1].slot - pair[0], len(pair[1].tokens))
    ):
        run = [chunk for _, chunk in pairs]
        size = longest if count == 1 else max(1, min(longest, RUN_TOKENS // count))
        for at in range(0, len(run), size):
            part = run[at : at + size]
            slots = slice(part[0].slot, part[-1].slot + 1)
            found.append(Run(slots, place, count, tuple(chunk.start for chunk in part)))
            place += count * len(part)
    return found
