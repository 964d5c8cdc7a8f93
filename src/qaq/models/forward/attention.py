"""The one attention function behind every fast path, registered with Transformers by name.

A model whose attention is switched to it (`attending`) takes a keyword argument `segments` in its
own forward, hands it on through its layers, and each layer's attention ends here. `segments` says
which tokens see which: `Packed` those of sequences end to end, `qaq.models.forward.columns.Cached`
those of a key-value cache. Transformers makes no mask for it. What changes the scores in a way that
is not known here is refused, and the model then runs its own forward (`qaq.models.forward.verify`).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel

from qaq.host.errors import ModelError
from qaq.models.forward import blocks, gradients
from qaq.models.forward.packing import Pack

ATTENTION = "qaq"
VARLEN_CAPABILITY = (8, 0)  # of a CUDA device, for FlashAttention's kernel


@dataclass(frozen=True)
class Scores:
    """What a layer does with its scores q kᵀ before the softmax."""

    scaling: float
    window: int | None = None  # how many tokens a token sees, itself included
    softcap: float | None = None
    dropout: float = 0.0


class Segments(Protocol):
    """Which tokens see which."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, scores: Scores) -> Tensor:
        """Attention for q [1, heads, tokens, width]; returns [1, tokens, heads, value width]."""
        ...


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    segments: Segments | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    position_bias: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention as Transformers' models call it.

    Args:
        module: the attention layer that asks.
        query, key, value: [1, heads, tokens, width]; there may be fewer heads of keys.
        attention_mask: None; the segments say it all.
        segments: which tokens see which.
        sliding_window: how far back a token sees, where the layer limits it.
        softcap: bounds the scores.
        s_aux, position_bias: further changes of the scores, which are not known here.

    Returns:
        [1, tokens, heads, value width], and no weights.

    Raises:
        ModelError: the layer hands on no segments, has a mask of its own, sinks or a position bias.
    """
    if segments is None:
        raise ModelError(f"{type(module).__name__} hands on no keyword arguments")
    if attention_mask is not None or s_aux is not None or position_bias is not None:
        raise ModelError(f"{type(module).__name__} has a mask of its own, sinks or a position bias")
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    scores = Scores(scaling, sliding_window, softcap, dropout)
    return segments.attend(query, key, value, scores), None


AttentionInterface.register(ATTENTION, attention)


@contextmanager
def attending(model: PreTrainedModel) -> Iterator[None]:
    """The model with this attention in place of its own.

    Raises:
        ModelError: its attention cannot be replaced.
    """
    before = model.config._attn_implementation
    switch(model)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def switch(model: PreTrainedModel) -> None:
    """Put this attention in place of the model's own.

    Raises:
        ModelError: its attention cannot be replaced.
    """
    model.set_attn_implementation(ATTENTION)
    if model.config._attn_implementation != ATTENTION:
        raise ModelError(f"{type(model).__name__} does not let its attention be replaced")


class Packed:
    """The segments of a pack; what a kernel needs to know of them is made once for all layers.

    FlashAttention's kernel for segments of many lengths where the device has it, which is one call
    per layer and knows its gradient. Else blocks of queries (`blocks`), or row by row where a
    gradient is wanted (`gradients`), which a pack without shared beginnings allows.
    """

    def __init__(self, pack: Pack, device: torch.device):
        self.pack, self.device = pack, device
        self.layouts: dict[int, blocks.Layout] = {}
        self.ends: Lengths | None = None

    def attend(self, q: Tensor, k: Tensor, v: Tensor, scores: Scores) -> Tensor:
        """See `Segments`."""
        plain = scores.softcap is None and scores.dropout == 0 and q.shape[-1] == v.shape[-1]
        if plain and has_varlen(q.device, q.dtype, q.shape[-1]):
            if self.ends is None:
                self.ends = lengths(self.pack, self.device)
            return attend_varlen(_tokens(q), _tokens(k), _tokens(v), self.ends, scores)[None]
        if q.requires_grad or k.requires_grad or v.requires_grad:
            rows = [segment.length for segment in self.pack.segments]
            window, softcap = scores.window, scores.softcap
            return gradients.attend(q, k, v, rows, scores.scaling, window, softcap, scores.dropout)
        heads = k.shape[1]
        if heads not in self.layouts:
            self.layouts[heads] = blocks.layout(self.pack, self.device, heads)
        at, qkv = self.layouts[heads], (_tokens(q), _tokens(k), _tokens(v))
        return blocks.attend(*qkv, at, scores.scaling, scores.window, scores.softcap)[None]


def _tokens(x: Tensor) -> Tensor:
    """[1, heads, tokens, width] as [tokens, heads, width]: how it mostly is in memory."""
    return x[0].transpose(0, 1)


@dataclass(frozen=True)
class Lengths:
    """A pack's segments as `attend_varlen` wants them."""

    keys: Tensor | None  # those of all segments, one after the other; None where nothing is shared
    query_ends: Tensor  # int32, cumulative lengths of the segments, from 0
    key_ends: Tensor
    longest: tuple[int, int]  # in queries and in keys


def lengths(pack: Pack, device: torch.device) -> Lengths:
    """The segments by their lengths."""
    queries = [s.length for s in pack.segments]
    keys = [len(s.keys) for s in pack.segments]

    def ends(found: list[int]) -> Tensor:
        return torch.tensor((0, *found)).cumsum(0).to(device, torch.int32)

    index = None
    if keys != queries:
        index = torch.tensor([k for s in pack.segments for k in s.keys], device=device)
    return Lengths(index, ends(queries), ends(keys), (max(queries), max(keys)))


def attend_varlen(q: Tensor, k: Tensor, v: Tensor, at: Lengths, scores: Scores) -> Tensor:
    """As `blocks.attend`, by FlashAttention's kernel (CUDA, half precision), with its gradient.

    Its causal mask is aligned at the end of the keys, which is where a segment's own tokens are.
    """
    from torch.nn.attention.varlen import varlen_attn

    if at.keys is not None:
        k, v = k.index_select(0, at.keys), v.index_select(0, at.keys)
    out = varlen_attn(
        q.contiguous(),
        k.contiguous(),
        v.contiguous(),
        at.query_ends,
        at.key_ends,
        *at.longest,
        scale=scores.scaling,
        window_size=(-1 if scores.window is None else scores.window - 1, 0),
        enable_gqa=q.shape[1] != k.shape[1],
    )
    assert isinstance(out, Tensor)
    return out


@cache
def has_varlen(device: torch.device, dtype: torch.dtype, width: int) -> bool:
    """Whether this device, precision and width have FlashAttention's kernel and its gradient."""
    half = dtype in (torch.bfloat16, torch.float16)
    if device.type != "cuda" or not half:
        return False
    if torch.cuda.get_device_capability(device) < VARLEN_CAPABILITY:
        return False
    at = Lengths(None, *(torch.tensor((0, 2), device=device, dtype=torch.int32),) * 2, (2, 2))
    try:
        with torch.inference_mode(False), torch.enable_grad():
            x = torch.zeros(2, 1, width, dtype=dtype, device=device, requires_grad=True)
            torch.autograd.grad(attend_varlen(x, x, x, at, Scores(1.0)).sum(), x)
    # built without it, heads that it does not know, or a kernel without shared keys
    except (RuntimeError, ImportError, TypeError):
        return False
    return True
