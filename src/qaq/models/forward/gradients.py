"""Attention with a gradient where there is no kernel for many rows: row by row, in a pack.

On processors the built-in backward of attention is several times slower in bfloat16 than the one
written out here; everywhere else the built-in one is used.
"""

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

BLOCK = 256  # queries whose attention weights are held at a time


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lengths: Sequence[int],
    scaling: float,
    window: int | None = None,
    softcap: float | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """Causal attention inside each row of a pack.

    Args:
        q: [1, heads, tokens, width].
        k: [1, key heads, tokens, width].
        v: [1, key heads, tokens, value width].
        lengths: of the rows; they add up to `tokens`.
        window: how many tokens a token sees, itself included; None for all.
        softcap: bounds the scores; None for no cap.

    Returns:
        [1, tokens, heads, value width].
    """
    qs, ks, vs = (torch.split(x, list(lengths), 2) for x in (q, k, v))
    rows = zip(qs, ks, vs, strict=True)
    out = [_row(q, k, v, scaling, window, softcap, dropout) for q, k, v in rows]
    return torch.cat(out, 2).transpose(1, 2).contiguous()


def _row(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scaling: float,
    window: int | None,
    softcap: float | None,
    dropout: float,
) -> Tensor:
    """Causal attention of one row, with the fastest exact kernel that fits."""
    mask = _window_mask(q.shape[2], window, q.device)
    if softcap is not None:
        hidden = ~_causal(q.shape[2], q.device) if mask is None else ~mask
        return functional.dropout(capped(q, k, scaling, softcap, hidden), dropout) @ _repeat(v, q)
    slow_backward = q.device.type == "cpu" and q.dtype == torch.bfloat16
    if slow_backward and mask is None and dropout == 0 and q.shape[-1] == v.shape[-1]:
        return causal_attention(q, k, v, scaling)
    return functional.scaled_dot_product_attention(
        q,
        k,
        v,
        attn_mask=mask,
        dropout_p=dropout,
        is_causal=mask is None,
        scale=scaling,
        enable_gqa=q.shape[1] != k.shape[1],
    )


def capped(q: Tensor, k: Tensor, scaling: float, softcap: float, hidden: Tensor) -> Tensor:
    """Attention weights under a soft cap, in the precision of q; softmax in float32.

    Args:
        q: [..., heads, queries, width].
        k: [..., key heads, keys, width].
        softcap: scores are softcap * tanh(scores / softcap).
        hidden: which keys a query does not see, to be broadcast over the scores.
    """
    scores = q @ _repeat(k, q).mT * (scaling / softcap)
    scores = (scores.tanh() * softcap).masked_fill(hidden, float("-inf"))
    return scores.softmax(-1, dtype=torch.float32).to(q.dtype)


def _causal(length: int, device: torch.device) -> Tensor:
    return torch.ones(length, length, dtype=torch.bool, device=device).tril()


def _window_mask(length: int, window: int | None, device: torch.device) -> Tensor | None:
    """Which keys are seen with a sliding window, where the row is longer than the window."""
    if window is None or length <= window:
        return None
    return _causal(length, device).triu(1 - window)


class _CausalAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, scaling: float) -> Tensor:
        with torch.no_grad():
            out, _ = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
                q, _repeat(k, q), _repeat(v, q), 0.0, True, scale=scaling
            )
        ctx.save_for_backward(q, k, v)
        ctx.scaling = scaling
        return out  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v = ctx.saved_tensors
        heads, length, width = k.shape[1:]
        group = q.shape[1] // heads
        k, v = k[0], v[0]
        dq = torch.empty(heads, group, length, width, dtype=q.dtype)
        dk, dv = torch.zeros_like(k), torch.zeros_like(v)
        for start in range(0, length, BLOCK):
            end = min(start + BLOCK, length)

            def fold(x: Tensor, start: int = start, end: int = end) -> Tensor:
                """The heads that share keys, one below the other."""
                return x[0, :, start:end].reshape(heads, group * (end - start), width)

            queries, up = fold(q), fold(upstream)
            keys, values = k[:, :end] * ctx.scaling, v[:, :end]
            mask = _mask(start, end, group, q.dtype)
            weights = torch.softmax(torch.baddbmm(mask, queries, keys.transpose(1, 2)), -1)
            error = torch._softmax_backward_data(
                up @ values.transpose(1, 2), weights, -1, weights.dtype
            )
            dq[:, :, start:end] = (error @ keys).view(heads, group, end - start, width)
            dk[:, :end] += (error.transpose(1, 2) @ queries).mul_(ctx.scaling)
            dv[:, :end] += weights.transpose(1, 2) @ up
        return dq.view(1, heads * group, length, width), dk[None], dv[None], None


@functools.lru_cache(maxsize=64)
def _mask(start: int, end: int, group: int, dtype: torch.dtype) -> Tensor:
    """[1, group * queries, keys]: minus infinity where a query may not look."""
    mask = torch.full((end - start, end), float("-inf"), dtype=dtype).triu_(start + 1)
    return mask.repeat(group, 1)[None]


def _repeat(x: Tensor, q: Tensor) -> Tensor:
    """x with a head of keys for each head of queries."""
    return x if x.shape[1] == q.shape[1] else x.repeat_interleave(q.shape[1] // x.shape[1], 1)


def causal_attention(q: Tensor, k: Tensor, v: Tensor, scaling: float) -> Tensor:
    """`scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)`, for processors.

    Args:
        q: [1, heads, n, width].
        k: [1, key heads, n, width]; key heads divide heads.
        v: [1, key heads, n, width].

    Returns:
        [1, heads, n, width].
    """
    out: Tensor = _CausalAttention.apply(q, k, v, scaling)  # type: ignore[no-untyped-call]
    return out
