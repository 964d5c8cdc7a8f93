"""LoRA beside the frozen weights, unmerged (merging changes numbers), without PEFT's detours.

PEFT's forward of a LoRA layer costs as much as the layer itself when a batch holds one token per
row: checks, casts to float32 and back, a dropout that does nothing, a dozen small operations. Plain
LoRA layers get three products instead, in the model's precision: for inference prepared once
(`qaq.models.forward.swaps`), for training with a gradient that is written out here.
"""

from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


def is_plain(layer: nn.Module) -> bool:
    """Whether the layer is a Linear with one LoRA adapter and nothing else; others stay as is."""
    if not hasattr(layer, "base_layer"):
        return False
    from peft.tuners.lora import Linear

    return (
        isinstance(layer, Linear)
        and type(layer.base_layer) is nn.Linear
        and len(layer.active_adapters) == 1
        and not layer.lora_variant
        and not any(layer.lora_bias.values())
    )


@torch.no_grad()
def factors(layer: Any) -> tuple[Tensor, Tensor]:
    """A [in, rank] and scaled B [rank, out] of a plain layer, in the model's precision."""
    (name,) = layer.active_adapters
    dtype = layer.base_layer.weight.dtype
    down, up = layer.lora_A[name].weight, layer.lora_B[name].weight * layer.scaling[name]
    return down.detach().to(dtype).T, up.detach().to(dtype).T


class _LoraLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        a: Tensor,
        b: Tensor,
        scaling: float,
    ) -> Tensor:
        down, up = a.to(x.dtype), (b * scaling).to(x.dtype)
        flat = x.reshape(-1, x.shape[-1])
        inner = flat @ down.T
        y = functional.linear(flat, weight, bias).addmm_(inner, up.T)
        ctx.save_for_backward(flat, inner, weight, down, up)
        ctx.scaling = scaling
        return y.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        flat, inner, weight, down, up = ctx.saved_tensors
        dy = upstream.reshape(-1, upstream.shape[-1])
        d_inner = dy @ up
        dx = None
        if ctx.needs_input_grad[0]:
            dx = (dy @ weight).addmm_(d_inner, down).view(*upstream.shape[:-1], -1)
        da = (d_inner.T @ flat).float()
        db = (dy.T @ inner).float() * ctx.scaling
        return dx, None, None, da, db, None


def lora_linear(
    x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scaling: float
) -> Tensor:
    """`x @ weight.T + bias + scaling * (x @ a.T) @ b.T` with `weight` and `bias` frozen.

    Args:
        x: [..., in], in the precision of `weight`.
        weight: [out, in].
        bias: [out] or None.
        a: [rank, in], float32, trained.
        b: [out, rank], float32, trained.
        scaling: alpha / rank.

    Returns:
        [..., out] in the precision of `x`. The adapter's products run in that precision too;
        its weights and their gradients stay float32.
    """
    y: Tensor = _LoraLinear.apply(x, weight, bias, a, b, scaling)  # type: ignore[no-untyped-call]
    return y


def fuse_lora(model: nn.Module) -> int:
    """Give PEFT's plain LoRA Linear layers the forward of `lora_linear`; returns how many."""

    def forward(self: Any, x: Tensor, *_: Any, **__: Any) -> Tensor:
        base = self.base_layer
        name = self.active_adapters[0]
        a, b = self.lora_A[name].weight, self.lora_B[name].weight
        return lora_linear(x, base.weight, base.bias, a, b, self.scaling[name])

    layers: list[Any] = [m for m in model.modules() if is_plain(m)]
    for layer in layers:
        layer.forward = MethodType(forward, layer)
    return len(layers)
