"""Causal attention inside a pack: every segment sees its own tokens and its shared beginning."""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import softmax

from qaq.models.packing import Pack

BLOCK = 128  # queries at a time: keys behind a block are never multiplied
WEIGHTS = 1 << 22  # attention weights in memory at once (16 MiB), unless one query has more


@dataclass(frozen=True)
class Layout:
    """A pack's segments as the kernels want them, on the device of the model.

    Lengths are per segment; `key_index` lists the keys of all segments, one after the other.
    """

    queries: tuple[int, ...]
    keys: tuple[int, ...]
    key_index: Tensor
    query_ends: Tensor  # int32, cumulative, from 0
    key_ends: Tensor


def layout(pack: Pack, device: torch.device) -> Layout:
    """The attention layout of a pack."""
    queries = tuple(s.length for s in pack.segments)
    keys = tuple(len(s.keys) for s in pack.segments)

    def ends(lengths: tuple[int, ...]) -> Tensor:
        return torch.tensor((0, *lengths)).cumsum(0).to(device, torch.int32)

    index = torch.tensor([k for s in pack.segments for k in s.keys], device=device)
    return Layout(queries, keys, index, ends(queries), ends(keys))


def attend(
    q: Tensor, k: Tensor, v: Tensor, at: Layout, scaling: float, window: int | None
) -> Tensor:
    """softmax(q kᵀ · scaling) v inside each segment, on any device.

    Scores and softmax are in the precision of `q` and `k` (float32 is wise), the weighted sum in
    that of `v`. Heads that share keys are multiplied together.

    Args:
        q: [tokens, heads, width].
        k: [tokens, key heads, width].
        v: [tokens, key heads, width].
        at: the segments.
        scaling: of the scores.
        window: how many tokens a token sees, itself included; None for all.

    Returns:
        [tokens, heads * width] in the precision of `v`.
    """
    tokens, heads, width = q.shape
    kv = k.shape[1]
    group = heads // kv
    q = q.view(tokens, kv, group, width).transpose(0, 1).contiguous()
    k = k.index_select(0, at.key_index).transpose(0, 1)
    v = v.index_select(0, at.key_index).transpose(0, 1)
    nothing = q.new_empty(1)
    out = []
    start = first_key = 0
    for length, seen in zip(at.queries, at.keys, strict=True):
        step = max(1, min(BLOCK, WEIGHTS // (heads * seen)))
        for begin in range(0, length, step):
            rows = min(step, length - begin)
            end = seen - length + begin + rows
            queries = q[:, start + begin : start + begin + rows].reshape(kv, rows * group, width)
            keys = k[:, first_key : first_key + end]
            scores = torch.baddbmm(nothing, queries, keys.transpose(1, 2), beta=0, alpha=scaling)
            scores[:, :, end - rows :] += _future(rows, group, scores.dtype, scores.device)
            if window is not None and end > window:
                scores += _past(rows, end, group, window, scores.dtype, scores.device)
            weights = softmax(scores, -1).to(v.dtype)
            out.append(torch.bmm(weights, v[:, first_key : first_key + end]))
        start, first_key = start + length, first_key + seen
    return torch.cat(out, 1).view(kv, tokens, group, width).transpose(0, 1).reshape(tokens, -1)


def attend_varlen(
    q: Tensor, k: Tensor, v: Tensor, at: Layout, scaling: float, window: int | None
) -> Tensor:
    """As `attend`, by FlashAttention's kernel for segments of many lengths (CUDA, half precision).

    Its causal mask is aligned at the end of the keys, which is where a segment's own tokens are.
    """
    from torch.nn.attention.varlen import varlen_attn

    out = varlen_attn(
        q,
        k.index_select(0, at.key_index),
        v.index_select(0, at.key_index),
        at.query_ends,
        at.key_ends,
        max(at.queries),
        max(at.keys),
        scale=scaling,
        window_size=(-1 if window is None else window - 1, 0),
        enable_gqa=q.shape[1] != k.shape[1],
    )
    assert isinstance(out, Tensor)
    return out.flatten(1)


@lru_cache(maxsize=BLOCK)
def _future(rows: int, group: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """[rows * group, rows]: minus infinity where a query would see a token after itself."""
    mask = torch.full((rows, rows), float("-inf"), dtype=dtype, device=device).triu_(1)
    return mask.repeat_interleave(group, 0)


@lru_cache(maxsize=64)
def _past(
    rows: int, seen: int, group: int, window: int, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """[rows * group, seen]: minus infinity where a key is too far back for the window."""
    mask = torch.full((rows, seen), float("-inf"), dtype=dtype, device=device)
    return mask.tril_(seen - rows - window).repeat_interleave(group, 0)
