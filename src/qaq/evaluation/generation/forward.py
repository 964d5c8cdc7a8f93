"""One forward pass over the next tokens of many sequences, laid end to end without padding.

A pass is a list of feeds: some tokens of one sequence each, be it a whole prompt, one token, or a
token and guesses of what follows. Every Linear layer sees real tokens only, and the output head
only those whose successor is wanted. Attention is computed run by run, a run being neighbouring
sequences that feed equally many tokens; the heads that share keys are queries of one product,
which is several times faster on processors than the built-in grouping.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface, PreTrainedModel

from qaq.evaluation.generation.cache import BlockCache
from qaq.host.errors import ModelError

ATTENTION = "qaq_decoding"
RUN = 16  # sequences of a run on processors: short ones need not look as far as the longest
RUN_TOKENS = 1024  # of a run that feeds several tokens a sequence; bounds its mask


@dataclass(frozen=True)
class Feed:
    """Tokens of one sequence, from position `start` on; the successors of the last are wanted."""

    slot: int
    start: int
    tokens: Sequence[int]
    wanted: int = 1


@dataclass
class Run:
    """Neighbouring sequences that feed `count` tokens each; `first` is their place in the pass."""

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


def runs_of(feeds: Sequence[Feed], longest: int) -> list[Run]:
    """Cut a pass into runs of at most `longest` sequences; slots must rise."""
    found = []
    place = 0
    # slot - index is the same along consecutive slots
    for (_, count), pairs in groupby(
        enumerate(feeds), key=lambda pair: (pair[1].slot - pair[0], len(pair[1].tokens))
    ):
        run = [feed for _, feed in pairs]
        size = longest if count == 1 else max(1, min(longest, RUN_TOKENS // count))
        for at in range(0, len(run), size):
            part = run[at : at + size]
            slots = slice(part[0].slot, part[-1].slot + 1)
            found.append(Run(slots, place, count, tuple(feed.start for feed in part)))
            place += count * len(part)
    return found


@torch.inference_mode()
def forward(model: PreTrainedModel, cache: BlockCache, feeds: Sequence[Feed]) -> Tensor:
    """Feed tokens to their sequences; returns logits [all wanted, vocabulary], in order.

    The model must be `attending` with this module's function.
    """
    device = model.device
    ids: list[int] = []
    positions: list[int] = []
    slots: list[int] = []
    wanted: list[int] = []
    for feed in feeds:
        ids += feed.tokens
        positions += range(feed.start, feed.start + len(feed.tokens))
        slots += [feed.slot] * len(feed.tokens)
        wanted += range(len(ids) - feed.wanted, len(ids))
    cache.place.slots = torch.tensor(slots, device=device)
    cache.place.columns = torch.tensor(positions, device=device)
    longest = RUN if device.type == "cpu" else len(feeds)
    output = model(
        input_ids=torch.tensor(ids, device=device)[None],
        position_ids=cache.place.columns[None],
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=torch.tensor(wanted, device=device),
        runs=runs_of(feeds, longest),
    )
    logits: Tensor = output.logits[0]
    return logits


@contextmanager
def attending(model: PreTrainedModel) -> Iterator[None]:
    """The model with this module's attention in place of its own.

    Raises:
        ModelError: its attention cannot be replaced.
    """
    before = model.config._attn_implementation
    model.set_attn_implementation(ATTENTION)
    try:
        if model.config._attn_implementation != ATTENTION:
            raise ModelError(
                f"{type(model).__name__} does not let its attention be replaced, which batched "
                "decoding needs; use eval.generator=vllm"
            )
        yield
    finally:
        model.set_attn_implementation(before)


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    runs: Sequence[Run],
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Causal attention of each sequence to its own columns of the cache.

    Args:
        module: the attention layer that asks.
        query: [1, heads, tokens, width], the tokens of a pass.
        key, value: the cache's blocks, [slots, key heads, columns, width].
        attention_mask: null; the runs say it all.
        runs: the sequences of the pass.
        scaling: of the scores.
        dropout: 0.
        sliding_window: how far back a token sees, where the layer limits it.
        softcap, s_aux: further changes of the scores, which are not known here.

    Returns:
        [1, tokens, heads, width], and no weights.

    Raises:
        ModelError: the layer caps its scores or has sinks.
    """
    if softcap is not None or s_aux is not None:
        raise ModelError(
            f"{type(module).__name__} caps its scores or has sinks, which batched decoding does "
            "not know; use eval.generator=vllm"
        )
    heads, tokens, width = query.shape[1:]
    shared = key.shape[1]
    group = heads // shared
    out = query.new_empty(tokens, heads, value.shape[3])
    for run in runs:
        rows, count, seen = len(run.starts), run.count, run.columns(sliding_window)
        asked = query[0, :, run.tokens].view(shared, group, rows, count, width)
        found = functional.scaled_dot_product_attention(
            asked.permute(2, 0, 1, 3, 4).reshape(rows, shared, group * count, width),
            key[run.slots, :, seen],
            value[run.slots, :, seen],
            attn_mask=run.mask(sliding_window, group, query),
            scale=scaling,
        )
        found = found.view(rows, shared, group, count, -1).permute(0, 3, 1, 2, 4)
        out[run.tokens] = found.reshape(rows * count, heads, -1)
    return out[None], None


AttentionInterface.register(ATTENTION, attention)
