"""Causal attention inside a pack, in blocks of queries; on any device, made for processors.

Every segment sees its own tokens and its shared beginning. A segment's queries are cut into blocks,
so that keys behind a block are never multiplied, and blocks with similarly many keys are multiplied
together, since one large product is faster than many small ones.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from qaq.models.forward.packing import Ids, Pack
from qaq.models.forward.passes import gathered, masked_softmax

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
    at: Layout,
    scaling: float,
    window: int | None,
    softcap: float | None = None,
) -> Tensor:
    """softmax(q kᵀ · scaling) v inside each segment.

    Scores and softmax are in float32, the weighted sum in the precision of `v`. Heads that share
    keys are multiplied together.

    Args:
        q: [tokens, heads, width].
        k: [tokens, key heads, width].
        v: [tokens, key heads, value width].
        window: how many tokens a token sees, itself included; None for all.
        softcap: scores are softcap * tanh(scores / softcap); None for no cap.

    Returns:
        [tokens, heads, value width] in the precision of `v`.
    """
    tokens, heads, width = q.shape
    group, depth = heads // k.shape[1], v.shape[-1]
    v = v.reshape(-1, depth)
    nothing = torch.empty(1, device=q.device)
    out = []
    with _onednn(v.dtype == torch.bfloat16 and v.device.type == "cpu"):
        for block in at.blocks:
            count, kv, rows = block.queries.shape
            queries = gathered(q, block.queries.view(-1), group)
            keys = gathered(k, block.keys.view(-1), 1).view(count * kv, -1, width)
            values = v.index_select(0, block.keys.view(-1)).view(count * kv, -1, depth)
            queries = queries.view(count * kv, rows * group, width)
            scores = torch.baddbmm(nothing, queries, keys.mT, beta=0, alpha=scaling)
            if softcap is not None:
                scores.div_(softcap).tanh_().mul_(softcap)
            weights = masked_softmax(scores, block.last, window, group, v.dtype)
            out.append(torch.bmm(weights, values).view(-1, group * depth))
    return torch.cat(out).index_select(0, at.back).view(tokens, heads, depth)


@contextmanager
def _onednn(wanted: bool) -> Iterator[None]:
    """Leave float32 products to oneDNN, more than twice as fast as the default on some processors.

    Factors that come from bfloat16 are multiplied as such, which rounds nothing; sums and result
    are float32 everywhere.
    """
    matmul: Any = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    before = matmul.fp32_precision
    matmul.fp32_precision = "bf16" if wanted else before
    try:
        yield
    finally:
        matmul.fp32_precision = before
