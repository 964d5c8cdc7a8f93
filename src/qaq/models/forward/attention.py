"""Causal attention inside a pack: every segment sees its own tokens and its shared beginning."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from qaq.models.forward.packing import Ids, Pack
from qaq.models.forward.passes import Rotation, attention_weights, rotated, rotated_groups

BLOCK = 64  # queries at a time: keys behind a block are never multiplied
WEIGHTS = 1 << 19  # attention weights of a head in memory at once, unless one block has more
SIMILAR = 0.8  # blocks are multiplied together if the fewest keys are this share of the most

Block = tuple[Ids, Ids]  # its queries and its keys, as tokens of the pack


@dataclass(frozen=True)
class Blocks:
    """Blocks of queries with similarly many keys, padded to the same shape.

    Padding repeats the last token. Indices count key heads: token * key heads + head.
    """

    queries: Tensor  # [blocks, key heads, queries]
    keys: Tensor  # [blocks, key heads, keys]
    last: Tensor  # [blocks, queries] the last key that a query sees


@dataclass(frozen=True)
class Layout:
    """A pack's segments as `attend` wants them, on the device of the model."""

    blocks: tuple[Blocks, ...]
    back: Tensor  # [tokens * key heads] where a result stands in those of all blocks


def layout(pack: Pack, device: torch.device, key_heads: int) -> Layout:
    """The segments in blocks of queries that are multiplied together."""
    groups = _groups(_cut(pack))
    blocks = tuple(_blocks(group, device, key_heads) for group in groups)
    order = torch.cat([b.queries.flatten() for b in blocks])
    back = order.new_empty(len(pack.ids) * key_heads)
    back[order] = torch.arange(len(order), device=device)  # of repeated ones any: they are equal
    return Layout(blocks, back)


def _cut(pack: Pack) -> list[Block]:
    """Segments in blocks of nearly the same size, the one with the most keys first."""
    blocks = []
    for segment in pack.segments:
        parts = -(-segment.length // BLOCK)
        edges = [segment.shared + segment.length * i // parts for i in range(parts + 1)]
        blocks += [(segment.keys[a:b], segment.keys[:b]) for a, b in pairwise(edges)]
    return sorted(blocks, key=lambda block: -len(block[1]))


def _groups(blocks: list[Block]) -> list[list[Block]]:
    """Neighbours that are multiplied together."""
    groups: list[list[Block]] = []
    for block in blocks:
        most = len(groups[-1][0][1]) if groups else 0
        if len(block[1]) >= SIMILAR * most > 0 and (len(groups[-1]) + 1) * BLOCK * most <= WEIGHTS:
            groups[-1].append(block)
        else:
            groups.append([block])
    return groups


def _blocks(group: list[Block], device: torch.device, key_heads: int) -> Blocks:
    head = torch.arange(key_heads)[:, None]
    queries = _padded([q for q, _ in group])
    keys = _padded([k for _, k in group])
    ends = torch.tensor([len(k) - 1 for _, k in group])[:, None]
    first = torch.tensor([len(k) - len(q) for q, k in group])[:, None]
    last = torch.minimum(first + torch.arange(queries.shape[1]), ends)
    return Blocks(
        (queries[:, None] * key_heads + head).to(device),
        (keys[:, None] * key_heads + head).to(device),
        last.to(device),
    )


def _padded(rows: Sequence[Ids]) -> Tensor:
    """[rows, longest], each row repeating its last token."""
    longest = max(map(len, rows))
    return torch.tensor([row + row[-1:] * (longest - len(row)) for row in rows])


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    rotation: Rotation,
    at: Layout,
    scaling: float,
    window: int | None,
) -> Tensor:
    """softmax(R(q) R(k)ᵀ · scaling) v inside each segment, R the rotary embedding; on any device.

    Scores and softmax are in float32, the weighted sum in the precision of `v`. Heads that share
    keys are multiplied together.

    Args:
        q: [tokens, heads, width].
        k: [tokens, key heads, width].
        v: [tokens, key heads, width].
        rotation: float32.
        at: the segments.
        scaling: of the scores.
        window: how many tokens a token sees, itself included; None for all.

    Returns:
        [tokens, heads * width] in the precision of `v`.
    """
    tokens, heads, width = q.shape
    group = heads // k.shape[1]
    v = v.reshape(-1, width)
    nothing = rotation[0].new_empty(1)
    out = []
    with _onednn(v.dtype == torch.bfloat16 and v.device.type == "cpu"):
        for block in at.blocks:
            count, kv, rows = block.queries.shape
            queries = rotated_groups(q, rotation, block.queries.view(-1), group)
            keys = rotated_groups(k, rotation, block.keys.view(-1), 1).view(count * kv, -1, width)
            values = v.index_select(0, block.keys.view(-1)).view(count * kv, -1, width)
            queries = queries.view(count * kv, rows * group, width)
            scores = torch.baddbmm(nothing, queries, keys.mT, beta=0, alpha=scaling)
            weights = attention_weights(scores, block.last, window, group, v.dtype)
            out.append(torch.bmm(weights, values).view(-1, group * width))
    return torch.cat(out).index_select(0, at.back).view(tokens, -1)


@contextmanager
def _onednn(wanted: bool) -> Iterator[None]:
    """Leave float32 products to oneDNN, more than twice as fast as the default on some processors.

    Where a processor multiplies bfloat16 faster still, it rounds the factors to that, as a model
    in bfloat16 does itself; sums and result are float32 everywhere.
    """
    matmul: Any = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    before = matmul.fp32_precision
    matmul.fp32_precision = "bf16" if wanted else before
    try:
        yield
    finally:
        matmul.fp32_precision = before


@dataclass(frozen=True)
class Lengths:
    """A pack's segments as `attend_varlen` wants them."""

    key_index: Tensor  # the keys of all segments, one after the other
    query_ends: Tensor  # int32, cumulative lengths of the segments, from 0
    key_ends: Tensor
    longest: tuple[int, int]  # in queries and in keys


def lengths(pack: Pack, device: torch.device) -> Lengths:
    """The segments by their lengths."""
    queries = [s.length for s in pack.segments]
    keys = [len(s.keys) for s in pack.segments]

    def ends(found: list[int]) -> Tensor:
        return torch.tensor((0, *found)).cumsum(0).to(device, torch.int32)

    index = torch.tensor([k for s in pack.segments for k in s.keys], device=device)
    return Lengths(index, ends(queries), ends(keys), (max(queries), max(keys)))


def attend_varlen(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    rotation: Rotation,
    at: Lengths,
    scaling: float,
    window: int | None,
) -> Tensor:
    """As `attend`, by FlashAttention's kernel for segments of many lengths (CUDA, half precision).

    Its causal mask is aligned at the end of the keys, which is where a segment's own tokens are.
    """
    from torch.nn.attention.varlen import varlen_attn

    out = varlen_attn(
        rotated(q, rotation),
        rotated(k, rotation).index_select(0, at.key_index),
        v.index_select(0, at.key_index),
        at.query_ends,
        at.key_ends,
        *at.longest,
        scale=scaling,
        window_size=(-1 if window is None else window - 1, 0),
        enable_gqa=q.shape[1] != k.shape[1],
    )
    assert isinstance(out, Tensor)
    return out.flatten(1)
